//! stampede-catalog
