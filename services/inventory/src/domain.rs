//! The rules of seats and holds, free of databases, messages and clocks.

pub mod block;
pub mod hold;
pub mod layout;
pub mod pick;
pub mod show;
