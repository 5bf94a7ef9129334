//! "Here are bytes from the wire, give me a batch."
//!
//! One module per format: of the wire, of files that others wrote. Decoders are total: any bytes give a
//! batch or an error that names the place, and nothing is allocated that the input has not paid for.

pub mod open_metrics;
pub mod prometheus_block;
pub mod remote_write;
