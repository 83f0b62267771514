//! The places of one destination.

use std::fmt;
use std::future::Future;
use std::num::NonZero;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::thread::available_parallelism;
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tracing::field;
use tracing::instrument::{Instrument, Instrumented};

use crate::Refused;
use crate::permits::{Home, Permits, Ticket, Turn};

/// How many calls run and wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkheadSettings {
    /// Calls that run at the same time, at least 1.
    pub places: u32,
    /// Calls that wait for a place; 0 refuses at once.
    pub waiting_max: usize,
    /// The longest wait for a place.
    pub wait_max: Duration,
}

/// A bulkhead nobody gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a bulkhead has at least one place")]
pub struct InvalidBulkhead;

impl BulkheadSettings {
    /// Whether there is a place at all.
    ///
    /// # Errors
    /// [`InvalidBulkhead`] without a place.
    pub fn check(&self) -> Result<(), InvalidBulkhead> {
        if self.places == 0 { Err(InvalidBulkhead) } else { Ok(()) }
    }
}

/// So many calls at a time, and a bounded queue. A handle: clones share the places.
#[derive(Clone)]
pub struct Bulkhead(Arc<Handle>);

/// More cores than this share the words in which places are counted: whoever finds no place in one looks at them all.
const CORES_MAX: usize = 8;

/// How a service and its calls hold the places. A service that makes more than one call has a handle of its own: if the
/// calls of all threads were counted in one `Arc`, they would spend most of their time on fighting for that count.
struct Handle {
    state: Arc<State>,
    home: Home,
}

struct State {
    permits: Permits,
    handles: AtomicUsize,
    places: AtomicU32,
    waiting_max: AtomicUsize,
    wait_max_ns: AtomicU64,
    full: AtomicU64,
    timed_out: AtomicU64,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// How many places there are.
    pub places: u32,
    /// How many of them are taken; more than there are, for a while, after places were taken away.
    pub taken: u32,
    /// How many calls wait for one.
    pub waiting: usize,
    /// Calls that were refused because the queue was full, since the start.
    pub refused_full: u64,
    /// Calls that waited in vain, since the start.
    pub refused_timed_out: u64,
}

impl Bulkhead {
    /// With all places free.
    ///
    /// # Errors
    /// [`InvalidBulkhead`] without a place.
    pub fn try_new(settings: BulkheadSettings) -> Result<Self, InvalidBulkhead> {
        settings.check()?;
        let BulkheadSettings { places, waiting_max, wait_max } = settings;
        let state = State {
            permits: Permits::new(places, available_parallelism().map_or(1, NonZero::get).min(CORES_MAX)),
            handles: AtomicUsize::new(1),
            places: AtomicU32::new(places),
            waiting_max: AtomicUsize::new(waiting_max),
            wait_max_ns: AtomicU64::new(nanos(wait_max)),
            full: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
        };
        let home = state.permits.home(0);
        Ok(Self(Arc::new(Handle { state: Arc::new(state), home })))
    }

    /// A place, if one is free and nobody waits for it.
    pub fn try_acquire(&self) -> Option<Permit> {
        self.0.state.permits.try_take(&self.0.home).then(|| Permit(Arc::clone(&self.0)))
    }

    /// A place; waits its turn, first come, first served.
    pub fn acquire(&self) -> Acquire {
        Acquire { handle: Arc::clone(&self.0), ticket: None, patience: None }
    }

    /// Other settings, for calls that begin from now on; calls in the queue keep the wait they began with. More places are
    /// there immediately, fewer as calls end.
    ///
    /// # Errors
    /// [`InvalidBulkhead`] without a place; then nothing changes.
    pub fn set_settings(&self, settings: BulkheadSettings) -> Result<(), InvalidBulkhead> {
        settings.check()?;
        let State { permits, places, waiting_max, wait_max_ns, .. } = &*self.0.state;
        waiting_max.store(settings.waiting_max, Ordering::Relaxed);
        wait_max_ns.store(nanos(settings.wait_max), Ordering::Relaxed);
        let before = places.swap(settings.places, Ordering::Relaxed);
        if settings.places > before {
            permits.add(settings.places - before);
        } else {
            permits.remove(before - settings.places);
        }
        Ok(())
    }

    /// How it stands now; the numbers may be a moment apart.
    pub fn snapshot(&self) -> Snapshot {
        let State { permits, places, full, timed_out, .. } = &*self.0.state;
        let places = places.load(Ordering::Relaxed);
        Snapshot {
            places,
            taken: places.saturating_add(permits.surplus()).saturating_sub(permits.free()),
            waiting: permits.waiting(),
            refused_full: full.load(Ordering::Relaxed),
            refused_timed_out: timed_out.load(Ordering::Relaxed),
        }
    }

    /// The same through a handle of its own.
    pub(crate) fn apart(&self) -> Self {
        let state = Arc::clone(&self.0.state);
        let home = state.permits.home(state.handles.fetch_add(1, Ordering::Relaxed));
        Self(Arc::new(Handle { state, home }))
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A taken place; free again when this is dropped.
pub struct Permit(Arc<Handle>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.state.permits.give_back(&self.0.home);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

pin_project! {
    /// Waits for a place. Dropped, it leaves the queue without a trace.
    pub struct Acquire {
        handle: Arc<Handle>,
        ticket: Option<Ticket>,
        #[pin]
        patience: Option<Instrumented<Sleep>>,
    }

    impl PinnedDrop for Acquire {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(ticket) = this.ticket.take() {
                this.handle.state.permits.leave(&this.handle.home, ticket);
            }
        }
    }
}

impl Future for Acquire {
    type Output = Result<Permit, Refused>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let state = &*this.handle.state;
        let permit = || Permit(Arc::clone(this.handle));
        if let Some(ticket) = *this.ticket {
            if state.permits.turn(ticket, cx.waker()) == Turn::Granted {
                *this.ticket = None;
                return Poll::Ready(Ok(permit()));
            }
        } else if state.permits.try_take(&this.handle.home) {
            return Poll::Ready(Ok(permit()));
        } else {
            match state.permits.join(state.waiting_max.load(Ordering::Relaxed), cx.waker()) {
                Ok(None) => return Poll::Ready(Ok(permit())),
                Ok(Some(ticket)) => *this.ticket = Some(ticket),
                Err(()) => {
                    state.full.fetch_add(1, Ordering::Relaxed);
                    drop(tracing::info_span!("bulkhead full", otel.status_code = "ERROR"));
                    return Poll::Ready(Err(Refused::Full));
                }
            }
            let span = tracing::info_span!("bulkhead wait", otel.status_code = field::Empty);
            let wait_max = Duration::from_nanos(state.wait_max_ns.load(Ordering::Relaxed));
            this.patience.set(Some(sleep(wait_max).instrument(span)));
        }
        let Some(mut patience) = this.patience.as_mut().as_pin_mut() else { return Poll::Pending };
        ready!(patience.as_mut().poll(cx));
        patience.span().record("otel.status_code", "ERROR");
        state.timed_out.fetch_add(1, Ordering::Relaxed);
        if let Some(ticket) = this.ticket.take() {
            state.permits.leave(&this.handle.home, ticket);
        }
        Poll::Ready(Err(Refused::TimedOut))
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("waiting", &self.ticket.is_some()).finish_non_exhaustive()
    }
}
