//! stampede-supervisor
