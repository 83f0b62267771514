//! Where limit, queue and samples meet: a word of the caller's lane on the fast path, one lock behind it.

use std::sync::PoisonError;
use std::time::Duration;

use stampede_deadline::{Clock, Moment};
use tokio::sync::oneshot;

use crate::acquire::Place;
use crate::limit::Limit;
use crate::queue::{Queue, Ticket, Victim};
use crate::shed::Counts;
use crate::slots::Slots;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::window::{Fill, Window};
use crate::{Permit, Priority, Reason, Sample, Settings, Shed, Snapshot};

/// What a waiter is told. A slot that nobody takes out of it gives itself back.
pub(crate) type Answer = Result<Permit, Shed>;
type Seat = oneshot::Sender<Answer>;

/// The first answer to a request.
pub(crate) enum Admission {
    Granted(Permit),
    Refused(Shed),
    Waits(Place),
}

/// How a service and its calls hold the gate. A service that makes more than one call has a handle of its own: if the
/// calls of all threads were counted in one `Arc`, they would spend most of their time on fighting for that count.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) gate: Arc<Gate>,
    lane: usize,
}

/// The state that all handles share.
#[derive(Debug)]
pub(crate) struct Gate {
    slots: Slots,
    window: Window,
    handles: AtomicUsize,
    ignored: AtomicU64,
    clock: Clock,
    core: Mutex<Core>,
}

/// What only the slow path needs.
#[derive(Debug)]
struct Core {
    queue: Queue<Seat>,
    limit: Limit,
    shed: Counts,
    /// Of windows that are closed.
    successes: u64,
    overloads: u64,
}

/// Answers to waiters. They are sent when the lock is free again, because a waiter's waker may run anything.
#[derive(Default)]
struct Answers(Vec<(Seat, Answer)>);

impl Handle {
    /// The first one of a gate that counts in so many lanes.
    pub(crate) fn new(settings: Settings, clock: Clock, lanes: usize) -> Self {
        Self { gate: Arc::new(Gate::new(settings, clock, lanes)), lane: 0 }
    }

    /// One more, in a lane of its own as long as there are any.
    pub(crate) fn apart(&self) -> Self {
        let nth = self.gate.handles.fetch_add(1, Ordering::Relaxed);
        Self { gate: Arc::clone(&self.gate), lane: nth % self.gate.slots.lanes() }
    }

    #[inline]
    pub(crate) fn admit(handle: &Arc<Self>, class: Priority) -> Admission {
        let Self { gate, lane } = &**handle;
        if gate.slots.try_take(*lane) {
            Admission::Granted(Permit::new(Arc::clone(handle), gate.clock.now()))
        } else {
            Self::admit_by_queue(handle, class)
        }
    }

    #[cold]
    fn admit_by_queue(handle: &Arc<Self>, class: Priority) -> Admission {
        let gate = &handle.gate;
        let mut answers = Answers::default();
        let admission = {
            let mut core = gate.lock();
            let now = gate.clock.now();
            let may_pass = core.queue.is_clear(class) && !core.queue.is_outranked(class, now);
            // Guarded in the step that sees that no slot is free: whoever gives one back after that comes to the lock.
            let admission = if may_pass && gate.slots.guard_and_take() {
                Admission::Granted(Permit::new(Arc::clone(handle), now))
            } else {
                let mut victims = Vec::new();
                let way = core.queue.make_way(class, now, &mut victims);
                core.refuse(victims, &mut answers);
                match way {
                    Err(reason) => Admission::Refused(core.shed(class, reason)),
                    Ok(()) => Admission::Waits(core.join(handle, class, now)),
                }
            };
            gate.settle(&core, now);
            admission
        };
        answers.send();
        admission
    }

    /// A call is over: its slot is given back, or on.
    #[inline]
    pub(crate) fn finish(handle: &Arc<Self>, admitted_at: Moment, sample: Sample) {
        let Self { gate, lane } = &**handle;
        if sample == Sample::Ignore {
            gate.ignored.fetch_add(1, Ordering::Relaxed);
        } else {
            gate.learn(*lane, admitted_at, sample);
        }
        if !gate.slots.try_give_back(*lane) {
            Self::give_back_by_queue(handle);
        }
    }

    #[cold]
    fn give_back_by_queue(handle: &Arc<Self>) {
        let core = handle.gate.lock();
        handle.gate.slots.guard_and_give_back(handle.lane);
        Self::give_on(handle, core);
    }

    pub(crate) fn set_settings(handle: &Arc<Self>, settings: Settings) {
        let mut core = handle.gate.lock();
        core.limit.set_bounds(settings.limits);
        core.queue.set_waiting(settings.waiting);
        handle.gate.slots.set_limit(core.limit.current());
        Self::give_on(handle, core);
    }

