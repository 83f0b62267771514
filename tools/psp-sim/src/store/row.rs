//! Rows as values of the domain.

use stampede_contracts::Timestamp;
use time::OffsetDateTime;

use crate::domain::{Kind, Operation, Status};

/// A row of the ledger as it is stored.
pub(super) struct Row {
    pub(super) key: String,
    pub(super) seq: i64,
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) id: Option<String>,
    pub(super) about: Option<String>,
    pub(super) amount: Option<i64>,
    pub(super) currency: Option<String>,
    pub(super) reference: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) fingerprint: Option<Vec<u8>>,
    pub(super) at: OffsetDateTime,
}

impl Row {
    /// As a value of the domain.
    pub(super) fn operation(self) -> Result<Operation, sqlx::Error> {
        let unknown = |column: &str, word: &str| {
            sqlx::Error::Decode(format!("{column} {word} of operation {} is not known", self.key).into())
        };
        Ok(Operation {
            kind: Kind::from_word(&self.kind).ok_or_else(|| unknown("kind", &self.kind))?,
            status: Status::from_word(&self.status).ok_or_else(|| unknown("status", &self.status))?,
            key: self.key,
            seq: self.seq,
            id: self.id,
            about: self.about,
            amount: self.amount,
            currency: self.currency,
            reference: self.reference,
            reason: self.reason,
            at: Timestamp::from(self.at),
        })
    }
}
