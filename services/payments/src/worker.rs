//! Drives one operation: asks the provider until its answer is definite, and writes that down.
//!
//! A time-out is no failure, and a look-up that finds nothing proves nothing: what was sent may still land. So an
//! operation whose outcome is unknown is looked up and asked for again under the same key, or, when it is no longer
//! wanted, cancelled under its key, which the provider does in one step.

use std::time::Duration;

use stampede_contracts::StepId;
use stampede_contracts::command::PaymentAction;
use stampede_contracts::event::PaymentOutcome;
use stampede_deadline::Deadline;
use stampede_retry::Backoff;
use stampede_telemetry::trace;
use tracing::{Instrument, field};

use crate::clients::{Answer, Cards, LookUp, Provider, Unclear};
use crate::domain::{Authorisation, Captured, Fate, NOTHING_TO_VOID, Operation};
use crate::metrics::Metrics;
use crate::store::Store;

/// Reason of an authorisation that a void gave up before it came, or before anything came of it.
const VOIDED: &str = "voided";
/// Reason of an authorisation whose card token `orders` has forgotten.
const CARD_GONE: &str = "card_token_gone";
/// Reason of whatever the provider rejected without saying what that means.
const REJECTED: &str = "rejected_by_provider";

/// Drives operations. A handle: clones share everything.
#[derive(Debug, Clone)]
pub struct Worker {
    store: Store,
    provider: Provider,
    cards: Cards,
    backoff: Backoff,
    attempt_max: Duration,
    metrics: Metrics,
}

impl Worker {
    /// `backoff` says when an operation whose outcome is unknown is tried again. An attempt lasts at most half of a
    /// lease.
    pub fn new(store: Store, provider: Provider, cards: Cards, backoff: Backoff, metrics: Metrics) -> Self {
        let attempt_max = store.lease_length() / 2;
        Self { store, provider, cards, backoff, attempt_max, metrics }
    }

    /// How long one attempt may take.
    pub const fn attempt_max(&self) -> Duration {
        self.attempt_max
    }

    /// One attempt: afterwards the outcome is written, or the row is due again later.
    pub async fn drive(&self, operation: Operation) {
        let span = tracing::info_span!(
            "operation",
            otel.name = operation.action.as_str(),
            otel.status_code = field::Empty,
            order = %operation.order,
            step = %operation.step,
            attempt = operation.attempts,
        );
        if let Some(traceparent) = &operation.traceparent {
            trace::set_parent(&span, traceparent);
        }
        self.attempt(operation).instrument(span).await;
    }

