//! "Here are bytes from the wire, give me a batch."
