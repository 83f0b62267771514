//! stampede-gateway
