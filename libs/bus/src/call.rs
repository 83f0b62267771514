//! Asking another node: one attempt, or as many as the deadline allows where repeating is safe.

use std::marker::PhantomData;
use std::task::{Context, Poll};
use std::time::{Instant as Clock, SystemTime};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use stampede_contracts::function::{Answer, Safe};
use stampede_contracts::{Code, Function, Problem, Repeatable, header};
use stampede_deadline::Deadline;
use stampede_resilience::Error;
use stampede_telemetry::trace;
use tower::{Layer, Service, ServiceExt};
use tracing::{Instrument, Span, field};

use crate::Bus;
use crate::callees::meaning;
use crate::class::of_call;
use crate::replies::Unanswered;

/// There is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The other side said no, and why. Final.
    #[error("refused: {0}")]
    Refused(Problem),
    /// It was not done: the other side has as much to do as it can.
    #[error("the other side is busy")]
    Busy,
    /// It was not done: nobody listens, there is no connection, or too many calls of ours have failed or wait.
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
            Self::Busy => "busy",
            Self::Unavailable(_) => "unavailable",
            Self::TimedOut => "timed_out",
            Self::Malformed(_) => "malformed",
        }
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(problem) => problem,
            CallError::Busy | CallError::Unavailable(_) => Self::new(Code::Unavailable),
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

impl From<Error<Self>> for CallError {
    fn from(error: Error<Self>) -> Self {
        match error {
            Error::Inner(error) => error,
            Error::TimedOut => Self::TimedOut,
            Error::Open(_) | Error::Crowded(_) => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for CallError {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// The way to a function: one attempt, without any of the layers around it.
struct Way<F> {
    bus: Bus,
    function: PhantomData<fn() -> F>,
}

/// A request on that way.
#[derive(Clone)]
struct Outgoing {
    subject: String,
    payload: Bytes,
}

impl<F> Clone for Way<F> {
    fn clone(&self) -> Self {
        Self { bus: self.bus.clone(), function: PhantomData }
    }
}

impl<F: Function> Service<Outgoing> for Way<F> {
    type Response = F::Reply;
    type Error = CallError;
    type Future = BoxFuture<'static, Result<F::Reply, CallError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, Outgoing { subject, payload }: Outgoing) -> Self::Future {
        let bus = self.bus.clone();
        async move {
            let own = Deadline::after(F::DEADLINE);
            let deadline = stampede_deadline::current().map_or(own, |current| current.earlier(own));
            bus.attempt::<F>(subject, payload, deadline).await
        }
        .boxed()
    }
}

impl Bus {
    /// Asks once. Waits until the deadline of the running task, and `F::DEADLINE` at most.
    ///
    /// # Errors
    /// [`CallError`]; after [`CallError::TimedOut`] the effect is unknown.
    pub async fn call<F: Function>(
        &self,
        subject: String,
        request: &F::Request,
    ) -> Result<F::Reply, CallError> {
        let outgoing = Outgoing { subject, payload: encode::<F>(request)? };
        let callee = self.callees().of::<F>().map_err(|error| CallError::Malformed(error.to_string()))?;
        let service = callee.single(meaning::<F::Reply>).layer(self.way::<F>());
        bounded::<F, _>(service.oneshot(outgoing)).await
    }

    /// Asks again, with the same request and so the same key, while nobody listens, the queue is full, or an attempt
    /// of at most `F::DEADLINE` got no answer, until the deadline of the running task (or `F::DEADLINE` in all where
    /// there is none), and while the callee's retry budget lasts. Compiles for functions that may be repeated only.
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
        let outgoing = Outgoing { subject, payload: encode::<F>(request)? };
        let callee = self.callees().of::<F>().map_err(|error| CallError::Malformed(error.to_string()))?;
        let service = callee.repeating(meaning::<F::Reply>).layer(self.way::<F>());
        bounded::<F, _>(service.oneshot(outgoing)).await
    }

    /// Reads: like [`call_repeatedly`](Self::call_repeatedly), and asks a second time beside the first where that takes
    /// longer than nearly all others did. Compiles for functions without an effect only.
    ///
    /// # Errors
    /// [`CallError`] of the last attempt.
    pub async fn read<F>(&self, subject: String, request: &F::Request) -> Result<F::Reply, CallError>
    where
        F: Function<Guarantee = Safe>,
    {
        let outgoing = Outgoing { subject, payload: encode::<F>(request)? };
        let callee = self.callees().of::<F>().map_err(|error| CallError::Malformed(error.to_string()))?;
        let service = callee.hedging(meaning::<F::Reply>).layer(self.way::<F>());
        bounded::<F, _>(service.oneshot(outgoing)).await
    }

    fn way<F>(&self) -> Way<F> {
        Way { bus: self.clone(), function: PhantomData }
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
            Ok(Answer::Problem(problem)) if problem.code == Code::Busy => Err(CallError::Busy),
            Ok(Answer::Problem(problem)) => Err(CallError::Refused(problem)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whoever has no deadline of its own waits as long as the function says.
async fn bounded<F: Function, T>(
    call: impl Future<Output = Result<T, Error<CallError>>>,
) -> Result<T, CallError> {
    let deadline = stampede_deadline::current().unwrap_or_else(|| Deadline::after(F::DEADLINE));
    Ok(stampede_deadline::scope(deadline, call).await?)
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
