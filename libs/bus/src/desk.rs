//! Who is served when: the most urgent first, and nobody who waited too long.

use std::time::Duration;

use async_nats::Subscriber;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use stampede_deadline::Clock;
use stampede_load_shed::{InvalidSettings, Limits, Permit, Settings, Shed, Waiting};
use stampede_resilience::{Gate, busy};
use tokio::task::JoinSet;

use crate::Responder;
use crate::metrics::Refusal;
use crate::request::Request;

/// How long a request waits in a queue that does not get empty. Whoever hears `busy` comes back, after 20 ms at first and
/// half a second at last, perhaps to another replica, within a deadline of two or three seconds: a refusal that took
/// longer than this would cost more tries than the wait is worth. A worker takes some milliseconds, so a queue that
/// moves is not taken for one that stands.
const TARGET: Duration = Duration::from_millis(100);
/// How long a queue may stand before that begins. A burst, the first buyers of a sale or the requests of a replica that
/// has just gone, is served as it came; and who waited as long in vain has the greater part of the deadline left.
const INTERVAL: Duration = Duration::from_secs(1);

type Decision = Result<Permit, Shed>;

/// Decides what happens to each request, without ever waiting: a subscription that is not read loses messages.
///
/// Requests wait here and not in tasks of their own, so that there is a task a worker and never more, even while a
/// flood of refusals is on its way.
pub(crate) struct Desk {
    pub(crate) responder: Responder,
    gate: Gate,
    waiting: FuturesUnordered<BoxFuture<'static, (Request, Decision)>>,
    running: JoinSet<Permit>,
}

impl Desk {
    /// As many places as the responder has workers, always: what they wait for is a pool of connections, whose size is
    /// known, and the bound on tasks must not move with what was measured.
    pub(crate) fn try_new(responder: Responder) -> Result<Self, InvalidSettings> {
        let workers = u32::try_from(responder.settings.workers).unwrap_or(u32::MAX);
        let limits = Limits { min: workers, initial: workers, max: workers };
        let queue_max = responder.settings.capacity;
        let settings = Settings::try_new(limits, Waiting { target: TARGET, interval: INTERVAL, queue_max })?;
        let gate = Gate::new(responder.settings.subject.as_str(), settings, Clock::system());
        Ok(Self { responder, gate, waiting: FuturesUnordered::new(), running: JoinSet::new() })
    }

    /// Takes in what arrives, until the subscription ends.
    pub(crate) async fn serve(&mut self, subscriber: &mut Subscriber) {
        loop {
            tokio::select! {
                // What is decided already goes before what is new: so nobody who was sent away is still here when the
                // next one comes, and no more wait than may.
                biased;
                Some(()) = self.turn() => {}
                message = subscriber.next() => match message {
                    Some(message) => self.admit(message),
                    None => return,
                },
            }
        }
    }

    /// Waits for one of those who are here to go on, and lets it. `None`: nobody is here.
    pub(crate) async fn turn(&mut self) -> Option<()> {
        tokio::select! {
            biased;
            // Only now is the place given on, so there are never more tasks than workers.
            Some(done) = self.running.join_next() => drop(done),
            Some((request, decision)) = self.waiting.next() => self.obey(request, decision),
            else => return None,
        }
        Some(())
    }

    fn admit(&mut self, message: async_nats::Message) {
        let Some(request) = self.responder.read(message) else { return };
        let mut place = self.gate.acquire(request.context.class);
        match (&mut place).now_or_never() {
            Some(decision) => self.obey(request, decision),
            None => self.waiting.push(async { (request, place.await) }.boxed()),
        }
    }

    fn obey(&mut self, request: Request, decision: Decision) {
        let Responder { bus, .. } = &self.responder;
        match decision {
            // It waited until its caller had gone. Whoever is next gets the place.
            _ if request.context.deadline.is_expired() => {
                bus.metrics().refuse(request.offer.name, Refusal::Expired);
            }
            Ok(permit) => {
                let bus = bus.clone();
                self.running.spawn(async { request.run(bus).map(|()| permit).await });
            }
            Err(shed) => {
                bus.metrics().refuse(request.offer.name, Refusal::Busy);
                self.responder.refuse(&request.reply, busy(&shed));
            }
        }
    }
}
