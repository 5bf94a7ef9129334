//! Templates against what Go answered.
