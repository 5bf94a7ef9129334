//! A bounds-checked reader over bytes; every decoder of this crate reads through it.
