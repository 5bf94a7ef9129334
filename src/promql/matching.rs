//! Vector matching.
