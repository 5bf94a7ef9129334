//! What HTTP itself takes: connections, parameters, bodies, and who may ask.

pub mod body;
pub mod edge;
pub mod listen;
pub mod origin;
pub mod params;
