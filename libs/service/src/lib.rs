//! stampede-service
