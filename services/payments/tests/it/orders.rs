//! A stand-in for `orders`: sends commands, hands out card tokens, listens for results.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use stampede_bus::{
    Bus, Consumer, ConsumerSettings, Delivery, Message, Responder, ResponderSettings, Verdict,
};
use stampede_contracts::command::{PaymentAction, PaymentCommand};
use stampede_contracts::event::{PaymentOutcome, PaymentResult};
use stampede_contracts::orders::{Card as CardFunction, CardOf};
use stampede_contracts::topology::EVT_FACTS;
use stampede_contracts::{Code, Money, OrderId, Problem, StepId};
use stampede_psp_sim::card::Card;
use stampede_testkit::eventually;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::support::PATIENCE;

/// The stand-in. Card tokens can be held back, as by an `orders` that is away.
pub struct Orders {
    bus: Bus,
    tokens: Tokens,
    results: Results,
    hold_back: watch::Sender<bool>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// What `rpc.orders.card` answers; an order that is not in it does not exist.
type Tokens = Arc<Mutex<HashMap<OrderId, Option<String>>>>;
/// Results with their CloudEvents id, in the order in which they came.
type Results = Arc<Mutex<Vec<(String, PaymentResult)>>>;

impl Orders {
    pub fn start(bus: Bus) -> Self {
        let (tokens, results) = (Tokens::default(), Results::default());
        let (hold_back, held_back) = watch::channel(false);
        let settings = ResponderSettings {
            subject: "rpc.orders.*".to_owned(),
            queue: "orders".to_owned(),
            capacity: 1_024,
            workers: 1_024,
        };
        let known = Arc::clone(&tokens);
        let responder = Responder::new(bus.clone(), settings).on::<CardFunction, _, _>(move |request, _| {
            let (known, mut held_back) = (Arc::clone(&known), held_back.clone());
            async move {
                let _ = held_back.wait_for(|held_back| !held_back).await;
                let card_token = known.lock().unwrap().get(&request.order_id).cloned();
                card_token.map(|card_token| CardOf { card_token }).ok_or(Problem::new(Code::OrderNotFound))
            }
        });
        let answering = tokio::spawn(async move { responder.run(CancellationToken::new()).await.unwrap() });

        // From the stream and not from the subject: JetStream drops what it takes for a duplicate.
        let consumer = Consumer::new(bus.clone(), EVT_FACTS, "orders-payments", ConsumerSettings::default());
        let heard = Arc::clone(&results);
        let listening = consumer.run(CancellationToken::new(), move |batch| {
            heard.lock().unwrap().extend(batch.iter().map(read));
            async move { Ok(batch.iter().map(|_| Verdict::Done).collect()) }
        });
        let listening = tokio::spawn(async move { listening.await.unwrap() });
        let tasks = [AbortOnDropHandle::new(answering), AbortOnDropHandle::new(listening)];
        Self { bus, tokens, results, hold_back, _tasks: tasks }
    }

    /// An order that is paid with a card.
    pub fn place(&self, card: Card) -> OrderId {
        let order = OrderId::new();
        self.pays_with(order, Some(card.token()));
        order
    }

    pub fn pays_with(&self, order: OrderId, token: Option<String>) {
        self.tokens.lock().unwrap().insert(order, token);
    }

    pub fn hold_back_tokens(&self, yes: Held) {
        self.hold_back.send_replace(yes == Held::Yes);
    }

    pub async fn publish(&self, messages: &[Message]) {
        for result in self.bus.publish_all(messages).await {
            result.unwrap();
        }
    }

    pub async fn send(&self, command: &PaymentCommand) {
        self.publish(&[message(command)]).await;
    }

    /// Sends a command and waits for its outcome.
    pub async fn settle(&self, command: &PaymentCommand) -> PaymentOutcome {
        self.send(command).await;
        self.outcome(command.step_id).await
    }

    /// The outcome of a step, as soon as it is told.
    pub async fn outcome(&self, step: StepId) -> PaymentOutcome {
        eventually(PATIENCE, async || self.results_of(step) > 0).await;
        let results = self.results.lock().unwrap();
        results.iter().find(|(_, result)| result.step_id == step).unwrap().1.outcome.clone()
    }

    /// How often the outcome of a step was told.
    pub fn results_of(&self, step: StepId) -> usize {
        self.results.lock().unwrap().iter().filter(|(_, result)| result.step_id == step).count()
    }

    /// All that was told, with CloudEvents ids.
    pub fn results(&self) -> Vec<(String, PaymentResult)> {
        self.results.lock().unwrap().clone()
    }
}

fn read(delivery: &Delivery) -> (String, PaymentResult) {
    let result: PaymentResult = delivery.decode().unwrap();
    assert_eq!(delivery.correlation_id, Some(result.order_id.to_string()));
    assert_eq!(delivery.causation_id, Some(result.step_id.to_string()));
    (delivery.ce_id.clone(), result)
}

/// Whether card tokens are held back.
#[derive(PartialEq, Eq)]
pub enum Held {
    Yes,
    No,
}

pub fn price() -> Money {
    Money::try_new(4_500, "EUR".parse().unwrap()).unwrap()
}

pub fn authorise(order: OrderId) -> PaymentCommand {
    PaymentCommand {
        step_id: StepId::new(),
        order_id: order,
        action: PaymentAction::Authorise,
        amount: price(),
        authorisation: None,
    }
}

/// A step about an authorise step.
pub fn about(authorise: &PaymentCommand, action: PaymentAction) -> PaymentCommand {
    PaymentCommand {
        step_id: StepId::new(),
        action,
        authorisation: Some(authorise.step_id),
        ..authorise.clone()
    }
}

pub fn message(command: &PaymentCommand) -> Message {
    Message::new(command, command.step_id.to_string()).unwrap()
}

pub fn refused(reason: &str) -> PaymentOutcome {
    PaymentOutcome::Refused { reason: reason.to_owned() }
}

pub fn declined(reason: &str) -> PaymentOutcome {
    PaymentOutcome::Declined { reason: reason.to_owned() }
}

/// The reference of what succeeded.
#[track_caller]
pub fn reference(outcome: &PaymentOutcome) -> &str {
    match outcome {
        PaymentOutcome::Succeeded { reference } => reference,
        other => panic!("{other:?}"),
    }
}
