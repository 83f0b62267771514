//! stampede-contracts
