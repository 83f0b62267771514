//! Inventory, payments and notify, played: they keep the rules of the house and misbehave on demand.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use stampede_bus::{
    Bus, Consumer, ConsumerSettings, Context, Delivery, Message, Responder, ResponderSettings, Verdict,
};
use stampede_contracts::command::{MailCommand, MailKind, PaymentAction, PaymentCommand};
use stampede_contracts::event::{MailResult, PaymentOutcome, PaymentResult};
use stampede_contracts::inventory::{
    Attach, AttachHold, ConfirmHold, DetachHold, FreeHold, HoldState, HoldView, OfOrder, SeatLabel, ShowFacts,
};
use stampede_contracts::orders::{self, Buyer, BuyerOf, Card};
use stampede_contracts::{
    BlockId, Code, HoldId, Money, OrderId, Problem, SeatId, SectionId, SessionId, ShowId, StepId, Timestamp,
};
use tokio_util::sync::CancellationToken;

/// How a player treats what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manner {
    /// As it should.
    #[default]
    Good,
    /// It does nothing and says nothing.
    Silent,
    /// It does it and says nothing.
    Mute,
    /// It declines (payments only).
    Declines,
    /// It refuses for good (payments only).
    Refuses,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// The seats.
#[derive(Debug, Default)]
pub struct Inventory {
    holds: Mutex<HashMap<HoldId, HoldView>>,
    let_go: Mutex<HashSet<(HoldId, OrderId)>>,
    calls: Mutex<Vec<(&'static str, StepId)>>,
    manners: Mutex<HashMap<&'static str, Manner>>,
}

impl Inventory {
    /// Two numbered seats for 90 EUR, held by a session.
    pub fn hold(&self, session: SessionId) -> HoldId {
        self.hold_until(session, Timestamp::now() + Duration::from_secs(86_400))
    }

    /// The same, with the moment until which an order of it can be cancelled.
    pub fn hold_until(&self, session: SessionId, cancel_until: Timestamp) -> HoldId {
        let block = BlockId::from_number(7);
        let hold_id = HoldId::new(block);
        let first = u16::try_from(lock(&self.holds).len() * 2).unwrap();
        let seat = |index: u16| SeatLabel {
            seat_id: Some(SeatId { block, index }),
            section: "Stalls".into(),
            row: Some("A".into()),
            number: Some(u32::from(index) + 1),
        };
        let view = HoldView {
            hold_id,
            session,
            show_id: ShowId::from_uuid(uuid::Uuid::from_u128(7)),
            section_id: SectionId::new(),
            quantity: 2,
            seats: vec![seat(first), seat(first + 1)],
            total: Money::try_new(9_000, "EUR".parse().unwrap()).unwrap(),
            expires_at: Timestamp::now() + Duration::from_secs(300),
            state: HoldState::Held,
            order_id: None,
            show: ShowFacts {
                title: "Club Night".into(),
                venue: "The Hall".into(),
                starts_at: Timestamp::now() + Duration::from_secs(86_400),
                cancel_until,
            },
        };
        lock(&self.holds).insert(hold_id, view);
        hold_id
    }

    /// The hold's seats go to somebody else, as after its time.
    pub fn lose(&self, hold: HoldId) {
        let mut holds = lock(&self.holds);
        let view = holds.get_mut(&hold).unwrap();
        (view.state, view.order_id) = (HoldState::Freed, None);
    }

    pub fn set(&self, function: &'static str, manner: Manner) {
        lock(&self.manners).insert(function, manner);
    }

    pub fn state(&self, hold: HoldId) -> HoldState {
        lock(&self.holds)[&hold].state
    }

    /// How often a function was asked for.
    pub fn asked(&self, function: &str) -> usize {
        lock(&self.calls).iter().filter(|(name, _)| *name == function).count()
    }

    /// With how many different keys.
    pub fn keys(&self, function: &str) -> usize {
        let calls = lock(&self.calls);
        calls.iter().filter(|(name, _)| *name == function).map(|(_, key)| *key).collect::<HashSet<_>>().len()
    }

    async fn answer(
        &self,
        function: &'static str,
        step: StepId,
        act: impl FnOnce() -> Result<HoldView, Problem>,
    ) -> Result<HoldView, Problem> {
        lock(&self.calls).push((function, step));
        let manner = lock(&self.manners).get(function).copied().unwrap_or_default();
        if manner == Manner::Silent {
            return pending().await;
        }
        let answer = act();
        if manner == Manner::Mute {
            return pending().await;
        }
        answer
    }

    fn attach(&self, request: &Attach) -> Result<HoldView, Problem> {
        let mut holds = lock(&self.holds);
        let hold = holds.get_mut(&request.hold_id).filter(|hold| hold.session == request.session);
        let hold = hold.ok_or_else(|| Problem::new(Code::HoldNotFound))?;
        let was_let_go = lock(&self.let_go).contains(&(request.hold_id, request.order_id));
        match hold.state {
            HoldState::Held if !was_let_go => {
                (hold.state, hold.order_id) = (HoldState::Attached, Some(request.order_id));
            }
            HoldState::Attached | HoldState::Sold if hold.order_id == Some(request.order_id) => {}
            _ => return Err(Problem::new(Code::HoldGone)),
        }
        Ok(hold.clone())
    }

