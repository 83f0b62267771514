//! The deadline of whatever runs now.
//!
//! A future that has a deadline puts it into a thread local for as long as it is polled. That is what tokio's task
//! locals do as well; here the value is two words that need no destructor, which makes it four times as cheap.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

use crate::Deadline;

/// The deadline passed before the work was done; the work was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed before there was an answer")]
pub struct Elapsed;

thread_local! {
    static CURRENT: Current = const { Current { end: Cell::new(None), length: Cell::new(None) } };
}

/// The bound of whatever runs now. Two cells, because one would be copied in wider pieces than it was written, which
/// processors dislike.
struct Current {
    end: Cell<Option<Deadline>>,
    length: Cell<Option<NonZeroU64>>,
}

impl Current {
    #[inline]
    fn replace(&self, bound: Bound) -> Bound {
        Bound { end: self.end.replace(bound.end), length: self.length.replace(bound.length) }
    }

    /// The deadline; from here on it does not change.
    #[inline]
    fn deadline(&self) -> Option<Deadline> {
        if self.length.get().is_none() {
            return self.end.get();
        }
        let mut bound = Bound { end: self.end.get(), length: self.length.get() };
        let end = bound.settle();
        self.replace(bound);
        end
    }
}

/// The end of a scope. With a `length`, in nanoseconds, it is still open: so long from when somebody first asks, and not
/// beyond `end`. So a call that is answered at once costs no look at the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    end: Option<Deadline>,
    length: Option<NonZeroU64>,
}

impl Bound {
    #[inline]
    const fn until(deadline: Deadline) -> Self {
        Self { end: Some(deadline), length: None }
    }

    /// Not beyond the scope around it.
    #[inline]
    fn shorten(&mut self) {
        if let Some(outer) = current() {
            self.end = Some(self.end.map_or(outer, |own| own.earlier(outer)));
        }
    }

    #[inline]
    pub(crate) fn lasting(length: NonZeroU64) -> Self {
        Self { end: current(), length: Some(length) }
    }

    /// When it ends. From here on that does not change.
    #[inline]
    fn settle(&mut self) -> Option<Deadline> {
        if let Some(length) = self.length.take() {
            let own = Deadline::after(Duration::from_nanos(length.get()));
            self.end = Some(self.end.map_or(own, |outer| own.earlier(outer)));
        }
        self.end
    }

    /// Runs `work` with this as the end of its scope. What is settled inside stays settled.
    #[inline]
    pub(crate) fn enter<T>(&mut self, work: impl FnOnce() -> T) -> T {
        CURRENT.with(|current| {
            let _inside = Inside { current, outside: current.replace(*self), bound: self };
            work()
        })
    }
}

/// While it lives a bound is the current one; afterwards, whatever happened, the one before is.
struct Inside<'a> {
    current: &'a Current,
    outside: Bound,
    bound: &'a mut Bound,
}

impl Drop for Inside<'_> {
    #[inline]
    fn drop(&mut self) {
        *self.bound = self.current.replace(self.outside);
    }
}

/// The deadline of the scope this code runs in. A spawned task does not inherit it: owned background work outlives
/// the request that caused it.
#[inline]
pub fn current() -> Option<Deadline> {
    CURRENT.with(Current::deadline)
}

/// Runs `work` with [`current`] set to `deadline`, or to the surrounding scope's where that comes first. Nothing is
/// cut off: `work` itself is expected to look.
pub fn scope<F: Future>(deadline: Deadline, work: F) -> Scope<F> {
    Scope { work, state: State::new(Bound::until(deadline)) }
}

/// Like [`scope`], and drops `work` when the deadline passes before it is done.
///
/// # Errors
/// [`Elapsed`] then. Work that is done in the very moment of the deadline counts as done.
pub fn within<F: Future>(deadline: Deadline, work: F) -> Within<F> {
    Within { work, state: State::new(Bound::until(deadline)), timer: None }
}

/// Where a future is made says nothing: the scope around it is the one in which it is first polled.
#[derive(Clone, Copy, Debug)]
struct State {
    bound: Bound,
    is_entered: bool,
}

impl State {
    #[inline]
    const fn new(bound: Bound) -> Self {
        Self { bound, is_entered: false }
    }

    #[inline]
    fn bound(&mut self) -> &mut Bound {
        if !self.is_entered {
            self.is_entered = true;
            self.bound.shorten();
        }
        &mut self.bound
    }
}

pin_project! {
    /// Made by [`scope`].
    pub struct Scope<F> {
        #[pin]
        work: F,
        state: State,
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.state.bound().enter(|| this.work.poll(cx))
    }
}

pin_project! {
    /// Made by [`within`].
    pub struct Within<F> {
        #[pin]
        work: F,
        state: State,
        #[pin]
        timer: Option<Sleep>,
    }
}

impl<F: Future> Within<F> {
    pub(crate) fn lasting(bound: Bound, work: F) -> Self {
        Self { work, state: State::new(bound), timer: None }
    }
}

impl<F: Future> Future for Within<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(done) = this.state.bound().enter(|| this.work.poll(cx)) {
            return Poll::Ready(Ok(done));
        }
        if this.timer.is_none() {
            this.timer.set(this.state.bound().settle().map(|end| sleep_until(end.instant())));
        }
        let Some(timer) = this.timer.as_pin_mut() else { return Poll::Pending };
        ready!(timer.poll(cx));
        Poll::Ready(Err(Elapsed))
    }
}

impl<F> fmt::Debug for Scope<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("state", &self.state).finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for Within<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Within").field("state", &self.state).finish_non_exhaustive()
    }
}

/// The synchronous form of [`scope`].
pub(crate) fn enter<T>(deadline: Deadline, work: impl FnOnce() -> T) -> T {
    let mut bound = Bound::until(deadline);
    bound.shorten();
    bound.enter(work)
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
    async fn a_panic_leaves_no_deadline_behind() {
        let panic = std::panic::AssertUnwindSafe(scope(after_ms(10), async { panic!("as it was asked to") }));
        assert!(futures::FutureExt::catch_unwind(panic).await.is_err());
        assert_eq!(current(), None);
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
