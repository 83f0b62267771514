//! Answering requests.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use stampede_contracts::{Code, Function, Problem, header};
use tokio::task::unconstrained;
use tokio_util::sync::CancellationToken;

use crate::call::template;
use crate::desk::Desk;
use crate::headers::get;
use crate::metrics::Refusal;
use crate::request::{Context, Offer, Outcome, Request, deadline};
use crate::{BoxError, Bus, stopping};

/// Where to listen, and how much to take on.
#[derive(Debug, Clone)]
pub struct ResponderSettings {
    /// The subject, for example `rpc.inventory.*.*`. Its last token is the name of the function.
    pub subject: String,
    /// The queue group: of all processes with the same one, each request goes to one.
    pub queue: String,
    /// Requests that may wait for a worker, the most urgent before the others. When there are as many, the least urgent
    /// is answered `busy`.
    pub capacity: usize,
    /// Requests that are handled at the same time, at least one.
    pub workers: usize,
}

/// Answers requests on one subject with the functions it was given. Clones share the functions, each `run` listens by
/// itself.
#[derive(Clone)]
pub struct Responder {
    pub(crate) bus: Bus,
    pub(crate) settings: ResponderSettings,
    offers: HashMap<&'static str, Offer>,
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
            template: template(F::SERVICE, F::NAME).into(),
            class: F::CLASS,
            deadline: F::DEADLINE,
            handle: Arc::new(handle),
        };
        self.offers.insert(F::NAME, offer);
        self
    }

    /// Answers until `shutdown`; then takes no more, and finishes what it accepted, within [`STOP_WITHIN`](crate::STOP_WITHIN).
    ///
    /// # Errors
    /// When there is no worker, the subject cannot be subscribed, or the connection was closed for good.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        let ResponderSettings { subject, queue, .. } = self.settings.clone();
        let mut desk = Desk::try_new(self)?;
        let mut subscriber = desk.responder.bus.client().queue_subscribe(subject, queue).await?;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = desk.serve(&mut subscriber) => return Err("the connection to NATS was closed".into()),
        }
        // The server sends nothing after this; what it sent before still arrives, then the subscription ends.
        let _ = subscriber.drain().await;
        let finish = async {
            desk.serve(&mut subscriber).await;
            while desk.turn().await.is_some() {}
        };
        stopping(&shutdown, finish).await;
        Ok(())
    }
}

impl Responder {
    /// Finds function and deadline. `None`: it was refused, or dropped because nobody waits for an answer.
    pub(crate) fn read(&self, message: async_nats::Message) -> Option<Request> {
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
    pub(crate) fn refuse(&self, reply: &async_nats::Subject, problem: Problem) {
        let answer = Outcome::of::<()>(Err(problem)).answer;
        let sending = self.bus.client().publish(reply.clone(), answer);
        // Unconstrained, because a task that has used up its share of time would find everything not ready.
        if unconstrained(sending).now_or_never().is_none() {
            tracing::debug!("a refusal could not be sent");
        }
    }
}
