//! What this service does: one method a function of `contracts::inventory`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use stampede_contracts::inventory::{
    Attach, ClosePassOf, HoldAnswer, HoldOf, HoldView, OfOrder, PassEnd, PlaceHold,
};
use stampede_contracts::signed::VerifyingKey;
use stampede_contracts::{Code, HasKey, Problem, Timestamp};
use stampede_deadline::Deadline;
use stampede_retry::{Backoff, retry};
use stampede_service::Rotating;

use crate::domain::hold::Wish;
use crate::metrics::Metrics;
use crate::outlook::Outlook;
use crate::problem::Error;
use crate::shows::Shows;
use crate::store::{Changed, Of, Store};

/// How long a call may take whose caller said nothing.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pauses before a transaction is tried again. Whoever was in the way is done in a few milliseconds.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Whether a fingerprint is that of this request, by whichever key.
fn is_of(request: &PlaceHold, fingerprint: &String) -> bool {
    request.fingerprint == *fingerprint || request.other_fingerprints.contains(fingerprint)
}

/// Tells the time. A parameter, so that tests can have their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The rules of holding.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long a hold lasts when no order comes.
    pub hold: Duration,
    /// The most seats of one hold.
    pub seats_max: u32,
    /// The key that verifies the lobby's passes.
    pub pass_key: Rotating<VerifyingKey>,
    /// How long holds and journal of a show stay after it is over.
    pub history: Duration,
    /// How often blocks and layouts are published again although nothing changed.
    pub state_again_every: Duration,
}

/// The use cases. Clones are the same service.
#[derive(Clone)]
pub struct Inventory {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    shows: Shows,
    outlook: Outlook,
    rules: Rules,
    metrics: Metrics,
    clock: Clock,
    backoff: Backoff,
}

