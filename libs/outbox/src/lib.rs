//! stampede-outbox