    /// Ends the leases of operations that were not begun.
    pub async fn give_back(&self, steps: &[StepId]) {
        if steps.is_empty() {
            return;
        }
        if let Err(error) = self.store.release(steps).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "leases end by themselves");
        }
    }

    async fn attempt(&self, operation: Operation) {
        let deadline = Deadline::after(self.attempt_max);
        // The deadline bounds asking. Writing the answer down is bounded by the database's own limits: an answer that
        // is there is not thrown away.
        let asked = stampede_deadline::within(deadline, self.ask(&operation)).await;
        let settled = match asked {
            Ok(Ok(outcome)) => self.settle(&operation, &outcome).await.map_err(Unclear::from),
            Ok(Err(unclear)) => Err(unclear),
            Err(_elapsed) => Err(Unclear::TimedOut),
        };
        if let Err(unclear) = settled {
            self.try_later(&operation, &unclear).await;
        }
    }

    async fn try_later(&self, operation: &Operation, unclear: &Unclear) {
        let delay = self.backoff.delay(operation.attempts.saturating_sub(1), &mut rand::rng());
        self.metrics.unclear(operation.action, unclear);
        log(unclear, delay);
        if let Err(error) = self.store.postpone(operation.step, delay, &unclear.to_string()).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the lease ends by itself");
        }
    }

    async fn settle(&self, operation: &Operation, outcome: &PaymentOutcome) -> Result<(), sqlx::Error> {
        if self.store.settle(operation, outcome).await? {
            tracing::info!(step = %operation.step, action = operation.action.as_str(), ?outcome, "settled");
            self.metrics.settled(operation, outcome);
        }
        Ok(())
    }

    /// The outcome, if it can be known now.
    async fn ask(&self, operation: &Operation) -> Result<PaymentOutcome, Unclear> {
        if operation.is_repeat()
            && let LookUp::Found(fate) = self.provider.look_up(operation.step).await?
        {
            return Ok(fate.outcome(REJECTED));
        }
        match (operation.action, operation.authorisation) {
            (PaymentAction::Capture, Some(authorisation)) => self.capture(operation, authorisation).await,
            (PaymentAction::Void, Some(authorisation)) => self.void(operation, authorisation).await,
            (PaymentAction::Refund, Some(authorisation)) => self.refund(operation, authorisation).await,
            // The schema lets only authorise be about nothing else.
            (PaymentAction::Authorise, _) | (_, None) => self.authorise(operation).await,
        }
    }

    async fn authorise(&self, operation: &Operation) -> Result<PaymentOutcome, Unclear> {
        if operation.is_given_up {
            return Ok(self.provider.cancel(operation.step).await?.outcome(VOIDED));
        }
        match self.cards.token(operation.order).await? {
            Some(card) => {
                let Operation { step, order, amount, .. } = *operation;
                self.definite(step, self.provider.authorise(step, &card, amount, order).await?).await
            }
            // An earlier attempt may have reached the provider, so only the provider can say that it did not.
            None => Ok(self.provider.cancel(operation.step).await?.outcome(CARD_GONE)),
        }
    }

    async fn capture(&self, operation: &Operation, of: StepId) -> Result<PaymentOutcome, Unclear> {
        match self.store.authorisation(of).await? {
            Authorisation::Authorised { reference } => {
                let answer = self.provider.capture(operation.step, &reference).await?;
                self.definite(operation.step, answer).await
            }
            Authorisation::Open => Err(Unclear::Waiting("the authorisation")),
            Authorisation::Failed => Ok(refused("not_authorised")),
            Authorisation::Absent => Ok(refused("unknown_authorisation")),
        }
    }

    async fn void(&self, operation: &Operation, of: StepId) -> Result<PaymentOutcome, Unclear> {
        let reference = match self.store.authorisation(of).await? {
            Authorisation::Authorised { reference } => Some(reference),
            Authorisation::Failed => None,
            Authorisation::Open | Authorisation::Absent => self.end_authorisation(operation, of).await?,
        };
        match reference {
            Some(reference) => {
                let answer = self.provider.void(operation.step, &reference).await?;
                self.definite(operation.step, answer).await
            }
            None => Ok(PaymentOutcome::Succeeded { reference: NOTHING_TO_VOID.to_owned() }),
        }
    }

    /// Settles an authorisation that nobody wants any more: what the provider had reserved, or nothing for good.
    async fn end_authorisation(&self, void: &Operation, of: StepId) -> Result<Option<String>, Unclear> {
        // First our own tombstone, so that a command that comes late, or a worker that goes on, does not ask again.
        self.store.give_up(of, void).await?;
        let fate = self.provider.cancel(of).await?;
        let reference = match &fate {
            Fate::Done { reference } => Some(reference.clone()),
            Fate::Declined { .. } | Fate::Refused { .. } | Fate::Cancelled => None,
        };
        let authorisation = Operation {
            step: of,
            action: PaymentAction::Authorise,
            authorisation: None,
            is_given_up: true,
            ..void.clone()
        };
        self.settle(&authorisation, &fate.outcome(VOIDED)).await?;
        Ok(reference)
    }

    async fn refund(&self, operation: &Operation, of: StepId) -> Result<PaymentOutcome, Unclear> {
        match self.store.captured(of).await? {
            Captured::Yes { reference } => {
                let answer = self.provider.refund(operation.step, &reference, operation.amount).await?;
                self.definite(operation.step, answer).await
            }
            Captured::Open => Err(Unclear::Waiting("the capture")),
            Captured::No => Ok(refused("not_captured")),
        }
    }

    /// An answer as an outcome. A rejection, such as 404 or 422, says nothing about what an earlier attempt did under
    /// the key; cancelling the key does.
    async fn definite(&self, key: StepId, answer: Answer) -> Result<PaymentOutcome, Unclear> {
        match answer {
            Answer::Settled(fate) => Ok(fate.outcome(REJECTED)),
            Answer::Rejected(status) => {
                tracing::error!(%status, %key, "the provider rejects a request; its key is cancelled");
                Ok(self.provider.cancel(key).await?.outcome(REJECTED))
            }
        }
    }
}

fn refused(reason: &str) -> PaymentOutcome {
    PaymentOutcome::Refused { reason: reason.to_owned() }
}

fn log(unclear: &Unclear, delay: Duration) {
    let error = unclear as &dyn std::error::Error;
    if matches!(unclear, Unclear::Credentials(_)) {
        tracing::error!(error, ?delay, "an operator has to give us a valid API key");
    } else {
        tracing::info!(error, ?delay, "the outcome is not known yet");
    }
}
