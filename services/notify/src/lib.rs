//! stampede-notify
