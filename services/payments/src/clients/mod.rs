//! Those whom this service asks: the payment provider over HTTP, `orders` for card tokens.

mod cards;
mod provider;

pub use cards::{CardToken, Cards};
pub use provider::{Answer, BuildError, LedgerPage, LedgerRow, LookUp, Provider, ProviderSettings, Unclear};
