//! stampede-orders
