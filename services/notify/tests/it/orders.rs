//! A stand-in for `orders`: knows buyers, sends commands, hears results.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use stampede_bus::{Bus, Message, Responder, ResponderSettings};
use stampede_contracts::api::{Ticket, TicketState};
use stampede_contracts::command::{MailCommand, MailKind};
use stampede_contracts::inventory::SeatLabel;
use stampede_contracts::orders::{Buyer, BuyerOf};
use stampede_contracts::{Code, Money, OrderId, Problem, ShowId, StepId, TicketId, Timestamp};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// What `rpc.orders.buyer` answers; an order that is not in it does not exist.
type Buyers = Arc<Mutex<HashMap<OrderId, BuyerOf>>>;

/// What it answers first.
type Failures = Arc<Mutex<VecDeque<Code>>>;

pub struct Orders {
    bus: Bus,
    buyers: Buyers,
    failures: Failures,
    _answering: AbortOnDropHandle<()>,
}

impl Orders {
    pub fn start(bus: Bus) -> Self {
        let buyers = Buyers::default();
        let settings = ResponderSettings {
            subject: "rpc.orders.*".to_owned(),
            queue: "orders".to_owned(),
            capacity: 64,
            workers: 8,
        };
        let failures = Failures::default();
        let (known, failing) = (Arc::clone(&buyers), Arc::clone(&failures));
        let responder = Responder::new(bus.clone(), settings).on::<Buyer, _, _>(move |request, _| {
            let buyer = known.lock().unwrap().get(&request.order_id).cloned();
            let answer = match failing.lock().unwrap().pop_front() {
                Some(code) => Err(code),
                None => buyer.ok_or(Code::OrderNotFound),
            };
            async move { answer.map_err(Problem::new) }
        });
        let answering = tokio::spawn(async move { responder.run(CancellationToken::new()).await.unwrap() });
        Self { bus, buyers, failures, _answering: AbortOnDropHandle::new(answering) }
    }

    /// Its next answers are these problems.
    pub fn fail(&self, codes: impl IntoIterator<Item = Code>) {
        self.failures.lock().unwrap().extend(codes);
    }

    /// An order with a ticket, of somebody whose data occur nowhere else.
    pub fn place(&self) -> (MailCommand, BuyerOf) {
        let mark = uuid::Uuid::new_v4().simple();
        self.place_for(&format!("ada-{mark}@example.org"))
    }

    pub fn place_for(&self, email: &str) -> (MailCommand, BuyerOf) {
        let (order_id, mark) = (OrderId::new(), uuid::Uuid::new_v4().simple());
        let seat =
            SeatLabel { seat_id: None, section: "Floor".into(), row: Some("C".into()), number: Some(12) };
        let ticket = Ticket {
            ticket_id: TicketId::new(),
            order_id,
            show_id: ShowId::new(),
            seat,
            state: TicketState::Valid,
            code: format!("tkt1.code-{mark}"),
        };
        let buyer = BuyerOf {
            name: format!("Ada Name-{mark}"),
            email: email.to_owned(),
            show_title: "Night of the Crates".into(),
            venue: "The Club".into(),
            starts_at: Timestamp::now(),
            total: Money::try_new(4_500, "EUR".parse().unwrap()).unwrap(),
            order_secret: format!("secret-{mark}"),
            tickets: vec![ticket],
        };
        self.buyers.lock().unwrap().insert(order_id, buyer.clone());
        (MailCommand { step_id: StepId::new(), order_id, kind: MailKind::Tickets }, buyer)
    }

    /// The order is cancelled.
    pub fn revoke(&self, order: OrderId) {
        let mut buyers = self.buyers.lock().unwrap();
        let tickets = &mut buyers.get_mut(&order).unwrap().tickets;
        tickets.iter_mut().for_each(|ticket| ticket.state = TicketState::Revoked);
    }

    /// Everything that nobody but the mail server may get to know.
    pub fn markers(&self) -> Vec<String> {
        let buyers = self.buyers.lock().unwrap();
        let of = |buyer: &BuyerOf| {
            let code = buyer.tickets[0].code.clone();
            [buyer.name.clone(), buyer.email.clone(), buyer.order_secret.clone(), code]
        };
        buyers.values().flat_map(of).collect()
    }

    pub async fn send(&self, command: &MailCommand) {
        self.publish(&message(command)).await;
    }

    /// As the sweeper does for a step without an outcome.
    pub async fn send_again(&self, command: &MailCommand, attempt: u32) {
        self.publish(&message(command).attempt(attempt)).await;
    }

    pub async fn publish(&self, message: &Message) {
        self.bus.publish(message).await.unwrap();
    }
}

pub fn message(command: &MailCommand) -> Message {
    Message::new(command, command.step_id.to_string()).unwrap()
}
