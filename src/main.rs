//! The thin binary: arguments, configuration, run.

fn main() {}
