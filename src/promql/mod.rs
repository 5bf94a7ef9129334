//! "Here is an expression and steps, give me a value."
//!
//! Text is parsed into an [`ast::Expr`] that knows where each node stands, checked, and evaluated
//! by columns over any [`crate::storage::Source`].

pub mod annotations;
pub mod ast;
pub mod duration;
pub mod eval;
pub mod functions;
pub mod number;
pub mod parse;
pub mod steps;
pub mod value;

pub use annotations::Annotations;
pub use ast::Expr;
pub use eval::{EvalError, EvalOptions, evaluate};
pub use parse::{ParseError, parse};
pub use steps::{Steps, StepsError};
pub use value::{Answer, Value};
