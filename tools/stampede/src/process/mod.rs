//! Processes: started so that they cannot outlive us, watched, started again, stopped in order.

pub(crate) mod fleet;
pub(crate) mod identity;
pub(crate) mod keeper;
pub(crate) mod memory;
pub(crate) mod probe;
pub(crate) mod spec;

pub(crate) use fleet::Fleet;
pub(crate) use probe::Probe;
pub(crate) use spec::{Account, Spec};
