//! Whether a node should get work: gates that the service opens and closes, checks that are asked every time.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use serde::Serialize;

/// How long one check may take; one that takes longer has failed.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// All reasons why this node might not be ready. A handle: clones mean the same node.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Inner>);

#[derive(Default)]
struct Inner {
    started: AtomicBool,
    draining: AtomicBool,
    conditions: Mutex<Vec<Condition>>,
}

#[derive(Clone)]
struct Condition {
    name: String,
    state: State,
}

#[derive(Clone)]
enum State {
    Gate(Gate),
    Check(Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>),
}

impl Readiness {
    /// A condition that the service itself knows about. It begins closed.
    pub fn gate(&self, name: impl Into<String>) -> Gate {
        let gate = Gate(Arc::new(Mutex::new(Some("not yet".to_owned()))));
        self.add(name.into(), State::Gate(gate.clone()));
        gate
    }

    /// A condition that is looked at each time somebody asks, for at most [`CHECK_TIMEOUT`].
    pub fn check<F, Fut, E>(&self, name: impl Into<String>, check: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        let check = move || check().map(|result| result.map_err(|error| error.to_string())).boxed();
        self.add(name.into(), State::Check(Arc::new(check)));
    }

    /// Looks at everything, all checks at once.
    pub async fn report(&self) -> Report {
        let conditions = self.0.conditions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let conditions = join_all(conditions.into_iter().map(Condition::report)).await;
        let (started, draining) = (self.is_started(), self.is_draining());
        let ready = started && !draining && conditions.iter().all(|condition| condition.ready);
        Report { ready, started, draining, conditions }
    }

    /// Whether the node should get work now.
    pub async fn is_ready(&self) -> bool {
        self.report().await.ready
    }

    /// Whether the node has come as far as serving.
    pub fn is_started(&self) -> bool {
        self.0.started.load(Ordering::Acquire)
    }

    /// Whether the node is on its way out.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    pub(crate) fn start(&self) {
        self.0.started.store(true, Ordering::Release);
    }

    pub(crate) fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    fn add(&self, name: String, state: State) {
        self.0.conditions.lock().unwrap_or_else(PoisonError::into_inner).push(Condition { name, state });
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness")
            .field("started", &self.is_started())
            .field("draining", &self.is_draining())
            .finish_non_exhaustive()
    }
}

impl Condition {
    async fn report(self) -> ConditionReport {
        let reason = match self.state {
            State::Gate(gate) => gate.reason(),
            State::Check(check) => match tokio::time::timeout(CHECK_TIMEOUT, check()).await {
                Ok(result) => result.err(),
                Err(_elapsed) => Some(format!("no answer within {CHECK_TIMEOUT:?}")),
            },
        };
        ConditionReport { name: self.name, ready: reason.is_none(), reason }
    }
}

/// A condition that is opened and closed by hand. A handle: clones mean the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Mutex<Option<String>>>);

impl Gate {
    /// Nothing is in the way any more.
    pub fn open(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Something is in the way; `reason` is for operators.
    pub fn close(&self, reason: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.into());
    }

    fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What `/readyz` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether the node should get work.
    pub ready: bool,
    /// Whether it has come as far as serving.
    pub started: bool,
    /// Whether it is on its way out.
    pub draining: bool,
    /// Every gate and check.
    pub conditions: Vec<ConditionReport>,
}

/// One gate or check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConditionReport {
    /// Its name.
    pub name: String,
    /// Whether it lets the node be ready.
    pub ready: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_is_ready_between_start_and_drain_while_its_gates_are_open() {
        let readiness = Readiness::default();
        assert!(!readiness.is_ready().await);
        readiness.start();
        assert!(readiness.is_ready().await);

        let gate = readiness.gate("copy");
        assert!(!readiness.is_ready().await, "a new gate is closed");
        gate.open();
        assert!(readiness.is_ready().await);
        gate.close("lost");
        assert_eq!(readiness.report().await.conditions[0].reason.as_deref(), Some("lost"));

        gate.open();
        readiness.drain();
        assert!(!readiness.is_ready().await);
    }

    #[tokio::test]
    async fn a_check_is_asked_each_time() {
        let readiness = Readiness::default();
        readiness.start();
        let healthy = Arc::new(AtomicBool::new(true));
        let asked = healthy.clone();
        readiness.check("peer", move || {
            let healthy = asked.load(Ordering::Relaxed);
            async move { if healthy { Ok(()) } else { Err("away") } }
        });
        assert!(readiness.is_ready().await);
        healthy.store(false, Ordering::Relaxed);
        assert_eq!(readiness.report().await.conditions[0].reason.as_deref(), Some("away"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_has_failed() {
        let readiness = Readiness::default();
        readiness.start();
        readiness.check("stuck", std::future::pending::<Result<(), String>>);
        assert_eq!(readiness.report().await.conditions[0].reason.as_deref(), Some("no answer within 1s"));
    }
}
