//! Operations, what they mean for the books, and the signature of webhooks. Knows neither HTTP nor SQL.

mod ledger;
mod operation;
mod signature;

pub use ledger::{Account, Entry, entries};
pub use operation::{Authorisation, Captured, Fate, Invalid, NOTHING_TO_VOID, Operation, check};
pub use signature::{Signed, Untrusted, Verifier};