    /// From a state to another on behalf of the order it belongs to.
    fn change(
        &self,
        request: &OfOrder,
        change: impl FnOnce(HoldState) -> Option<HoldState>,
    ) -> Result<HoldView, Problem> {
        let mut holds = lock(&self.holds);
        let hold = holds.get_mut(&request.hold_id).ok_or_else(|| Problem::new(Code::HoldNotFound))?;
        let own = hold.order_id == Some(request.order_id);
        hold.state = own.then(|| change(hold.state)).flatten().ok_or_else(|| Problem::new(Code::HoldGone))?;
        Ok(hold.clone())
    }

    fn release(&self, request: &OfOrder, to: HoldState) -> Result<HoldView, Problem> {
        lock(&self.let_go).insert((request.hold_id, request.order_id));
        let released = self.change(request, |state| {
            matches!(state, HoldState::Attached | HoldState::Sold).then_some(to).or(Some(state))
        });
        match released {
            Ok(hold) => Ok(hold),
            Err(_) => Ok(lock(&self.holds)[&request.hold_id].clone()),
        }
    }

    /// Answers until the test ends.
    pub fn responder(self: &Arc<Self>, bus: Bus) -> Responder {
        let settings = ResponderSettings {
            subject: "rpc.inventory.*.*".into(),
            queue: "inventory".into(),
            capacity: 64,
            workers: 64,
        };
        let [attach, confirm, detach, free] = std::array::from_fn(|_| Arc::clone(self));
        Responder::new(bus, settings)
            .on::<AttachHold, _, _>(move |request: Attach, _: Context| {
                let this = Arc::clone(&attach);
                async move { this.answer("attach", request.step, || this.attach(&request)).await }
            })
            .on::<ConfirmHold, _, _>(move |request: OfOrder, _: Context| {
                let this = Arc::clone(&confirm);
                let sell = |state| {
                    matches!(state, HoldState::Attached | HoldState::Sold).then_some(HoldState::Sold)
                };
                async move { this.answer("confirm", request.step, || this.change(&request, sell)).await }
            })
            .on::<DetachHold, _, _>(move |request: OfOrder, _: Context| {
                let this = Arc::clone(&detach);
                async move {
                    this.answer("detach", request.step, || this.release(&request, HoldState::Held)).await
                }
            })
            .on::<FreeHold, _, _>(move |request: OfOrder, _: Context| {
                let this = Arc::clone(&free);
                async move {
                    this.answer("free", request.step, || this.release(&request, HoldState::Freed)).await
                }
            })
    }
}

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
            let of = orders::OfOrder { order_id: command.order_id };
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

/// The mail.
pub struct Notify {
    bus: Bus,
    manner: Mutex<Manner>,
    sent: Mutex<Vec<(MailCommand, BuyerOf)>>,
}

impl Notify {
    pub fn new(bus: Bus) -> Self {
        Self { bus, manner: Mutex::default(), sent: Mutex::default() }
    }

    pub fn set(&self, manner: Manner) {
        *lock(&self.manner) = manner;
    }

    /// Mails about an order.
    pub fn mails(&self, order: OrderId) -> Vec<MailKind> {
        lock(&self.sent)
            .iter()
            .filter(|(mail, _)| mail.order_id == order)
            .map(|(mail, _)| mail.kind)
            .collect()
    }

    pub fn buyers(&self) -> Vec<BuyerOf> {
        lock(&self.sent).iter().map(|(_, buyer)| buyer.clone()).collect()
    }

    /// Works until the test ends.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let settings = ConsumerSettings { wait: Duration::from_secs(1), ..ConsumerSettings::default() };
        let consumer = Consumer::new(self.bus.clone(), "CMD_NOTIFY", "notify", settings);
        let handler = move |batch: Vec<Delivery>| {
            let this = Arc::clone(&self);
            async move {
                for delivery in &batch {
                    this.take(delivery.decode()?).await;
                }
                Ok(vec![Verdict::Done; batch.len()])
            }
        };
        consumer.run(shutdown, handler).await.unwrap();
    }

    async fn take(&self, mail: MailCommand) {
        let manner = *lock(&self.manner);
        if manner == Manner::Silent {
            return;
        }
        let of = orders::OfOrder { order_id: mail.order_id };
        let buyer = self.bus.call_repeatedly::<Buyer>("rpc.orders.buyer".into(), &of).await.unwrap();
        lock(&self.sent).push((mail.clone(), buyer));
        let sent = manner != Manner::Refuses;
        let result = MailResult { step_id: mail.step_id, order_id: mail.order_id, sent };
        let message = Message::new(&result, format!("{}.{sent}", mail.step_id)).unwrap();
        self.bus.publish_all(&[message]).await.pop().unwrap().unwrap();
    }
}
