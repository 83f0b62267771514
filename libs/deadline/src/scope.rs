//! The deadline of the running task.

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use tokio::task::futures::TaskLocalFuture;
use tokio::time::Timeout;

use crate::Deadline;

/// The deadline passed before the work was done; the work was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed before there was an answer")]
pub struct Elapsed;

tokio::task_local! {
    static CURRENT: Bound;
}

/// The end of a scope. One that was given as a length begins when somebody first asks for it, so that a call that is
/// answered at once costs no look at the clock.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    end: Cell<Option<Deadline>>,
    length: Duration,
    outer: Option<Deadline>,
}

impl Bound {
    fn at(deadline: Deadline) -> Self {
        Self { end: Cell::new(Some(deadline)), length: Duration::ZERO, outer: None }
    }

    /// So long from the first time that somebody asks, and not beyond the scope around this.
    pub(crate) fn lasting(length: Duration) -> Self {
        Self { end: Cell::new(None), length, outer: current() }
    }

    /// When it ends. From here on that does not change.
    pub(crate) fn end(&self) -> Deadline {
        self.end.get().unwrap_or_else(|| {
            let own = Deadline::after(self.length);
            let end = self.outer.map_or(own, |outer| own.earlier(outer));
            self.end.set(Some(end));
            end
        })
    }

    /// Runs `work` with this as the end of its scope.
    pub(crate) fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), || {
            let done = work();
            // What was settled inside is settled.
            let _ = CURRENT.try_with(|inside| self.end.set(inside.end.get()));
            done
        })
    }
}

/// The deadline of the scope this code runs in. A spawned task does not inherit it: owned background work outlives
/// the request that caused it.
pub fn current() -> Option<Deadline> {
    CURRENT.try_with(Bound::end).ok()
}

/// Runs `work` with [`current`] set to `deadline`, or to the surrounding scope's where that comes first. Nothing is
/// cut off: `work` itself is expected to look.
pub async fn scope<F: Future>(deadline: Deadline, work: F) -> F::Output {
    CURRENT.scope(Bound::at(effective(deadline)), work).await
}

/// Like [`scope`], and drops `work` when the deadline passes before it is done.
///
/// # Errors
/// [`Elapsed`] then. Work that is done in the very moment of the deadline counts as done.
pub async fn within<F: Future>(deadline: Deadline, work: F) -> Result<F::Output, Elapsed> {
    bounded(deadline, work).await.map_err(|_elapsed| Elapsed)
}

/// The future behind [`within`], with a name, for the HTTP service.
pub(crate) type Bounded<F> = Timeout<TaskLocalFuture<Bound, F>>;

pub(crate) fn bounded<F: Future>(deadline: Deadline, work: F) -> Bounded<F> {
    let deadline = effective(deadline);
    tokio::time::timeout_at(deadline.instant(), CURRENT.scope(Bound::at(deadline), work))
}

/// The synchronous form of [`scope`].
pub(crate) fn enter<T>(deadline: Deadline, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(Bound::at(effective(deadline)), work)
}

fn effective(deadline: Deadline) -> Deadline {
    current().map_or(deadline, |outer| deadline.earlier(outer))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn after_ms(millis: u64) -> Deadline {
        Deadline::after(Duration::from_millis(millis))
    }

    #[tokio::test(start_paused = true)]
    async fn outside_of_every_scope_there_is_no_deadline() {
        assert_eq!(current(), None);
        let spawned = scope(after_ms(10), async { tokio::spawn(async { current() }).await.unwrap() }).await;
        assert_eq!(spawned, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_inner_scope_shortens_and_never_extends() {
        let (short, long) = (after_ms(10), after_ms(1_000));
        assert_eq!(scope(long, scope(short, async { current() })).await, Some(short));
        assert_eq!(scope(short, scope(long, async { current() })).await, Some(short));
        assert_eq!(scope(short, async { within(long, async { current() }).await }).await, Ok(Some(short)));
    }

    #[tokio::test(start_paused = true)]
    async fn within_ends_at_the_deadline_and_not_before() {
        let started = tokio::time::Instant::now();
        assert_eq!(within(after_ms(50), std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(started.elapsed(), Duration::from_millis(50));

        let in_time = within(after_ms(50), tokio::time::sleep(Duration::from_millis(49))).await;
        assert_eq!(in_time, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_there_at_once_counts_even_when_the_deadline_has_passed() {
        let deadline = after_ms(1);
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(within(deadline, async { 7 }).await, Ok(7));
    }
}
