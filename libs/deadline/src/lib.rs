//! stampede-deadline
