//! What the public door decides, free of HTTP servers and messaging.

pub mod classes;
pub mod operator;
pub mod peer;
pub mod priority;
pub mod session;
pub mod streams;
