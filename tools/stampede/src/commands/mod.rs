//! One module a command.

pub(crate) mod bench;
pub(crate) mod blueprint;
pub(crate) mod buy;
pub(crate) mod chaos;
pub(crate) mod check;
pub(crate) mod check_layers;
pub(crate) mod dead_letters;
pub(crate) mod down;
pub(crate) mod images;
pub(crate) mod kind;
pub(crate) mod load;
pub(crate) mod policies;
pub(crate) mod provision;
pub(crate) mod reconcile;
pub(crate) mod restart;
pub(crate) mod secrets;
pub(crate) mod seed;
pub(crate) mod status;
pub(crate) mod test;
pub(crate) mod up;
pub(crate) mod verify;
