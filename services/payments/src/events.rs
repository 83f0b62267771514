//! Commands from the work queue, and results to whoever sent them.

use serde_json::Error as Unwritable;
use stampede_bus::{BoxError, Bus, Consumer, ConsumerSettings, Delivery, Failure, Message, Verdict};
use stampede_contracts::command::PaymentCommand;
use stampede_contracts::event::PaymentResult;
use stampede_contracts::topology::CMD_PAYMENTS;
use stampede_service::failure;
use tokio_util::sync::CancellationToken;

use crate::config::SERVICE;
use crate::domain::check;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::store::{Store, Wanted};

/// Takes commands from the work queue.
#[derive(Debug, Clone)]
pub struct Taker {
    store: Store,
    queue: Queue,
    metrics: Metrics,
}

impl Taker {
    /// Takes into `store`, and hands on to `queue` what it has room for.
    pub const fn new(store: Store, queue: Queue, metrics: Metrics) -> Self {
        Self { store, queue, metrics }
    }

    /// Takes until `shutdown`.
    ///
    /// # Errors
    /// None while it runs.
    pub async fn run(self, bus: Bus, shutdown: CancellationToken) -> Result<(), BoxError> {
        Consumer::new(bus, CMD_PAYMENTS, SERVICE, ConsumerSettings::default())
            .run(shutdown, move |batch| {
                let taker = self.clone();
                async move { taker.take(&batch).await }
            })
            .await
    }

    /// Takes a batch: after this the queue may forget it, except for what can never be handled.
    async fn take(&self, batch: &[Delivery]) -> Result<Vec<Verdict>, Failure> {
        let read: Vec<_> = batch.iter().map(read).collect();
        let wanted: Vec<Wanted> = read.iter().filter_map(|read| read.as_ref().ok().cloned()).collect();
        let places = self.queue.places(wanted.len());
        let taken = self.store.take(wanted, places.count()).await.map_err(failure)?;
        self.metrics.taken(taken.new, taken.republished);
        places.fill(taken.leased);
        let verdict = |read| match read {
            Ok(Wanted { command, .. }) if taken.contradictions.contains(&command.step_id) => {
                Verdict::Dead(format!("{} came before with another content", command.step_id))
            }
            Ok(_) => Verdict::Done,
            Err(reason) => Verdict::Dead(reason),
        };
        Ok(read.into_iter().map(verdict).collect())
    }
}

fn read(delivery: &Delivery) -> Result<Wanted, String> {
    let command: PaymentCommand = delivery.decode().map_err(|error| error.to_string())?;
    check(&command).map_err(|error| error.to_string())?;
    Ok(Wanted { command, traceparent: delivery.traceparent.clone() })
}

/// The event that tells of an outcome. Its id follows from the step's, so that consumers know it when it comes again.
///
/// # Errors
/// When it has no form in JSON.
pub(crate) fn result(result: &PaymentResult, traceparent: Option<String>) -> Result<Message, Unwritable> {
    let message = Message::new(result, format!("{}.result", result.step_id))?;
    Ok(message.caused_by(result.step_id.to_string()).traced_by(traceparent))
}

/// The same event once more, with its aggregate, for a command that came again: whoever sent it has not seen it.
///
/// # Errors
/// When it has no form in JSON.
pub(crate) fn again(known: &PaymentResult) -> Result<(String, Message), Unwritable> {
    let message = result(known, stampede_telemetry::trace::traceparent())?;
    // Any number that was not used within JetStream's window of duplicates will do.
    Ok((known.order_id.to_string(), message.attempt(rand::random())))
}
