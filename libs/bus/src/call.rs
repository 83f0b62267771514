//! Asking another node: one attempt, or as many as the deadline allows where repeating is safe.

use std::time::{Duration, Instant as Clock, SystemTime};

use async_nats::HeaderMap;
use bytes::Bytes;
use stampede_contracts::function::Answer;
use stampede_contracts::{Code, Function, Problem, Repeatable, header};
use stampede_deadline::Deadline;
use stampede_retry::{Backoff, retry};
use stampede_telemetry::trace;
use tracing::{Instrument, Span, field};

use crate::Bus;
use crate::class::of_call;
use crate::replies::Unanswered;

/// Pauses between attempts: an owner that moved is back within milliseconds, a restarted one within a second.
const BACKOFF_BASE: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// There is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The other side said no, and why. Final.
    #[error("refused: {0}")]
    Refused(Problem),
    /// It was not done: nobody listens, the queue was full, or there is no connection.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Nobody knows whether it was done.
    #[error("no answer within the deadline")]
    TimedOut,
    /// Request or answer cannot be read or sent: a fault in a program.
    #[error("malformed: {0}")]
    Malformed(String),
}

impl CallError {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Refused(problem) => problem.code.as_str(),
            Self::Unavailable(_) => "unavailable",
            Self::TimedOut => "timed_out",
            Self::Malformed(_) => "malformed",
        }
    }

    fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::TimedOut)
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(problem) => problem,
            CallError::Unavailable(_) => Self::new(Code::Unavailable),
            CallError::TimedOut => Self::new(Code::DeadlineExceeded),
            CallError::Malformed(_) => Self::new(Code::Internal),
        }
    }
}

impl From<Unanswered> for CallError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Disconnected | Unanswered::NoResponders => Self::Unavailable(unanswered.to_string()),
            Unanswered::TimedOut => Self::TimedOut,
            Unanswered::Unsendable(text) => Self::Malformed(text),
        }
    }
}

impl From<serde_json::Error> for CallError {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl Bus {
    /// Asks once. Waits until the deadline of the running task, or `F::DEADLINE` where there is none.
    ///
    /// # Errors
    /// [`CallError`]; after [`CallError::TimedOut`] the effect is unknown.
    pub async fn call<F: Function>(
        &self,
        subject: String,
        request: &F::Request,
    ) -> Result<F::Reply, CallError> {
        let payload = encode::<F>(request)?;
        let deadline = stampede_deadline::current().unwrap_or_else(|| Deadline::after(F::DEADLINE));
        self.attempt::<F>(subject, payload, deadline).await
    }

    /// Asks again, with the same request and so the same key, while nobody listens, the queue is full, or an attempt
    /// of at most `F::DEADLINE` got no answer, until the deadline of the running task (or `F::DEADLINE` in all where
    /// there is none). Compiles for functions that may be repeated only.
    ///
    /// # Errors
    /// [`CallError`] of the last attempt; after [`CallError::TimedOut`] the effect is unknown.
    pub async fn call_repeatedly<F>(
        &self,
        subject: String,
        request: &F::Request,
    ) -> Result<F::Reply, CallError>
    where
        F: Function,
        F::Guarantee: Repeatable,
    {
        let payload = encode::<F>(request)?;
        let deadline = stampede_deadline::current().unwrap_or_else(|| Deadline::after(F::DEADLINE));
        let backoff = Backoff::try_new(BACKOFF_BASE, BACKOFF_MAX)
            .map_err(|error| CallError::Malformed(error.to_string()))?;
        retry(deadline, &backoff, CallError::is_transient, async |_attempt: u32| {
            let this_time = deadline.earlier(Deadline::after(F::DEADLINE));
            self.attempt::<F>(subject.clone(), payload.clone(), this_time).await
        })
        .await
    }

    async fn attempt<F: Function>(
        &self,
        subject: String,
        payload: Bytes,
        deadline: Deadline,
    ) -> Result<F::Reply, CallError> {
        let span = tracing::info_span!(
            "call",
            otel.name = format!("{}/{}", F::SERVICE, F::NAME),
            otel.kind = "client",
            rpc.system = "nats",
            rpc.service = F::SERVICE,
            rpc.method = F::NAME,
            messaging.destination.name = subject,
            "error.type" = field::Empty,
            otel.status_code = field::Empty,
        );
        let started = Clock::now();
        let result = self.exchange::<F>(subject, payload, deadline).instrument(span.clone()).await;
        let error = result.as_ref().err().map(CallError::as_str);
        if let Some(error) = error {
            record_error(&span, error);
        }
        self.metrics().operation("request", &template::<F>(), error, started);
        result
    }

    async fn exchange<F: Function>(
        &self,
        subject: String,
        payload: Bytes,
        deadline: Deadline,
    ) -> Result<F::Reply, CallError> {
        if deadline.is_expired() {
            return Err(CallError::TimedOut);
        }
        let mut headers = HeaderMap::new();
        headers.insert(stampede_deadline::HEADER, deadline.header().to_string());
        headers.insert(stampede_deadline::HEADER_AT, deadline.header_at(SystemTime::now()).to_string());
        headers.insert(header::CLASS, of_call(F::CLASS).as_str());
        if let Some(traceparent) = trace::traceparent() {
            headers.insert(header::TRACEPARENT, traceparent);
        }
        let answer = self.ask(subject, headers, payload, deadline.instant()).await?;
        match serde_json::from_slice(&answer.payload) {
            Ok(Answer::Ok(reply)) => Ok(reply),
            Ok(Answer::Problem(problem)) if problem.code == Code::Busy => {
                Err(CallError::Unavailable("the other side is busy".to_owned()))
            }
            Ok(Answer::Problem(problem)) => Err(CallError::Refused(problem)),
            Err(error) => Err(error.into()),
        }
    }
}

fn encode<F: Function>(request: &F::Request) -> Result<Bytes, serde_json::Error> {
    serde_json::to_vec(request).map(Bytes::from)
}

/// How a function is named in metrics.
pub(crate) fn template<F: Function>() -> String {
    format!("{}.{}", F::SERVICE, F::NAME)
}

pub(crate) fn record_error(span: &Span, error: &str) {
    span.record("error.type", error);
    span.record("otel.status_code", "ERROR");
}
