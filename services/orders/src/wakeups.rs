//! Who waits for an order in this process, and how a change on any replica reaches them.
//!
//! A wake-up carries no state: whoever is woken reads the row again, so a lost or doubled one does no harm.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stampede_bus::BoxError;
use stampede_contracts::OrderId;
use stampede_postgres::{Listener, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::store::CHANNEL;

/// Pause before listening again after the connection could not be made.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);

/// How much changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A step went on. Told in this process only, because a transaction that notifies takes a lock of the whole
    /// cluster while it commits; whoever follows an order from another replica looks once a second as well.
    Progress,
    /// The order has an answer now, or came to rest. Told to all replicas.
    Answered,
}

impl Change {
    /// Whether other replicas are told.
    pub fn is_for_all(self) -> bool {
        self == Self::Answered
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Seen {
    changes: u64,
    answers: u64,
}

#[derive(Debug)]
struct Waiters {
    seen: watch::Sender<Seen>,
    subscriptions: usize,
}

type Map = Mutex<HashMap<OrderId, Waiters>>;

/// Everybody in this process who waits for an order. A handle: clones share them.
#[derive(Debug, Clone, Default)]
pub struct Wakeups(Arc<Map>);

/// Waits for one order. Dropping it forgets it.
#[derive(Debug)]
pub struct Subscription {
    order: OrderId,
    seen: watch::Receiver<Seen>,
    /// What this subscription was told of so far.
    answers: u64,
    map: Arc<Map>,
}

impl Wakeups {
    /// Subscribe before reading the row: a change in between is then not missed.
    pub fn subscribe(&self, order: OrderId) -> Subscription {
        let mut map = lock(&self.0);
        let waiters = map
            .entry(order)
            .or_insert_with(|| Waiters { seen: watch::Sender::new(Seen::default()), subscriptions: 0 });
        waiters.subscriptions += 1;
        let seen = waiters.seen.subscribe();
        let answers = seen.borrow().answers;
        Subscription { order, seen, answers, map: Arc::clone(&self.0) }
    }

    /// Wakes whoever waits for this order.
    pub fn wake(&self, order: OrderId, change: Change) {
        if let Some(waiters) = lock(&self.0).get(&order) {
            waiters.bump(change);
        }
    }

    /// Wakes everybody: notifications may have been lost.
    fn wake_all(&self) {
        lock(&self.0).values().for_each(|waiters| waiters.bump(Change::Answered));
    }

    /// Passes on what the database says, until `shutdown`.
    ///
    /// # Errors
    /// None: when the connection is lost, everybody is woken and another one is made.
    pub async fn listen(self, pool: PgPool, shutdown: CancellationToken) -> Result<(), BoxError> {
        while shutdown.run_until_cancelled(self.listen_once(&pool)).await.is_some() {
            self.wake_all();
            shutdown.run_until_cancelled(tokio::time::sleep(LISTEN_PAUSE)).await;
        }
        Ok(())
    }

    /// Ends when the connection is lost.
    async fn listen_once(&self, pool: &PgPool) {
        let result: Result<(), sqlx::Error> = async {
            let mut listener = Listener::connect(pool, CHANNEL).await?;
            // Whatever changed before the channel was listened to.
            self.wake_all();
            loop {
                if let Ok(order) = listener.recv().await?.payload().parse() {
                    self.wake(order, Change::Answered);
                }
            }
        }
        .await;
        tracing::warn!(error = ?result.err(), "not listening for changes of orders; trying again");
    }
}

impl Subscription {
    /// The order that is waited for.
    pub fn order(&self) -> OrderId {
        self.order
    }

    /// Waits for the next change.
    pub async fn changed(&mut self) {
        // The sender lives as long as this subscription.
        let _ = self.seen.changed().await;
    }

    /// Waits until the order is answered, or may be.
    pub async fn answered(&mut self) {
        let before = self.answers;
        if let Ok(seen) = self.seen.wait_for(|seen| seen.answers != before).await {
            self.answers = seen.answers;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut map = lock(&self.map);
        if let Some(waiters) = map.get_mut(&self.order) {
            waiters.subscriptions -= 1;
            if waiters.subscriptions == 0 {
                map.remove(&self.order);
            }
        }
    }
}

impl Waiters {
    fn bump(&self, change: Change) {
        self.seen.send_modify(|seen| {
            seen.changes += 1;
            seen.answers += u64::from(change == Change::Answered);
        });
    }
}

/// The map is whole after every statement, so a panic elsewhere does not spoil it.
fn lock(map: &Map) -> MutexGuard<'_, HashMap<OrderId, Waiters>> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn whoever_waits_for_an_answer_sleeps_through_progress() {
        let wakeups = Wakeups::default();
        let order = OrderId::new();
        let mut subscription = wakeups.subscribe(order);
        wakeups.wake(OrderId::new(), Change::Answered);
        assert_eq!(subscription.changed().now_or_never(), None);

        wakeups.wake(order, Change::Progress);
        assert_eq!(subscription.changed().now_or_never(), Some(()));

        wakeups.wake(order, Change::Progress);
        assert_eq!(subscription.answered().now_or_never(), None);
        wakeups.wake(order, Change::Answered);
        assert_eq!(subscription.answered().now_or_never(), Some(()), "also when nobody waited just then");
        assert_eq!(subscription.answered().now_or_never(), None);
    }

    #[test]
    fn nobody_is_remembered_longer_than_they_wait() {
        let wakeups = Wakeups::default();
        let order = OrderId::new();
        let (one, two) = (wakeups.subscribe(order), wakeups.subscribe(order));
        drop(one);
        assert_eq!(lock(&wakeups.0).len(), 1);
        drop(two);
        assert_eq!(lock(&wakeups.0).len(), 0);
    }
}
