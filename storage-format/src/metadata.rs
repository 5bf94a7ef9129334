//! Metric metadata records (type, unit, help).