    /// Gives every free slot to whom it is due, and lets go of the lock.
    fn give_on(handle: &Arc<Self>, mut core: MutexGuard<'_, Core>) {
        let gate = &handle.gate;
        let (now, mut victims, mut answers) = (gate.clock.now(), Vec::new(), Answers::default());
        while gate.slots.guard()
            && let Some(seat) = core.queue.next(now, &mut victims)
            && gate.slots.guard_and_take()
        {
            answers.0.push((seat, Ok(Permit::new(Arc::clone(handle), now))));
        }
        core.refuse(victims, &mut answers);
        gate.settle(&core, now);
        drop(core);
        answers.send();
    }
}

impl Gate {
    fn new(settings: Settings, clock: Clock, lanes: usize) -> Self {
        let limit = Limit::new(settings.limits);
        let slots = Slots::new(limit.current(), lanes);
        Self {
            window: Window::new(clock.now(), slots.lanes()),
            slots,
            handles: AtomicUsize::new(1),
            ignored: AtomicU64::new(0),
            clock,
            core: Mutex::new(Core {
                queue: Queue::new(settings.waiting),
                limit,
                shed: Counts::default(),
                successes: 0,
                overloads: 0,
            }),
        }
    }

    #[inline]
    fn learn(&self, lane: usize, admitted_at: Moment, sample: Sample) {
        let now = self.clock.now();
        self.window.look(lane, now, || self.slots.in_flight());
        let fill = match sample {
            Sample::Overload => self.window.overload(),
            Sample::Success | Sample::Ignore => self.window.success(lane, now.since(admitted_at)),
        };
        if fill != Fill::Room || self.window.has_ended(now) {
            self.close_window(now, fill);
        }
    }

    #[cold]
    fn close_window(&self, now: Moment, fill: Fill) {
        let core = match fill {
            // Whoever holds the lock looks again in a moment; nobody waits for it only to learn.
            Fill::Room | Fill::Full => self.core.try_lock().ok(),
            Fill::Brimful => Some(self.lock()),
        };
        if let Some(mut core) = core
            && let Some(samples) = self.window.close(now)
        {
            core.successes += u64::from(samples.count);
            core.overloads += u64::from(samples.overloads);
            core.limit.learn(&samples);
            self.slots.set_limit(core.limit.current());
            // Whoever came here has a slot yet to give back, and thereby gives new ones to those who wait.
            self.settle(&core, now);
        }
    }

    /// Opens the way past the queue if there is nothing to decide. Under the lock.
    fn settle(&self, core: &Core, now: Moment) {
        if core.queue.is_idle(now) {
            self.slots.unguard();
        }
    }

    /// A waiter goes by itself.
    pub(crate) fn leave(&self, ticket: Ticket) {
        self.lock().queue.leave(ticket);
    }

    /// A waiter's time is up. It finds the answer where it waits for it, unless another one is on its way there.
    pub(crate) fn expire(&self, ticket: Ticket) {
        let mut answers = Answers::default();
        {
            let mut core = self.lock();
            let mut victims = Vec::new();
            core.queue.expire(ticket, self.clock.now(), &mut victims);
            core.refuse(victims, &mut answers);
        }
        answers.send();
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let core = self.lock();
        let in_flight = self.slots.in_flight();
        let (successes, overloads) = self.window.counts();
        let overloads = core.overloads + overloads;
        let ignored = self.ignored.load(Ordering::Relaxed);
        Snapshot {
            limit: self.slots.limit(),
            in_flight,
            baseline: core.limit.baseline_ns().map(|nanos| Duration::from_nanos(nanos as u64)),
            queued: core.queue.lengths(),
            // Nobody counts on the way in: what is admitted is over, or in flight.
            admitted: core.successes + successes + overloads + ignored + u64::from(in_flight),
            overloads,
            ignored,
            shed: core.shed,
        }
    }

    /// No code of others runs under the lock, so a panic there leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    fn join(&mut self, handle: &Arc<Handle>, class: Priority, now: Moment) -> Place {
        let (seat, answer) = oneshot::channel();
        let (ticket, due) = self.queue.join(class, now, seat);
        Place::new(Arc::clone(handle), ticket, due.since(now), answer)
    }

    fn shed(&mut self, class: Priority, reason: Reason) -> Shed {
        self.shed.add(class, reason);
        Shed::nth(self.shed.total(), class, reason)
    }

    fn refuse(&mut self, victims: Vec<Victim<Seat>>, answers: &mut Answers) {
        for Victim { token, class, reason } in victims {
            let shed = self.shed(class, reason);
            answers.0.push((token, Err(shed)));
        }
    }
}

impl Answers {
    fn send(self) {
        for (seat, answer) in self.0 {
            // A waiter that has just gone hands the answer back; a slot in it goes on to the next as it is dropped.
            drop(seat.send(answer));
        }
    }
}

#[cfg(test)]
#[cfg(stampede_loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests;
