//! What an error means to a consumer of messages.

use std::error::Error;

use stampede_bus::{BoxError, Failure};

/// SQLSTATE classes in which the database is well and the data are at fault: data exception, integrity constraint.
const OF_DATA: [&str; 2] = ["22", "23"];

/// Why a batch was not handled: a fault where a database says that the data are wrong, which they would be again; else an
/// outage, because a dead letter is wrong where waiting helps.
pub fn failure(error: impl Into<BoxError>) -> Failure {
    let error = error.into();
    let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(link) = cause {
        if is_about_data(link) {
            return Failure::Fault(error);
        }
        cause = link.source();
    }
    Failure::Outage(error)
}

fn is_about_data(error: &(dyn Error + 'static)) -> bool {
    match error.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Database(database)) => {
            database.code().is_some_and(|code| OF_DATA.iter().any(|class| code.starts_with(class)))
        }
        Some(sqlx::Error::Encode(_)) => true,
        _ => false,
    }
}
