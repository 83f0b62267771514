//! The mail.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use stampede_bus::{Bus, Consumer, ConsumerSettings, Delivery, Message, Verdict};
use stampede_contracts::OrderId;
use stampede_contracts::command::{MailCommand, MailKind};
use stampede_contracts::event::MailResult;
use stampede_contracts::orders::{Buyer, BuyerOf, OfOrder};
use tokio_util::sync::CancellationToken;

use super::{Manner, lock};

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
        let of = OfOrder { order_id: mail.order_id };
        let buyer = self.bus.call_repeatedly::<Buyer>("rpc.orders.buyer".into(), &of).await.unwrap();
        {
            let mut sent = lock(&self.sent);
            // A command that is redelivered is the same mail.
            if sent.iter().all(|(known, _)| known.step_id != mail.step_id) {
                sent.push((mail.clone(), buyer));
            }
        }
        let sent = manner != Manner::Refuses;
        let result = MailResult { step_id: mail.step_id, order_id: mail.order_id, sent };
        let message = Message::new(&result, format!("{}.{sent}", mail.step_id)).unwrap();
        self.bus.publish_all(&[message]).await.pop().unwrap().unwrap();
    }
}
