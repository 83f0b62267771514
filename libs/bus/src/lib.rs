//! stampede-bus
