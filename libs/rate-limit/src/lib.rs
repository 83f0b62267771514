//! stampede-rate-limit
