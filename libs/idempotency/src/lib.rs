#![doc = include_str!("../README.md")]

mod fingerprint;
pub mod inbox;
mod key;

pub use fingerprint::{Fingerprint, Fingerprinter};
pub use key::{HEADER, Key, MAX_CHARS, Malformed};
