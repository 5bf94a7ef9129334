//! The functions of PromQL: one static table, a row for each.

use super::ast::ValueType;

/// A function: its name and signature.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// The types of its arguments; with `variadic`, the last one repeats.
    pub args: &'static [ValueType],
    /// How many arguments beyond (or short of) `args` are allowed; -1: any number, 0: none.
    pub variadic: i32,
    /// The type of its value.
    pub returns: ValueType,
    /// Whether stock Prometheus hides it behind a feature flag.
    pub experimental: bool,
}

/// Two functions are the same if their names are.
impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.name == other.name
    }
}
