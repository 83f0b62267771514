//! Asking another node: one attempt, or as many as the deadline allows where repeating is safe.

use std::task::{Context, Poll};
use std::time::{Duration, Instant as Clock, SystemTime};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use stampede_contracts::function::{Answer, Safe};
use stampede_contracts::{Class, Code, Function, Problem, Refusal, Repeatable, header};
use stampede_deadline::{Deadline, Patience};
use stampede_resilience::{Error, HedgingStack, InvalidPolicy, Meaning, RepeatingStack, SingleStack};
use stampede_telemetry::trace;
use tower::{Layer, Service, ServiceExt};
use tracing::{Instrument, Span, field};

use crate::Bus;
use crate::callee::{Failed, meaning};
use crate::class::of_call;
use crate::replies::Unanswered;

/// There is no reply. Only [`Refused`](Self::Refused) is final; after everything else trying again may help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The other side decided against it. No failure of its own can be in here.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The other side failed, or a part that it needs. Nobody knows whether it was done.
    #[error("failed: {0}")]
    Failed(Problem),
    /// It was not done: the other side has as much to do as it can.
    #[error("the other side is busy")]
    Busy,
    /// It was not done: nobody listens, there is no connection, or too many calls of ours have failed or wait.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Nobody knows whether it was done.
    #[error("no answer within the deadline")]
    TimedOut,
    /// Request or answer cannot be read or sent, or the other side is of a version that does not know the function: a
    /// fault in a program.
    #[error("malformed: {0}")]
    Malformed(String),
}

impl CallError {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code().as_str(),
            Self::Failed(problem) => problem.code.as_str(),
            Self::Busy => "busy",
            Self::Unavailable(_) => "unavailable",
            Self::TimedOut => "timed_out",
            Self::Malformed(_) => "malformed",
        }
    }
}

