//! stampede-lobby
