//! Which failures are an outage of NATS or of who is called, and not a defect of the caller.

use std::error::Error;
use std::iter::successors;

use crate::{ApiError, BucketError, CallError, PublishError};

/// Whether an error, or one of its causes, is an outage: waiting helps, and a restart does not.
pub fn is_outage(error: &(dyn Error + 'static)) -> bool {
    successors(Some(error), |error| (**error).source()).any(|cause| {
        let call = cause.downcast_ref().is_some_and(of_call);
        let publish = cause.downcast_ref().is_some_and(of_publish);
        let bucket = cause.downcast_ref().is_some_and(|error| match error {
            BucketError::Publish(error) => of_publish(error),
            BucketError::Unavailable(_) => true,
            BucketError::InvalidKey(_) => false,
        });
        let api = cause.downcast_ref().is_some_and(|error| match error {
            ApiError::Unavailable(_) => true,
            ApiError::Refused(_) | ApiError::Malformed(_) => false,
        });
        call || publish || bucket || api
    })
}

fn of_call(error: &CallError) -> bool {
    match error {
        CallError::Failed(_) | CallError::Busy | CallError::Unavailable(_) | CallError::TimedOut => true,
        CallError::Refused(_) | CallError::Malformed(_) => false,
    }
}

fn of_publish(error: &PublishError) -> bool {
    match error {
        PublishError::NoStream
        | PublishError::Full(_)
        | PublishError::NotSent(_)
        | PublishError::Unavailable
        | PublishError::TimedOut => true,
        PublishError::Outdated | PublishError::Unsendable(_) | PublishError::Refused(_) => false,
    }
}