impl From<Problem> for CallError {
    fn from(problem: Problem) -> Self {
        let problem = match Refusal::try_from(problem) {
            Ok(refusal) => return Self::Refused(refusal),
            Err(problem) => problem,
        };
        match problem.code {
            Code::Busy | Code::KeyInProgress | Code::RateLimited | Code::RequestTimeout => Self::Busy,
            code if code.status() >= 500 => Self::Failed(problem),
            _ => Self::Malformed(problem.to_string()),
        }
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(refusal) => refusal.into(),
            CallError::Failed(problem) => problem,
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

impl From<Error<Failed>> for CallError {
    fn from(error: Error<Failed>) -> Self {
        match error {
            Error::Inner(Failed::Call(error)) => error,
            Error::Inner(Failed::OutOfTime) | Error::TimedOut => Self::TimedOut,
            Error::Open(_) | Error::Crowded(_) => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<InvalidPolicy> for CallError {
    fn from(error: InvalidPolicy) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<serde_json::Error> for CallError {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// What a function is called and how it is asked; everything about it that its types do not say.
#[derive(Clone, Copy)]
struct Asked {
    service: &'static str,
    name: &'static str,
    class: Class,
    deadline: Duration,
}

impl Asked {
    const fn of<F: Function>() -> Self {
        Self { service: F::SERVICE, name: F::NAME, class: F::CLASS, deadline: F::DEADLINE }
    }
}

/// A request on its way.
#[derive(Clone)]
struct Outgoing {
    asked: Asked,
    /// Of whoever asks; the layers shorten what an attempt sees of it.
    caller: Option<Deadline>,
    subject: String,
    payload: Bytes,
}

/// A reply that nobody has read yet: the layers need not know of what type it is, so they are compiled once.
type Reply = Box<RawValue>;
type Means = fn(Result<&Reply, &Failed>) -> Meaning;

/// The way to whoever answers: one attempt, without any of the layers around it.
#[derive(Clone)]
struct Way(Bus);

impl Service<Outgoing> for Way {
    type Response = Reply;
    type Error = Failed;
    type Future = BoxFuture<'static, Result<Reply, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, outgoing: Outgoing) -> Self::Future {
        let bus = self.0.clone();
        async move { bus.attempt(outgoing).await }.boxed()
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
        let outgoing = outgoing::<F>(subject, request)?;
        let callee = self.callee::<F>()?;
        if !callee.is_on() {
            return read(self.ask_plainly(outgoing).await);
        }
        read(self.ask_once(callee.single(meaning as Means), outgoing).await)
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
        let outgoing = outgoing::<F>(subject, request)?;
        let callee = self.callee::<F>()?;
        if !callee.is_on() {
            return read(self.ask_plainly(outgoing).await);
        }
        read(self.ask_repeatedly(callee.repeating(meaning as Means), outgoing).await)
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
        let outgoing = outgoing::<F>(subject, request)?;
        let callee = self.callee::<F>()?;
        if !callee.is_on() {
            return read(self.ask_plainly(outgoing).await);
        }
        read(self.ask_hedged(callee.hedging(meaning as Means), outgoing).await)
    }

    async fn ask_plainly(&self, outgoing: Outgoing) -> Result<Reply, CallError> {
        let attempt = self.attempt(outgoing.clone()).map_err(Error::Inner);
        bounded(outgoing.asked, attempt).await
    }

    async fn ask_once(&self, stack: SingleStack<Means>, outgoing: Outgoing) -> Result<Reply, CallError> {
        bounded(outgoing.asked, stack.layer(Way(self.clone())).oneshot(outgoing)).await
    }

    async fn ask_repeatedly(
        &self,
        stack: RepeatingStack<Means>,
        outgoing: Outgoing,
    ) -> Result<Reply, CallError> {
        bounded(outgoing.asked, stack.layer(Way(self.clone())).oneshot(outgoing)).await
    }

    async fn ask_hedged(&self, stack: HedgingStack<Means>, outgoing: Outgoing) -> Result<Reply, CallError> {
        bounded(outgoing.asked, stack.layer(Way(self.clone())).oneshot(outgoing)).await
    }

    async fn attempt(&self, outgoing: Outgoing) -> Result<Reply, Failed> {
        let Asked { service, name, deadline, .. } = outgoing.asked;
        let patience = Patience::of(outgoing.caller, deadline);
        let span = tracing::info_span!(
            "call",
            otel.name = format!("{service}/{name}"),
            otel.kind = "client",
            rpc.system = "nats",
            rpc.service = service,
            rpc.method = name,
            messaging.destination.name = outgoing.subject,
            "error.type" = field::Empty,
            otel.status_code = field::Empty,
        );
        let started = Clock::now();
        let result = self.exchange(outgoing).instrument(span.clone()).await;
        let error = result.as_ref().err().map(CallError::as_str);
        if let Some(error) = error {
            record_error(&span, error);
        }
        self.metrics().operation("request", &template(service, name), error, started);
        match result {
            Err(CallError::TimedOut) if patience.was_too_short() => Err(Failed::OutOfTime),
            result => result.map_err(Failed::Call),
        }
    }

    async fn exchange(&self, Outgoing { asked, subject, payload, .. }: Outgoing) -> Result<Reply, CallError> {
        let own = Deadline::after(asked.deadline);
        let deadline = stampede_deadline::current().map_or(own, |current| current.earlier(own));
        if deadline.is_expired() {
            return Err(CallError::TimedOut);
        }
        let mut headers = HeaderMap::new();
        headers.insert(stampede_deadline::HEADER, deadline.header().to_string());
        headers.insert(stampede_deadline::HEADER_AT, deadline.header_at(SystemTime::now()).to_string());
        headers.insert(header::CLASS, of_call(asked.class).as_str());
        if let Some(traceparent) = trace::traceparent() {
            headers.insert(header::TRACEPARENT, traceparent);
        }
        let answer = self.ask(subject, headers, payload, deadline.instant()).await?;
        match serde_json::from_slice(&answer.payload) {
            Ok(Answer::Ok(reply)) => Ok(reply),
            Ok(Answer::Problem(problem)) => Err(problem.into()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whoever has no deadline of its own waits as long as the function says.
async fn bounded(
    asked: Asked,
    call: impl Future<Output = Result<Reply, Error<Failed>>>,
) -> Result<Reply, CallError> {
    let deadline = stampede_deadline::current().unwrap_or_else(|| Deadline::after(asked.deadline));
    Ok(stampede_deadline::scope(deadline, call).await?)
}

fn outgoing<F: Function>(subject: String, request: &F::Request) -> Result<Outgoing, CallError> {
    let (asked, caller) = (Asked::of::<F>(), stampede_deadline::current());
    Ok(Outgoing { asked, caller, subject, payload: serde_json::to_vec(request)?.into() })
}

fn read<T: DeserializeOwned>(reply: Result<Reply, CallError>) -> Result<T, CallError> {
    Ok(serde_json::from_str(reply?.get())?)
}

/// How a function is named in metrics.
pub(crate) fn template(service: &str, name: &str) -> String {
    format!("{service}.{name}")
}

pub(crate) fn record_error(span: &Span, error: &str) {
    span.record("error.type", error);
    span.record("otel.status_code", "ERROR");
}
