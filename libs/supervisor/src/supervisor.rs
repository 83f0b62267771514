//! The owner of a process's children.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::metrics::Counter;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::child::{Child, End};
use crate::{BoxError, IsOutage, RestartPolicy, Restarts};

/// Starts children, starts them again, and waits for them at the end.
///
/// Dropping it, or the future of [`join`](Self::join), drops all children at their next await: none can outlive it
/// unseen.
#[derive(Debug)]
pub struct Supervisor {
    shutdown: CancellationToken,
    tasks: TaskTracker,
    failed: watch::Sender<Option<String>>,
    running: Running,
    restarts: Counter<u64>,
    is_outage: IsOutage,
    kill: CancellationToken,
    _kill_on_drop: DropGuard,
}

impl Supervisor {
    /// A supervisor without children. After `shutdown` is cancelled nothing is started again; ending in time is each
    /// child's own duty.
    pub fn new(shutdown: CancellationToken) -> Self {
        let kill = CancellationToken::new();
        Self {
            shutdown,
            tasks: TaskTracker::new(),
            failed: watch::Sender::new(None),
            running: Running::default(),
            restarts: opentelemetry::global::meter("stampede")
                .u64_counter("stampede.supervisor.restarts")
                .with_description("Children that were started again")
                .build(),
            is_outage: |_| false,
            _kill_on_drop: kill.clone().drop_guard(),
            kill,
        }
    }

    /// Waits out what `is_outage` recognises: such a failure is no restart that counts. Without it none is recognised.
    #[must_use]
    pub fn waiting_out(self, is_outage: IsOutage) -> Self {
        Self { is_outage, ..self }
    }

    /// Starts a child and keeps it running: after an error, a panic, or an end nobody asked for, `factory` makes it
    /// anew. `name` appears in logs, metrics and [`failed`](Self::failed).
    pub fn spawn<F, Fut>(&self, name: impl Into<String>, policy: RestartPolicy, factory: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send,
    {
        let name = name.into();
        let child = Child {
            name: name.clone(),
            restarts: Restarts::new(policy),
            shutdown: self.shutdown.clone(),
            counter: self.restarts.clone(),
            is_outage: self.is_outage,
        };
        let (failed, kill) = (self.failed.clone(), self.kill.clone());
        let running = self.running.enter(name.clone());
        self.tasks.spawn(async move {
            let _running = running;
            if let Some(End::GaveUp) = kill.run_until_cancelled(child.run(factory)).await {
                // The first one to give up is the news; the process ends because of it.
                failed.send_if_modified(|first| first.is_none() && first.replace(name).is_none());
            }
        });
    }

    /// Resolves with the name of the first child that was given up; never while all can be kept alive. The future is
    /// independent of the supervisor's life time.
    pub fn failed(&self) -> impl Future<Output = String> + Send + use<> {
        let mut failed = self.failed.subscribe();
        async move {
            let first = failed.wait_for(Option::is_some).await.ok().and_then(|name| name.clone());
            match first {
                Some(name) => name,
                // The supervisor is gone and so are its children: none of them will fail.
                None => std::future::pending().await,
            }
        }
    }

    /// The names of the children that have not ended, sorted: what to log when the patience at shutdown is over.
    pub fn running(&self) -> Vec<String> {
        self.running.names()
    }

    /// Waits until every child has ended, that is, after shutdown. The caller bounds the wait.
    pub async fn join(self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// How many children of each name are alive.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<BTreeMap<String, usize>>>);

impl Running {
    fn enter(&self, name: String) -> Entered {
        *self.lock().entry(name.clone()).or_default() += 1;
        Entered { running: self.clone(), name }
    }

    fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

struct Entered {
    running: Running,
    name: String,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        if let Some(count) = running.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.name);
            }
        }
    }
}
