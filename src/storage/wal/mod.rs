//! The write-ahead log: what is acknowledged is here before it is in a partition.

mod commit;

pub use commit::Pending;
