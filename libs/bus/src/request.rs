//! One request on its way through this process.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock, SystemTime};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use stampede_contracts::function::Answer;
use stampede_contracts::{Class, Code, Problem, header};
use stampede_deadline::Deadline;
use stampede_telemetry::trace;
use tracing::{Instrument, Span, field};

use crate::Bus;
use crate::call::record_error;
use crate::connect::until;
use crate::headers::get;

/// What a handler learns about a request beside its content.
#[derive(Debug, Clone)]
pub struct Context {
    /// The subject it came on.
    pub subject: String,
    /// The token between service and function, where there is one: `17` or `any` in `rpc.inventory.17.hold`.
    pub shard: Option<String>,
    /// Its priority: that of the function, or lower if the client asked for that.
    pub class: Class,
    /// When nobody waits for the answer any more. The handler runs in its scope.
    pub deadline: Deadline,
}

/// A function with its handler; bytes in, bytes out.
#[derive(Clone)]
pub(crate) struct Offer {
    pub(crate) service: &'static str,
    pub(crate) name: &'static str,
    pub(crate) template: Arc<str>,
    pub(crate) class: Class,
    pub(crate) deadline: Duration,
    pub(crate) handle: Arc<dyn Fn(Bytes, Context) -> BoxFuture<'static, Outcome> + Send + Sync>,
}

/// An encoded answer, and the code of the problem if it is one.
pub(crate) struct Outcome {
    pub(crate) answer: Bytes,
    problem: Option<Code>,
}

/// A request that somebody waits for.
pub(crate) struct Request {
    pub(crate) offer: Offer,
    pub(crate) context: Context,
    pub(crate) message: async_nats::Message,
    pub(crate) reply: async_nats::Subject,
}

impl Request {
    pub(crate) async fn run(self, bus: Bus) {
        let started = Clock::now();
        let span = self.span();
        let deadline = self.context.deadline;
        let handling = (self.offer.handle)(self.message.payload.clone(), self.context);
        let handling = AssertUnwindSafe(handling.instrument(span.clone())).catch_unwind();
        let error = match stampede_deadline::within(deadline, handling).await {
            Ok(outcome) => {
                let Outcome { answer, problem } = outcome.unwrap_or_else(|panic| Outcome::panicked(&*panic));
                // Nobody waits longer than the deadline, so neither does the answer.
                match until(deadline.instant(), bus.client().publish(self.reply, answer)).await {
                    Some(Ok(())) => problem.map(Code::as_str),
                    Some(Err(error)) => {
                        tracing::error!(function = self.offer.name, %error, "an answer cannot be sent");
                        Some("unsendable")
                    }
                    None => Some("late"),
                }
            }
            Err(_elapsed) => Some("late"),
        };
        if let Some(error) = error {
            record_error(&span, error);
        }
        bus.metrics().process(&self.offer.template, error, started.elapsed());
    }

    fn span(&self) -> Span {
        let span = tracing::info_span!(
            "serve",
            otel.name = format!("{}/{}", self.offer.service, self.offer.name),
            otel.kind = "server",
            rpc.system = "nats",
            rpc.service = self.offer.service,
            rpc.method = self.offer.name,
            messaging.destination.name = self.context.subject,
            stampede.class = self.context.class.as_str(),
            "error.type" = field::Empty,
            otel.status_code = field::Empty,
        );
        if let Some(parent) = get(self.message.headers.as_ref(), header::TRACEPARENT) {
            trace::set_parent(&span, parent);
        }
        span
    }
}

impl Outcome {
    pub(crate) fn of<T: Serialize>(result: Result<T, Problem>) -> Self {
        let (answer, problem) = match result {
            Ok(reply) => (Answer::Ok(reply), None),
            Err(problem) => {
                let code = problem.code;
                (Answer::Problem(problem), Some(code))
            }
        };
        match serde_json::to_vec(&answer) {
            Ok(answer) => Self { answer: answer.into(), problem },
            Err(error) => {
                tracing::error!(%error, "an answer has no form in JSON");
                Self { answer: Bytes::from_static(b"{}"), problem: Some(Code::Internal) }
            }
        }
    }

    fn panicked(panic: &(dyn Any + Send)) -> Self {
        let said = panic.downcast_ref::<&str>().copied();
        let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(panic = said.unwrap_or("not a text"), "a handler panicked");
        Self::of::<()>(Err(Problem::new(Code::Internal)))
    }
}

/// When the caller stops waiting; `None` if it has already done so.
pub(crate) fn deadline(
    headers: Option<&HeaderMap>,
    default: Duration,
) -> Result<Option<Deadline>, stampede_deadline::Malformed> {
    let left = get(headers, stampede_deadline::HEADER).map(stampede_deadline::parse_ms).transpose()?;
    let past = get(headers, stampede_deadline::HEADER_AT)
        .map(|text| stampede_deadline::is_past(text, SystemTime::now()))
        .transpose()?;
    Ok((past != Some(true)).then(|| Deadline::after(left.unwrap_or(default))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_whose_caller_gave_up_is_not_worth_an_answer() {
        let mut headers = HeaderMap::new();
        headers.insert(stampede_deadline::HEADER, "1000");
        assert!(matches!(deadline(Some(&headers), Duration::ZERO), Ok(Some(_))));

        headers.insert(stampede_deadline::HEADER_AT, "1");
        assert!(matches!(deadline(Some(&headers), Duration::ZERO), Ok(None)));

        headers.insert(stampede_deadline::HEADER_AT, "soon");
        assert!(deadline(Some(&headers), Duration::ZERO).is_err());
        assert!(matches!(deadline(None, Duration::from_secs(1)), Ok(Some(_))));
    }
}
