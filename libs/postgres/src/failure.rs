//! What an error of the database means: the one place where SQLSTATEs are read.
//!
//! The classes are those of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use std::error::Error;

use sqlx::postgres::PgDatabaseError;
use stampede_contracts::Code;

/// What an error of the database means to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The database cannot be used now: it is unreachable or overloaded, lets this role not in, takes no writes, or its
    /// machine lacks something. Time or an operator fixes it.
    Outage,
    /// Another transaction was in the way. The same transaction may succeed when it is tried again.
    Conflict,
    /// The statement, the schema or a value is wrong: it will fail again.
    Defect,
}

impl Failure {
    /// What an error means.
    pub fn of(error: &sqlx::Error) -> Self {
        match error {
            // Its result has other columns since a migration: another connection prepares it again.
            sqlx::Error::Database(_) if is_outdated_plan(error) => Self::Conflict,
            sqlx::Error::Database(error) => Self::of_state(&error.code().unwrap_or_default()),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            // No connection was free, or the server refused every one until the wait was over.
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Self::Outage,
            _ => Self::Defect,
        }
    }

    /// What a SQLSTATE means: two characters of class, three of detail. What is not listed is a defect.
    pub fn of_state(state: &str) -> Self {
        match state {
            // The session was ended because its transaction was idle or took too long.
            "25P03" | "25P04" => Self::Outage,
            // The server became a standby, or was made read-only.
            "25006" => Self::Outage,
            // A prepared statement is gone: another connection prepares it again.
            "26000" => Self::Conflict,
            // Lock not available.
            "55P03" => Self::Conflict,
            // The database takes no connections, or is being changed or dropped by an operator.
            "55000" | "55006" => Self::Outage,
            _ => match state.get(..2).unwrap_or_default() {
                // Connection, authorization, no such database, resources (connections, disk, memory), operator (a statement
                // that was cancelled by its time limit, too), system, configuration file.
                "08" | "28" | "3D" | "53" | "57" | "58" | "F0" => Self::Outage,
                // Transaction rollback (serialization, deadlock), snapshot too old.
                "40" | "72" => Self::Conflict,
                _ => Self::Defect,
            },
        }
    }

    /// Whether time fixes it and a restart or another statement does not.
    pub const fn is_outage(self) -> bool {
        !matches!(self, Self::Defect)
    }

    /// What it means to a caller.
    pub const fn code(self) -> Code {
        match self {
            Self::Outage | Self::Conflict => Code::Unavailable,
            Self::Defect => Code::Internal,
        }
    }

    /// Whether the same transaction may succeed if it is retried immediately: another one was in the way, or has just
    /// written a value that must be unique and is read now, or the connection broke. After a break a commit may or may not
    /// have happened, so its effect needs a key.
    pub fn is_transient(error: &sqlx::Error) -> bool {
        let is_worth_it = match error {
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                is_of_session(&code) || matches!(&*code, "23505" | "23P01")
            }
            _ => matches!(error, sqlx::Error::Io(_)),
        };
        is_worth_it || Self::of(error) == Self::Conflict
    }

    /// Whether the server refused the role or its password.
    pub fn refuses_role(error: &sqlx::Error) -> bool {
        let code = error.as_database_error().and_then(|error| error.code());
        code.is_some_and(|code| code.starts_with("28"))
    }

    /// Whether the connection is of no more use after this error.
    pub(crate) fn ends_connection(error: &sqlx::Error) -> bool {
        match error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                is_of_session(&code) || matches!(&*code, "25006" | "26000") || is_outdated_plan(error)
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => true,
            _ => false,
        }
    }
}

/// Whether an error, or one of its causes, is an outage of the database.
pub fn is_outage(error: &(dyn Error + 'static)) -> bool {
    has_cause(error, |error| Failure::of(error).is_outage())
}

/// Whether an error, or one of its causes, is a fault of the data in a healthy database: a data exception, a broken
/// constraint, a value too large for the server, or one that cannot be written or read as its type.
pub fn is_of_data(error: &(dyn Error + 'static)) -> bool {
    has_cause(error, |error| match error {
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| matches!(code.get(..2), Some("22" | "23" | "54")))
        }
        sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => true,
        _ => false,
    })
}

fn has_cause(error: &(dyn Error + 'static), is_it: impl Fn(&sqlx::Error) -> bool) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| (**error).source());
    causes.any(|cause| cause.downcast_ref().is_some_and(&is_it))
}

/// Connection exceptions, and a session that the server ends.
fn is_of_session(state: &str) -> bool {
    state.starts_with("08") || state.starts_with("57P") || matches!(state, "25P03" | "25P04")
}

/// The SQLSTATE, feature not supported, covers other errors too, and the message may be translated.
fn is_outdated_plan(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error.is_some_and(|error| error.routine() == Some("RevalidateCachedQuery"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Every class of the appendix, and within it every state that is not like the rest of its class.
    #[test]
    fn every_class_of_sqlstates_has_one_meaning() {
        let table = [
            (
                Failure::Outage,
                "08000 08001 08003 08004 08006 08007 08P01 25006 25P03 25P04 28000 28P01 3D000 53000 \
                               53100 53200 53300 53400 55000 55006 57000 57014 57P01 57P02 57P03 57P04 57P05 58000 \
                               58030 58P01 58P02 F0000 F0001",
            ),
            (Failure::Conflict, "26000 40000 40001 40002 40003 40P01 55P03 72000"),
            (
                Failure::Defect,
                "01000 02000 03000 09000 0A000 0B000 0F000 0L000 0P000 0Z000 20000 21000 22000 22001 22003 \
                               22008 22012 22021 22P02 23000 23502 23503 23505 23514 23P01 24000 25000 25001 25P01 25P02 27000 \
                               2B000 2D000 2F000 34000 38000 39000 3B000 3F000 42501 42601 42703 42804 42P01 44000 \
                               54000 54001 55P02 55P04 HV000 P0000 P0001 XX000 XX001 XX002 99999 5",
            ),
        ];
        for (meaning, states) in table {
            for state in states.split_whitespace() {
                assert_eq!(Failure::of_state(state), meaning, "{state}");
            }
        }
    }

    #[test]
    fn a_caller_is_told_to_come_again_unless_it_is_a_defect() {
        let codes = [Failure::Outage, Failure::Conflict, Failure::Defect].map(Failure::code);
        assert_eq!(codes.map(Code::status), [503, 503, 500]);
    }

    #[test]
    fn what_the_client_sees_by_itself_is_an_outage_and_what_it_cannot_read_is_not() {
        let away = [
            sqlx::Error::Io(io::ErrorKind::TimedOut.into()),
            sqlx::Error::Tls("no".into()),
            sqlx::Error::Protocol("no".into()),
            sqlx::Error::PoolTimedOut,
            sqlx::Error::PoolClosed,
        ];
        assert!(away.iter().all(|error| is_outage(error)));
        let of_data = [
            sqlx::Error::Encode("no".into()),
            sqlx::Error::Decode("no".into()),
            sqlx::Error::ColumnDecode { index: "no".into(), source: "no".into() },
        ];
        assert!(of_data.iter().all(|error| !is_outage(error) && is_of_data(error)));
        assert!(!is_outage(&sqlx::Error::RowNotFound));
        assert!(away.iter().all(|error| !is_of_data(error)));
    }
}
