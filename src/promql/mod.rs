//! "Here is an expression and steps, give me a value."
//!
//! Text is parsed into an [`ast::Expr`] that knows where each node stands, checked, and evaluated
//! by columns over any [`crate::storage::Source`].

mod aggregate;
pub mod annotations;
pub mod ast;
pub mod ast_json;
mod binary;
pub(crate) mod cache;
pub mod duration;
pub mod eval;
pub mod explain;
mod extended;
pub mod functions;
pub(crate) mod histogram;
pub(crate) mod histogram_text;
mod kahan;
mod lexer;
mod limits;
mod matching;
mod merge;
pub mod number;
pub mod parse;
mod plan;
mod printer;
pub mod progress;
pub mod queryable;
mod row;
pub mod running;
mod selector;
mod slices;
pub mod steps;
mod subquery;
pub mod testlang;
pub mod value;
mod window;

pub use annotations::Annotations;
pub use ast::Expr;
pub use cache::ResultCacheStats;
pub use eval::{EvalError, EvalOptions, evaluate};
pub use explain::estimate;
pub use parse::{ParseError, Syntax, parse, parse_with};
pub use progress::Progress;
pub use slices::Threads;
pub use steps::{Steps, StepsError};
pub use value::{Answer, Value};
