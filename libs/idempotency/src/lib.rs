//! stampede-idempotency
