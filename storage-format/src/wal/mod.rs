//! The write-ahead log: frames and the records in them.
