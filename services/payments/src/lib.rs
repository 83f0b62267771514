//! stampede-payments
