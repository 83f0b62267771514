//! What an error means to whoever asked.

use stampede_contracts::{Code, Problem};

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
                let code = of_database(cause);
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

/// Away or overloaded is something else than wrong: it is worth coming back.
fn of_database(error: &sqlx::Error) -> Code {
    match error {
        sqlx::Error::PoolTimedOut => Code::Busy,
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            Code::Unavailable
        }
        sqlx::Error::Database(database) => match database.code().as_deref() {
            // Lock not available, statement cancelled by its time limit, too many connections.
            Some("55P03" | "57014" | "53300") => Code::Busy,
            // The server is starting, stopping, has become read-only, or takes no connections to this database.
            Some("57P01" | "57P02" | "57P03" | "25006" | "55000") => Code::Unavailable,
            _ => Code::Internal,
        },
        _ => Code::Internal,
    }
}

/// Once, with the whole chain: what goes out says nothing of it.
fn log(error: &Error) {
    let error: &dyn std::error::Error = error;
    tracing::error!(error, "a request failed");
}
