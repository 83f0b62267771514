//! stampede-telemetry
