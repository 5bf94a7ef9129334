//! "Here are bytes from the wire, give me a batch."
//!
//! One module per wire format. Decoders are total: any bytes give a batch or an error that names
//! the offset, and nothing is allocated that the input has not paid for.

pub mod remote_write;
