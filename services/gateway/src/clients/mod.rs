//! What lies behind the door.

pub mod dead_letters;
pub mod inventory;
pub mod last_copy;
pub mod layout;
pub mod upstream;
