//! What an error means to whoever asked.

use stampede_contracts::{Code, Problem};
use stampede_postgres::Failure;

use crate::app::Error;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::OrderNotFound => Self::new(Code::OrderNotFound),
            Error::TicketNotFound => Self::new(Code::TicketNotFound),
            Error::Invalid(invalid) => Self::new(Code::ValidationFailed).detail(invalid.to_string()),
            Error::KeyReused => Self::new(Code::KeyReused),
            Error::KeyInProgress => Self::new(Code::KeyInProgress).retry_after(1),
            Error::CancelTooLate => Self::new(Code::CancelTooLate),
            Error::Database(ref cause) => {
                let code = Failure::of(cause).code();
                log(&error);
                Self::new(code)
            }
            Error::Saga(_) | Error::Encoding(_) => {
                log(&error);
                Self::new(Code::Internal)
            }
        }
    }
}

/// Once, with the whole chain: what goes out says nothing of it.
fn log(error: &Error) {
    let error: &dyn std::error::Error = error;
    tracing::error!(error, "a request failed");
}
