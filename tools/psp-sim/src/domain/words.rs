//! The words of the ledger.

/// A kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reserve an amount on a card.
    Authorise,
    /// Take what was reserved.
    Capture,
    /// Give a reservation back.
    Void,
    /// Give back what was taken.
    Refund,
    /// The tombstone of a key that was cancelled before anything came under it.
    Cancel,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Authorise, Self::Capture, Self::Void, Self::Refund, Self::Cancel];

    /// The word on the wire and in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorise => "authorise",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
            Self::Cancel => "cancel",
        }
    }

    /// The kind of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// What it is once it was done.
    pub const fn done(self) -> Status {
        match self {
            Self::Authorise => Status::Authorised,
            Self::Capture => Status::Captured,
            Self::Void => Status::Voided,
            Self::Refund => Status::Refunded,
            Self::Cancel => Status::Cancelled,
        }
    }

    /// How the ids of what was done begin.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Authorise => "auth",
            Self::Capture => "cap",
            Self::Void => "void",
            Self::Refund => "ref",
            Self::Cancel => "can",
        }
    }
}

/// What became of an operation. Final, all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The amount is reserved.
    Authorised,
    /// The amount was taken.
    Captured,
    /// The reservation was given back.
    Voided,
    /// The amount was given back.
    Refunded,
    /// The card was declined.
    Declined,
    /// It will not be done.
    Refused,
    /// The key was cancelled; nothing happens under it.
    Cancelled,
}

impl Status {
    const ALL: [Self; 7] = [
        Self::Authorised,
        Self::Captured,
        Self::Voided,
        Self::Refunded,
        Self::Declined,
        Self::Refused,
        Self::Cancelled,
    ];

    /// The word on the wire and in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorised => "authorised",
            Self::Captured => "captured",
            Self::Voided => "voided",
            Self::Refunded => "refunded",
            Self::Declined => "declined",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}
