//! The worker: drives every open mail until it was sent or laid aside.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};
use stampede_bus::{BoxError, Bus, CallError};
use stampede_contracts::{Timestamp, command::MailCommand, topology::CMD_NOTIFY};
use stampede_deadline::Deadline;
use stampede_retry::Backoff;
use stampede_telemetry::{meter, trace};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    clients::{self, MailError, Mailer},
    config::Config,
    domain::letter,
    store::{Due, End, Store},
};

/// The longest nap without looking whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two attempts.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// Mails leased at once for every one that is under way.
const LEASED_PER_WORKER: u32 = 4;

/// Drives mails. Clones are the same worker.
#[derive(Debug, Clone)]
pub struct Worker {
    store: Store,
    bus: Bus,
    mailer: Mailer,
    config: Config,
    backoff: Backoff,
    metrics: Metrics,
}

#[derive(Debug, Clone)]
struct Metrics {
    mails: Counter<u64>,
    age: Histogram<f64>,
}

impl Worker {
    /// A worker over its database, the bus and the mail server.
    ///
    /// # Errors
    /// When the back-off is not valid.
    pub fn try_new(store: Store, bus: Bus, mailer: Mailer, config: Config) -> Result<Self, BoxError> {
        let metrics = Metrics {
            mails: meter()
                .u64_counter("stampede.mails")
                .with_description("mails by outcome of an attempt")
                .build(),
            age: meter()
                .f64_histogram("stampede.mail.age")
                .with_unit("s")
                .with_description("from the command to the mail server's acceptance")
                .build(),
        };
        let backoff = Backoff::try_new(PAUSE_MIN, PAUSE_MAX)?;
        Ok(Self { store, bus, mailer, config, backoff, metrics })
    }

    /// Works until `shutdown`; `wake` says that something new is there.
    ///
    /// # Errors
    /// When the database does not answer; whoever supervises starts it again.
    pub async fn run(self, wake: Arc<Notify>, shutdown: CancellationToken) -> Result<(), BoxError> {
        self.store.release_all().await?;
        while !shutdown.is_cancelled() {
            // Longer than all leased mails together may take one after the other.
            let lease = self.config.timeout * (LEASED_PER_WORKER + 1) * 2;
            let due = self.store.lease(self.config.concurrency * LEASED_PER_WORKER, lease).await?;
            if due.is_empty() {
                self.nap(&wake, &shutdown).await?;
                continue;
            }
            let under_way = self.config.concurrency as usize;
            let driven = stream::iter(due).map(|due| self.drive(due)).buffer_unordered(under_way);
            driven.fold(Ok(()), |all, one| async { all.and(one) }).await?;
        }
        Ok(())
    }

    async fn nap(&self, wake: &Notify, shutdown: &CancellationToken) -> Result<(), BoxError> {
        let until_due = match self.store.next_due().await? {
            Some(at) => Timestamp::from(at).since(Timestamp::now()),
            None => LOOK_EVERY,
        };
        tokio::select! {
            () = wake.notified() => {}
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(until_due.clamp(Duration::from_millis(10), LOOK_EVERY)) => {}
        }
        Ok(())
    }

    async fn drive(&self, due: Due) -> Result<(), BoxError> {
        let span = tracing::info_span!("mail", otel.kind = "internal", order = %due.order_id, attempt = due.attempts);
        if let Some(parent) = &due.message.traceparent {
            if due.attempts == 1 { trace::set_parent(&span, parent) } else { trace::add_link(&span, parent) }
        }
        self.attempt(due).instrument(span).await
    }

    async fn attempt(&self, due: Due) -> Result<(), BoxError> {
        let outcome = match self.send(&due).await {
            Ok(()) => {
                self.store.end(&due, End::Sent, None).await?;
                self.metrics.age.record(Timestamp::now().since(due.message.ce_time).as_secs_f64(), &[]);
                "sent"
            }
            Err(MailError::Withdrawn(reason)) => {
                tracing::info!(order = %due.order_id, reason, "a mail is withdrawn");
                self.store.end(&due, End::Withdrawn, Some(reason)).await?;
                "withdrawn"
            }
            // An outage is no rejection: however long it lasts, no mail becomes a dead letter for it.
            Err(MailError::Unreachable(error)) => {
                let pause = pause_in_outage(&due);
                tracing::warn!(order = %due.order_id, error, ?pause, "the mail waits for whoever is away");
                self.store.wait(due.step_id, pause, &error).await?;
                "waiting"
            }
            Err(MailError::Transient(error)) if due.attempts < self.config.attempts_max => {
                let pause =
                    self.backoff.delay(u32::try_from(due.attempts).unwrap_or(u32::MAX), &mut rand::rng());
                tracing::warn!(order = %due.order_id, error, ?pause, "the mail is tried again");
                self.store.postpone(due.step_id, pause, &error).await?;
                "postponed"
            }
            Err(MailError::Permanent(error) | MailError::Transient(error)) => {
                // The dead letter first: if the process dies in between, it is laid aside once more, not lost.
                self.bus
                    .dead_letter(
                        CMD_NOTIFY,
                        "notify",
                        &due.message,
                        due.attempts.unsigned_abs().into(),
                        &error,
                    )
                    .await?;
                self.store.end(&due, End::Dead, Some(&error)).await?;
                "dead"
            }
        };
        self.metrics.mails.add(1, &[KeyValue::new("outcome", outcome)]);
        Ok(())
    }

    async fn send(&self, due: &Due) -> Result<(), MailError> {
        let command: MailCommand =
            due.message.decode().map_err(|error| MailError::Permanent(error.to_string()))?;
        let deadline = Deadline::after(self.config.timeout);
        let buyer = stampede_deadline::scope(deadline, clients::buyer(&self.bus, due.order_id)).await;
        let buyer = buyer.map_err(|error| match error {
            CallError::Refused(refusal) => MailError::Permanent(format!("orders said {refusal}")),
            other => MailError::Unreachable(other.to_string()),
        })?;
        let letter = letter(command.kind, due.order_id, &buyer);
        let letter = letter.ok_or(MailError::Withdrawn("its tickets were revoked"))?;
        self.mailer.send(due.step_id, &buyer, letter).await
    }
}

/// Grows with the time that the mail has waited already.
fn pause_in_outage(due: &Due) -> Duration {
    let waited = Timestamp::now().since(due.message.ce_time);
    waited.mul_f64(rand::random_range(0.1..0.3)).clamp(PAUSE_MIN, PAUSE_MAX)
}
