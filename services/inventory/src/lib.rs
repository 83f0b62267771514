//! stampede-inventory
