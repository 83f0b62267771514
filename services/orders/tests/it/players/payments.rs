//! The money.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stampede_bus::{Bus, Consumer, ConsumerSettings, Delivery, Message, Verdict};
use stampede_contracts::command::{PaymentAction, PaymentCommand};
use stampede_contracts::event::{PaymentOutcome, PaymentResult};
use stampede_contracts::orders::{Card, OfOrder};
use stampede_contracts::{OrderId, StepId};
use tokio_util::sync::CancellationToken;

use super::{Manner, lock};

/// What the provider's ledger says about an order, in minor units.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    pub authorised: i64,
    pub voided: i64,
    pub captured: i64,
    pub refunded: i64,
}

/// The money.
pub struct Payments {
    bus: Bus,
    manners: Mutex<HashMap<PaymentAction, Manner>>,
    /// Commands as they came, with their message ids.
    received: Mutex<Vec<(PaymentCommand, String)>>,
    outcomes: Mutex<BTreeMap<StepId, (PaymentCommand, PaymentOutcome)>>,
    /// Authorisations that are refused when they come.
    tombstones: Mutex<HashSet<StepId>>,
    cards: Mutex<Vec<Option<String>>>,
    traceparents: Mutex<Vec<Option<String>>>,
    /// Makes every sending a new one for JetStream.
    sent: AtomicU32,
}

impl Payments {
    pub fn new(bus: Bus) -> Self {
        Self {
            bus,
            manners: Mutex::default(),
            received: Mutex::default(),
            outcomes: Mutex::default(),
            tombstones: Mutex::default(),
            cards: Mutex::default(),
            traceparents: Mutex::default(),
            sent: AtomicU32::new(0),
        }
    }

    pub fn set(&self, action: PaymentAction, manner: Manner) {
        lock(&self.manners).insert(action, manner);
    }

    /// Commands of this kind that came, repeats included.
    pub fn received(&self, action: PaymentAction) -> usize {
        lock(&self.received).iter().filter(|(command, _)| command.action == action).count()
    }

    /// The message ids under which commands of this kind came.
    pub fn message_ids(&self, action: PaymentAction) -> Vec<String> {
        let received = lock(&self.received);
        received.iter().filter(|(command, _)| command.action == action).map(|(_, id)| id.clone()).collect()
    }

    pub fn steps(&self, action: PaymentAction) -> Vec<StepId> {
        let received = lock(&self.received);
        received
            .iter()
            .filter(|(command, _)| command.action == action)
            .map(|(command, _)| command.step_id)
            .collect()
    }

    /// The card tokens that orders told.
    pub fn cards(&self) -> Vec<Option<String>> {
        lock(&self.cards).clone()
    }

    pub fn balance(&self, order: OrderId) -> Balance {
        let mut balance = Balance::default();
        for (command, outcome) in lock(&self.outcomes).values() {
            if command.order_id != order || !matches!(outcome, PaymentOutcome::Succeeded { .. }) {
                continue;
            }
            let amount = command.amount.amount();
            match command.action {
                PaymentAction::Authorise => balance.authorised += amount,
                PaymentAction::Capture => balance.captured += amount,
                PaymentAction::Void => balance.voided += amount,
                PaymentAction::Refund => balance.refunded += amount,
            }
        }
        balance
    }

    /// Works until the test ends.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let settings = ConsumerSettings { wait: Duration::from_secs(1), ..ConsumerSettings::default() };
        let consumer = Consumer::new(self.bus.clone(), "CMD_PAYMENTS", "payments", settings);
        let handler = move |batch: Vec<Delivery>| {
            let this = Arc::clone(&self);
            async move {
                for delivery in &batch {
                    lock(&this.traceparents).push(delivery.traceparent.clone());
                    this.take(delivery.decode()?, delivery.msg_id.clone()).await;
                }
                Ok(vec![Verdict::Done; batch.len()])
            }
        };
        consumer.run(shutdown, handler).await.unwrap();
    }

    async fn take(&self, command: PaymentCommand, message_id: String) {
        lock(&self.received).push((command.clone(), message_id));
        let manner = lock(&self.manners).get(&command.action).copied().unwrap_or_default();
        if manner == Manner::Silent {
            return;
        }
        if command.action == PaymentAction::Authorise && !lock(&self.outcomes).contains_key(&command.step_id)
        {
            let of = OfOrder { order_id: command.order_id };
            let card = self.bus.call_repeatedly::<Card>("rpc.orders.card".into(), &of).await.unwrap();
            lock(&self.cards).push(card.card_token);
        }
        let outcome = self.carry_out(&command, manner);
        if manner != Manner::Mute {
            self.publish(&command, outcome).await;
        }
    }

    fn carry_out(&self, command: &PaymentCommand, manner: Manner) -> PaymentOutcome {
        let mut outcomes = lock(&self.outcomes);
        if let Some((_, outcome)) = outcomes.get(&command.step_id) {
            return outcome.clone();
        }
        if command.action == PaymentAction::Void {
            lock(&self.tombstones).insert(command.authorisation.expect("a void is about an authorisation"));
        }
        let is_dead = lock(&self.tombstones).contains(&command.step_id);
        let outcome = match manner {
            Manner::Declines => PaymentOutcome::Declined { reason: "insufficient_funds".into() },
            Manner::Refuses => PaymentOutcome::Refused { reason: "internal detail".into() },
            _ if is_dead => PaymentOutcome::Refused { reason: "voided before".into() },
            _ => PaymentOutcome::Succeeded { reference: "ref_1".into() },
        };
        outcomes.insert(command.step_id, (command.clone(), outcome.clone()));
        outcome
    }

    /// Publishes a result, as what it was when it is sent again.
    pub async fn publish(&self, command: &PaymentCommand, outcome: PaymentOutcome) {
        self.publish_as(format!("{}.result", command.step_id), command, outcome).await;
    }

    /// Publishes a result under another event id.
    pub async fn publish_as(&self, event_id: String, command: &PaymentCommand, outcome: PaymentOutcome) {
        let result = PaymentResult {
            step_id: command.step_id,
            order_id: command.order_id,
            action: command.action,
            outcome,
        };
        let message = Message::new(&result, event_id).unwrap().caused_by(command.step_id.to_string());
        let message = message.attempt(self.sent.fetch_add(1, Ordering::Relaxed));
        self.bus.publish_all(&[message]).await.pop().unwrap().unwrap();
    }

    /// The message of a result.
    pub fn message(&self, command: &PaymentCommand) -> Message {
        let result = PaymentResult {
            step_id: command.step_id,
            order_id: command.order_id,
            action: command.action,
            outcome: PaymentOutcome::Succeeded { reference: "x".into() },
        };
        Message::new(&result, uuid::Uuid::new_v4().to_string()).unwrap()
    }

    /// The command of this kind for an order.
    pub fn command_of(&self, order: OrderId, action: PaymentAction) -> PaymentCommand {
        let received = lock(&self.received);
        let wanted = |command: &&PaymentCommand| command.order_id == order && command.action == action;
        received.iter().map(|(command, _)| command).find(wanted).unwrap().clone()
    }

    /// The trace contexts of all commands.
    pub fn traceparents(&self) -> Vec<Option<String>> {
        lock(&self.traceparents).clone()
    }

    /// The command of a step of this kind, as it came.
    pub fn command(&self, action: PaymentAction) -> PaymentCommand {
        let received = lock(&self.received);
        received.iter().find(|(command, _)| command.action == action).unwrap().0.clone()
    }
}
