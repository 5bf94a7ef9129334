//! CRC-32C of byte ranges.
