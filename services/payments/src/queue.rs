//! The queue between the table and the workers. Bounded, and only a shortcut: the table is the truth.

use std::sync::Arc;
use std::time::Duration;

use stampede_bus::BoxError;
use stampede_contracts::StepId;
use tokio::sync::{Mutex, Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::Operation;
use crate::store::Store;
use crate::worker::Worker;

/// How long nobody looks for rows that are due: those that were postponed, and those of replicas that died.
const POLL: Duration = Duration::from_millis(200);
/// Rows leased at once, at most.
const LEASED_MAX: usize = 128;

/// An operation that this process has leased.
#[derive(Debug)]
struct Job {
    operation: Operation,
    leased_until: Instant,
}

/// The queue. A handle: clones share it.
#[derive(Debug, Clone)]
pub struct Queue {
    sender: mpsc::Sender<Job>,
    // Behind a lock because a supervisor may start its reader again.
    receiver: Arc<Mutex<mpsc::Receiver<Job>>>,
    wake: Arc<Notify>,
    lease: Duration,
}

/// Places in the queue, kept for operations that are about to be leased.
pub struct Places<'a> {
    permits: Option<mpsc::PermitIterator<'a, Job>>,
    lease: Duration,
}

impl Queue {
    /// A queue for at most `capacity` operations that are leased for `lease`.
    pub fn new(capacity: usize, lease: Duration) -> Self {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        Self { sender, receiver: Arc::new(Mutex::new(receiver)), wake: Arc::default(), lease }
    }

    /// As many places as there are free now, at most `wanted`.
    pub fn places(&self, wanted: usize) -> Places<'_> {
        let free = self.sender.capacity().min(wanted);
        // Somebody may have been faster; then the operations wait in the table.
        Places { permits: self.sender.try_reserve_many(free).ok(), lease: self.lease }
    }

    /// Looks for rows that are due at once, because somebody knows of one.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Fills the queue with rows that are due, until `shutdown`.
    ///
    /// # Errors
    /// None: while the database is away it waits.
    pub async fn fill(self, store: Store, shutdown: CancellationToken) -> Result<(), BoxError> {
        let batch = LEASED_MAX.min(self.sender.max_capacity().div_ceil(2));
        // Waiting for places in line with those who take commands: neither starves the other.
        while let Some(Ok(permits)) = shutdown.run_until_cancelled(self.sender.reserve_many(batch)).await {
            let places = Places { permits: Some(permits), lease: self.lease };
            let is_full = match store.lease_due(batch).await {
                Ok(leased) => places.fill(leased) == batch,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "due rows cannot be read");
                    drop(places);
                    false
                }
            };
            // A full load means that there may be more.
            if !is_full {
                let _woken = shutdown.run_until_cancelled(timeout(POLL, self.wake.notified())).await;
            }
        }
        Ok(())
    }

    /// Works off the queue with at most `workers` at once, until `shutdown`; then it finishes what was begun and gives
    /// back what was not.
    ///
    /// # Errors
    /// None while it runs.
    pub async fn work(
        self,
        worker: Worker,
        workers: usize,
        shutdown: CancellationToken,
    ) -> Result<(), BoxError> {
        let mut receiver = self.receiver.lock().await;
        let free = Arc::new(Semaphore::new(workers.max(1)));
        let mut begun = JoinSet::new();
        loop {
            let job = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = begun.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "an attempt panicked; its operation is due again when its lease ends");
                    }
                    continue;
                }
                // In this order: a job that was received is never dropped by the other branches.
                job = next(&mut receiver, &free) => job,
            };
            let Some((job, permit)) = job else { break };
            let worker = worker.clone();
            begun.spawn(async move {
                // A lease that is about to end might be somebody else's before the attempt is over.
                let left = job.leased_until.saturating_duration_since(Instant::now());
                if left < worker.attempt_max() {
                    worker.give_back(&[job.operation.step]).await;
                } else {
                    worker.drive(job.operation).await;
                }
                drop(permit);
            });
        }
        // Operations may be leased at this very moment, by the taker or the filler. Closed, the queue gives them no further
        // place, and it ends when those who have places have filled them or let go.
        receiver.close();
        let mut unbegun: Vec<StepId> = Vec::new();
        while let Some(job) = receiver.recv().await {
            unbegun.push(job.operation.step);
        }
        worker.give_back(&unbegun).await;
        while begun.join_next().await.is_some() {}
        Ok(())
    }
}

impl Places<'_> {
    /// How many.
    pub fn count(&self) -> usize {
        self.permits.as_ref().map_or(0, ExactSizeIterator::len)
    }

    /// Puts operations that were leased just now into their places; the others are free again.
    pub fn fill(self, leased: Vec<Operation>) -> usize {
        let leased_until = Instant::now() + self.lease;
        let filled = self.permits.into_iter().flatten().zip(leased);
        filled.map(|(place, operation)| place.send(Job { operation, leased_until })).count()
    }
}

/// A job and the right to work on it.
async fn next(
    receiver: &mut mpsc::Receiver<Job>,
    free: &Arc<Semaphore>,
) -> Option<(Job, tokio::sync::OwnedSemaphorePermit)> {
    // First the right and then the job: both waits may be dropped without losing anything.
    let permit = Arc::clone(free).acquire_owned().await.ok()?;
    Some((receiver.recv().await?, permit))
}
