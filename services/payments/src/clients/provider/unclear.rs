//! Why an outcome is not known.

use reqwest::StatusCode;
use stampede_bus::CallError;

/// Nobody knows, or cannot know now. Never a failure: it is found out later.
#[derive(Debug, thiserror::Error)]
pub enum Unclear {
    /// No answer within the time allowed. It may have been done.
    #[error("no answer in time")]
    TimedOut,
    /// The provider was not called: too many calls have failed, or too many are under way.
    #[error("the provider is not called for a moment")]
    NotCalled,
    /// The connection could not be made, or broke. It may have been done.
    #[error("the provider cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// An answer that settles nothing, such as a 5xx.
    #[error("the provider answered {0}")]
    Status(StatusCode),
    /// An answer that cannot be read.
    #[error("the provider's answer to {0} cannot be read")]
    Malformed(&'static str),
    /// The provider does not accept our API key: an operator has to help.
    #[error("the provider does not accept our API key ({0})")]
    Credentials(StatusCode),
    /// `orders` cannot say now which card pays.
    #[error("the card token cannot be had now")]
    NoCard(#[source] CallError),
    /// A step that this one is about has no outcome yet.
    #[error("{0} is still open")]
    Waiting(&'static str),
    /// Our own database.
    #[error("the database cannot be used")]
    Database(#[from] sqlx::Error),
    /// A result that cannot be written down.
    #[error("a result has no form in JSON")]
    Unwritable(#[from] serde_json::Error),
}

impl Unclear {
    /// One word, for metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::TimedOut => "timed_out",
            Self::NotCalled => "not_called",
            Self::Unreachable(_) => "unreachable",
            Self::Status(_) => "status",
            Self::Malformed(_) => "malformed",
            Self::Credentials(_) => "credentials",
            Self::NoCard(_) => "no_card",
            Self::Waiting(_) => "waiting",
            Self::Database(_) => "database",
            Self::Unwritable(_) => "unwritable",
        }
    }
}

impl From<reqwest::Error> for Unclear {
    fn from(error: reqwest::Error) -> Self {
        // The URL may be a long one, and says nothing that the span does not.
        if error.is_timeout() { Self::TimedOut } else { Self::Unreachable(error.without_url()) }
    }
}
