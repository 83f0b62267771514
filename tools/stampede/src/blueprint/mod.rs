//! The blueprints of all services: held against each other and against the code, and shown as one system.

mod code;
mod compare;
mod contracts;
mod locks;
mod picture;
mod system;
mod table;

pub(crate) use code::Code;
pub(crate) use compare::violations;
pub(crate) use contracts::Contracts;
pub(crate) use locks::locks;
pub(crate) use picture::picture;
pub(crate) use system::System;
pub(crate) use table::{calls, table};
