//! Answering requests.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock, SystemTime};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use serde::Serialize;
use stampede_contracts::function::Answer;
use stampede_contracts::{Class, Code, Function, Problem, header};
use stampede_deadline::Deadline;
use stampede_telemetry::trace;
use tokio::task::{JoinSet, unconstrained};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, field};

use crate::call::{record_error, template};
use crate::connect::until;
use crate::headers::get;
use crate::metrics::Refusal;
use crate::{BoxError, Bus};

/// After the shutdown began, what was accepted gets this long.
const FINISH_WITHIN: Duration = Duration::from_secs(8);

/// Where to listen, and how much to take on.
#[derive(Debug, Clone)]
pub struct ResponderSettings {
    /// The subject, for example `rpc.inventory.*.*`. Its last token is the name of the function.
    pub subject: String,
    /// The queue group: of all processes with the same one, each request goes to one.
    pub queue: String,
    /// Requests that may wait for a worker. The next one is answered `busy` at once.
    pub capacity: usize,
    /// Requests that are handled at the same time.
    pub workers: usize,
}

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

/// Answers requests on one subject with the functions it was given. Clones share the functions, each `run` listens by
/// itself.
#[derive(Clone)]
pub struct Responder {
    bus: Bus,
    settings: ResponderSettings,
    offers: HashMap<&'static str, Offer>,
}

/// A function with its handler; bytes in, bytes out.
#[derive(Clone)]
struct Offer {
    service: &'static str,
    name: &'static str,
    template: Arc<str>,
    class: Class,
    deadline: Duration,
    handle: Arc<dyn Fn(Bytes, Context) -> BoxFuture<'static, Outcome> + Send + Sync>,
}

/// An encoded answer, and the code of the problem if it is one.
struct Outcome {
    answer: Bytes,
    problem: Option<Code>,
}

/// A request on its way through this process.
struct Request {
    offer: Offer,
    context: Context,
    message: async_nats::Message,
    reply: async_nats::Subject,
}

impl Responder {
    /// A responder that knows no function yet.
    pub fn new(bus: Bus, settings: ResponderSettings) -> Self {
        Self { bus, settings, offers: HashMap::new() }
    }

    /// Offers a function. The handler is dropped when the deadline passes: effects belong into a transaction, or into
    /// a task that somebody owns.
    #[must_use]
    pub fn on<F, H, Fut>(mut self, handler: H) -> Self
    where
        F: Function,
        H: Fn(F::Request, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<F::Reply, Problem>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let handle = move |payload: Bytes, context: Context| -> BoxFuture<'static, Outcome> {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                match serde_json::from_slice::<F::Request>(&payload) {
                    Ok(request) => Outcome::of(handler(request, context).await),
                    Err(error) => {
                        tracing::warn!(function = F::NAME, %error, "a request cannot be read");
                        Outcome::of::<()>(Err(Problem::new(Code::MalformedRequest)))
                    }
                }
            })
        };
        let offer = Offer {
            service: F::SERVICE,
            name: F::NAME,
            template: template::<F>().into(),
            class: F::CLASS,
            deadline: F::DEADLINE,
            handle: Arc::new(handle),
        };
        self.offers.insert(F::NAME, offer);
        self
    }

    /// Answers until `shutdown`; then takes no more, and finishes what it accepted, eight seconds at most.
    ///
    /// # Errors
    /// When the subject cannot be subscribed, or the connection was closed for good.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        let ResponderSettings { subject, queue, capacity, workers } = self.settings.clone();
        let mut subscriber = self.bus.client().queue_subscribe(subject, queue).await?;
        let mut desk =
            Desk { responder: self, capacity, workers, waiting: VecDeque::new(), running: JoinSet::new() };
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(_) = desk.running.join_next() => desk.next(),
                message = subscriber.next() => match message {
                    Some(message) => desk.admit(message),
                    None => return Err("the connection to NATS was closed".into()),
                },
            }
        }
        // The server sends nothing after this; what it sent before still arrives, then the subscription ends.
        let _ = subscriber.drain().await;
        let finish = async {
            while let Some(message) = subscriber.next().await {
                desk.admit(message);
            }
            while desk.running.join_next().await.is_some() {
                desk.next();
            }
        };
        if timeout_at(Instant::now() + FINISH_WITHIN, finish).await.is_err() {
            tracing::warn!("requests were given up at shutdown");
        }
        Ok(())
    }
}

