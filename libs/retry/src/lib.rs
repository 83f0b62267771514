//! stampede-retry
