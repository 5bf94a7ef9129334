//! The edge: HTTP, configuration, processes. Everything asynchronous lives here.