/// Decides what happens to each request, without ever waiting: a subscription that is not read loses messages.
struct Desk {
    responder: Responder,
    capacity: usize,
    workers: usize,
    waiting: VecDeque<Request>,
    running: JoinSet<()>,
}

impl Desk {
    fn admit(&mut self, message: async_nats::Message) {
        let Some(request) = self.responder.read(message) else { return };
        if self.running.len() < self.workers {
            self.start(request);
        } else if self.waiting.len() < self.capacity {
            self.waiting.push_back(request);
        } else {
            self.responder.bus.metrics().refuse(request.offer.name, Refusal::Busy);
            self.responder.refuse(&request.reply, Problem::new(Code::Busy));
        }
    }

    /// A worker is free.
    fn next(&mut self) {
        while self.running.len() < self.workers
            && let Some(request) = self.waiting.pop_front()
        {
            if request.context.deadline.is_expired() {
                self.responder.bus.metrics().refuse(request.offer.name, Refusal::Expired);
            } else {
                self.start(request);
            }
        }
    }

    fn start(&mut self, request: Request) {
        self.running.spawn(request.run(self.responder.bus.clone()));
    }
}

impl Responder {
    /// Finds function and deadline. `None`: it was refused, or dropped because nobody waits for an answer.
    fn read(&self, message: async_nats::Message) -> Option<Request> {
        let reply = message.reply.clone()?;
        let mut tokens = message.subject.rsplit('.');
        let Some(offer) = tokens.next().and_then(|name| self.offers.get(name)).cloned() else {
            self.bus.metrics().refuse("unknown", Refusal::UnknownFunction);
            self.refuse(&reply, Problem::new(Code::NotFound).detail("no such function"));
            return None;
        };
        let shard = tokens.next().filter(|token| *token != offer.service).map(str::to_owned);
        let headers = message.headers.as_ref();
        let deadline = match deadline(headers, offer.deadline) {
            Ok(Some(deadline)) => deadline,
            Ok(None) => {
                self.bus.metrics().refuse(offer.name, Refusal::Expired);
                return None;
            }
            Err(_) => {
                self.refuse(&reply, Problem::new(Code::DeadlineMalformed));
                return None;
            }
        };
        // A request can lower its priority, never raise it.
        let asked = get(headers, header::CLASS).and_then(|text| text.parse().ok());
        let class = asked.unwrap_or(offer.class).max(offer.class);
        let context = Context { subject: message.subject.to_string(), shard, class, deadline };
        Some(Request { offer, context, message, reply })
    }

    /// Answers without waiting. If the connection takes nothing now, neither would it take the news that we are busy.
    fn refuse(&self, reply: &async_nats::Subject, problem: Problem) {
        let answer = Outcome::of::<()>(Err(problem)).answer;
        let sending = self.bus.client().publish(reply.clone(), answer);
        // Unconstrained, because a task that has used up its share of time would find everything not ready.
        if unconstrained(sending).now_or_never().is_none() {
            tracing::debug!("a refusal could not be sent");
        }
    }
}

impl Request {
    async fn run(self, bus: Bus) {
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
    fn of<T: Serialize>(result: Result<T, Problem>) -> Self {
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
fn deadline(
    headers: Option<&HeaderMap>,
    default: Duration,
) -> Result<Option<Deadline>, stampede_deadline::Malformed> {
    let left = get(headers, header::DEADLINE_MS).map(stampede_deadline::parse_ms).transpose()?;
    let past = get(headers, header::DEADLINE_AT)
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
        headers.insert(header::DEADLINE_MS, "1000");
        assert!(matches!(deadline(Some(&headers), Duration::ZERO), Ok(Some(_))));

        headers.insert(header::DEADLINE_AT, "1");
        assert!(matches!(deadline(Some(&headers), Duration::ZERO), Ok(None)));

        headers.insert(header::DEADLINE_AT, "soon");
        assert!(deadline(Some(&headers), Duration::ZERO).is_err());
        assert!(matches!(deadline(None, Duration::from_secs(1)), Ok(Some(_))));
    }
}
