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
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::store::{CHANNEL, Store};

/// How often a change on another replica that is not the end is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause before listening again after the connection could not be made.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);

/// How much changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A step went on. Told in this process only, because a transaction that notifies takes a lock of the whole
    /// cluster while it commits; for those who follow an order on another replica that one looks once a second.
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
    /// Those of them that are notified of progress, too.
    followers: usize,
    /// The order as it was when it was last looked at for the followers.
    revision: Option<i64>,
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
    follows: bool,
    map: Arc<Map>,
}

impl Wakeups {
    /// Subscribe before reading the row: a change in between is then not missed.
    pub fn subscribe(&self, order: OrderId) -> Subscription {
        let mut map = lock(&self.0);
        let waiters = map.entry(order).or_insert_with(|| Waiters {
            seen: watch::Sender::new(Seen::default()),
            subscriptions: 0,
            followers: 0,
            revision: None,
        });
        waiters.subscriptions += 1;
        let seen = waiters.seen.subscribe();
        let answers = seen.borrow().answers;
        Subscription { order, seen, answers, follows: false, map: Arc::clone(&self.0) }
    }

    /// Like [`subscribe`](Self::subscribe), with progress on other replicas, too.
    pub fn follow(&self, order: OrderId) -> Subscription {
        let mut subscription = self.subscribe(order);
        if let Some(waiters) = lock(&self.0).get_mut(&order) {
            waiters.followers += 1;
            subscription.follows = true;
        }
        subscription
    }

    /// Looks once a second, for all who follow an order together, which of these orders has changed; until `shutdown`.
    ///
    /// # Errors
    /// None: a look that fails is followed by the next one.
    pub async fn look_for_followers(self, store: Store, shutdown: CancellationToken) -> Result<(), BoxError> {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(look.tick()).await.is_some() {
            let followed = self.followed();
            if followed.is_empty() {
                continue;
            }
            match store.revisions(&followed).await {
                Ok(revisions) => self.compare(&revisions),
                Err(error) => tracing::warn!(%error, "orders that are followed cannot be looked at"),
            }
        }
        Ok(())
    }

    /// Every order that has followers, once.
    fn followed(&self) -> Vec<OrderId> {
        let map = lock(&self.0);
        map.iter().filter(|(_, waiters)| waiters.followers > 0).map(|(order, _)| *order).collect()
    }

    fn compare(&self, revisions: &[(OrderId, i64)]) {
        let mut map = lock(&self.0);
        for (order, revision) in revisions {
            let Some(waiters) = map.get_mut(order) else { continue };
            if waiters.revision.replace(*revision) != Some(*revision) {
                waiters.bump(Change::Progress);
            }
        }
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
            waiters.followers -= usize::from(self.follows);
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
    fn an_order_is_looked_at_once_for_all_who_follow_it_and_for_nobody_else() {
        let wakeups = Wakeups::default();
        let (order, other) = (OrderId::new(), OrderId::new());
        let (mut one, two) = (wakeups.follow(order), wakeups.follow(order));
        let mut waits = wakeups.subscribe(other);
        assert_eq!(wakeups.followed(), [order]);

        wakeups.compare(&[(order, 3), (other, 9)]);
        assert_eq!(one.changed().now_or_never(), Some(()), "it may have changed before it was looked at");
        wakeups.compare(&[(order, 3)]);
        assert_eq!(one.changed().now_or_never(), None);
        wakeups.compare(&[(order, 4)]);
        assert_eq!(one.changed().now_or_never(), Some(()));
        assert_eq!(waits.answered().now_or_never(), None);

        drop(two);
        assert_eq!(wakeups.followed(), [order]);
        drop(one);
        assert_eq!(wakeups.followed(), []);
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
