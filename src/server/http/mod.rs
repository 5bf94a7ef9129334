//! What HTTP itself takes: connections, parameters, bodies, and who may ask.

pub mod body;
pub mod edge;
pub mod encoding;
pub mod listen;
pub mod origin;
pub mod pace;
pub mod params;
pub mod stream;
