//! What the services need and we do not write: Postgres, NATS, a mail sink. Found on the machine or fetched, and
//! run as private instances with their data below the state folder.

pub(crate) mod account;
pub(crate) mod locate;
pub(crate) mod nats;
pub(crate) mod packages;
pub(crate) mod postgres;
pub(crate) mod smtp;
pub(crate) mod venv;
