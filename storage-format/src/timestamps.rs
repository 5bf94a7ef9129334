//! Timestamp columns and integer streams.
