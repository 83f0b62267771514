//! What an error means to a consumer of messages.

use stampede_bus::{BoxError, Failure};
use stampede_postgres::is_of_data;

/// Why a batch was not handled: a fault where a database says that the data are wrong, which they would be again; else an
/// outage, because a dead letter is wrong where waiting helps.
pub fn failure(error: impl Into<BoxError>) -> Failure {
    let error = error.into();
    if is_of_data(&*error) { Failure::Fault(error) } else { Failure::Outage(error) }
}