impl Inventory {
    /// The service on a store.
    ///
    /// # Errors
    /// None in practice: when the pauses between attempts contradict each other.
    pub fn new(store: Store, rules: Rules, clock: Clock) -> Result<Self, stampede_retry::InvalidBackoff> {
        let inner = Inner {
            shows: Shows::new(store.clone()),
            store,
            outlook: Outlook::default(),
            rules,
            metrics: Metrics::default(),
            clock,
            backoff: Backoff::try_new(PAUSE_MIN, PAUSE_MAX)?,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The instruments.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        (self.inner.clock)()
    }

    pub(crate) fn clock(&self) -> &(dyn Fn() -> Timestamp + Send + Sync) {
        &*self.inner.clock
    }

    pub(crate) fn shows(&self) -> &Shows {
        &self.inner.shows
    }

    pub(crate) fn outlook(&self) -> &Outlook {
        &self.inner.outlook
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.inner.rules
    }

    /// Holds seats. The same key gets the same hold again, whatever has become of it since.
    ///
    /// # Errors
    /// The problems of [`stampede_contracts::inventory::Hold`].
    pub async fn hold(&self, request: &PlaceHold) -> Result<HoldAnswer, Problem> {
        let answer = self.patiently(|| self.hold_once(request)).await;
        self.metrics().hold(match &answer {
            Ok(HoldAnswer::Held(_)) => "held",
            Ok(HoldAnswer::Full { .. }) => "full",
            Err(problem) => problem.code.as_str(),
        });
        answer
    }

    async fn hold_once(&self, request: &PlaceHold) -> Result<HoldAnswer, Error> {
        let refusal = match self.place(request).await {
            Ok(HoldAnswer::Held(view)) => return Ok(HoldAnswer::Held(view)),
            Ok(full) => Ok(full),
            Err(Error::Refused(problem)) => Err(problem),
            Err(error) => return Err(error),
        };
        // A refusal is only for a key that has no hold yet: the first time there may have been seats, a pass, a sale.
        let (session, key) = request.key();
        match self.store().earlier(session, key).await? {
            Some(earlier) if is_of(request, &earlier.fingerprint) => {
                Ok(HoldAnswer::Held(Box::new(earlier.view)))
            }
            Some(_) => Err(Problem::new(Code::KeyReused).into()),
            None => Ok(refusal?),
        }
    }

    /// Reads a hold.
    ///
    /// # Errors
    /// The problems of [`stampede_contracts::inventory::GetHold`].
    pub async fn get(&self, of: &HoldOf) -> Result<HoldView, Problem> {
        let read = || async { Ok(self.store().hold(of.hold_id, self.now()).await?) };
        let view = self.patiently(read).await?;
        view.filter(|view| view.session == of.session).ok_or_else(|| Problem::new(Code::HoldNotFound))
    }

    /// Releases a held hold.
    ///
    /// # Errors
    /// The problems of [`stampede_contracts::inventory::ReleaseHold`].
    pub async fn release(&self, of: &HoldOf) -> Result<HoldView, Problem> {
        let hold = Of { hold: of.hold_id, session: Some(of.session), step: None };
        self.change("release", hold, Wish::Release).await
    }

    /// Makes a hold part of an order.
    ///
    /// # Errors
    /// The problems of [`stampede_contracts::inventory::AttachHold`].
    pub async fn attach(&self, attach: &Attach) -> Result<HoldView, Problem> {
        let hold = Of { hold: attach.hold_id, session: Some(attach.session), step: Some(attach.key()) };
        self.change("attach", hold, Wish::Attach(attach.order_id, attach.decide_by)).await
    }

    /// Takes a declined order's hold back.
    ///
    /// # Errors
    /// The problems of [`stampede_contracts::inventory::DetachHold`].
    pub async fn detach(&self, of: &OfOrder) -> Result<HoldView, Problem> {
        self.change("detach", of_order(of), Wish::Detach(of.order_id)).await
    }

    /// Sells the seats of an order.
    ///
    /// # Errors
    /// The problems of [`stampede_contracts::inventory::ConfirmHold`].
    pub async fn confirm(&self, of: &OfOrder) -> Result<HoldView, Problem> {
        self.change("confirm", of_order(of), Wish::Confirm(of.order_id)).await
    }

    /// Frees the seats of an order.
    ///
    /// # Errors
    /// The problems of [`stampede_contracts::inventory::FreeHold`].
    pub async fn free(&self, of: &OfOrder) -> Result<HoldView, Problem> {
        self.change("free", of_order(of), Wish::Free(of.order_id)).await
    }

    /// Closes a pass.
    ///
    /// # Errors
    /// Only when the database is not available.
    pub async fn close_pass(&self, of: &ClosePassOf) -> Result<PassEnd, Problem> {
        self.patiently(|| async { Ok(self.store().close_pass(of, self.now()).await?) }).await
    }

    async fn change(&self, word: &'static str, of: Of, wish: Wish) -> Result<HoldView, Problem> {
        let changed = self
            .patiently(|| async {
                match self.store().change(of, wish, self.now()).await? {
                    Changed::Done { view, written } => Ok((view, written)),
                    Changed::Refused(refusal) => Err(refusal.into()),
                    Changed::NotFound => Err(Problem::new(Code::HoldNotFound).into()),
                }
            })
            .await;
        self.metrics().change(
            word,
            match &changed {
                Ok((_, true)) => "done",
                Ok((_, false)) => "nothing_to_do",
                Err(problem) => problem.code.as_str(),
            },
        );
        changed.map(|(view, _)| *view)
    }

    /// Tries again while somebody is in the way and the caller still waits.
    async fn patiently<T, Fut>(&self, once: impl Fn() -> Fut) -> Result<T, Problem>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        let deadline = stampede_deadline::current().unwrap_or_else(|| Deadline::after(PATIENCE));
        let result = retry(deadline, &self.inner.backoff, Error::is_transient, |_attempt| once()).await;
        result.map_err(Problem::from)
    }
}

impl fmt::Debug for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inventory").field("rules", &self.inner.rules).finish_non_exhaustive()
    }
}

fn of_order(of: &OfOrder) -> Of {
    Of { hold: of.hold_id, session: None, step: Some(of.key()) }
}
