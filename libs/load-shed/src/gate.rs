//! Where limit, queue and samples meet: one word on the fast path, one lock behind it.

use std::sync::PoisonError;
use std::time::Duration;

use stampede_deadline::{Clock, Moment};
use tokio::sync::oneshot;

use crate::acquire::Place;
use crate::limit::Limit;
use crate::queue::{Queue, Ticket, Victim};
use crate::shed::Counts;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, OwnLine};
use crate::window::{Fill, Window};
use crate::word::Word;
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

/// The state that all clones share.
#[derive(Debug)]
pub(crate) struct Gate {
    word: OwnLine<Word>,
    window: Window,
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

impl Gate {
    pub(crate) fn new(settings: Settings, clock: Clock) -> Self {
        let limit = Limit::new(settings.limits);
        Self {
            word: OwnLine(Word::new(limit.current())),
            window: Window::new(clock.now()),
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

    pub(crate) fn admit(gate: &Arc<Self>, class: Priority) -> Admission {
        if gate.word.try_take() {
            Admission::Granted(Permit::new(Arc::clone(gate), gate.clock.now()))
        } else {
            Self::admit_by_queue(gate, class)
        }
    }

    fn admit_by_queue(gate: &Arc<Self>, class: Priority) -> Admission {
        let mut answers = Answers::default();
        let admission = {
            let mut core = gate.lock();
            let now = gate.clock.now();
            if core.queue.is_idle(now) {
                gate.word.unguard();
            }
            let may_pass = core.queue.is_clear(class) && !core.queue.is_outranked(class, now);
            if may_pass && gate.word.take_or_guard() {
                Admission::Granted(Permit::new(Arc::clone(gate), now))
            } else {
                let mut victims = Vec::new();
                let way = core.queue.make_way(class, now, &mut victims);
                core.refuse(victims, &mut answers);
                match way {
                    Err(reason) => Admission::Refused(core.shed(class, reason)),
                    Ok(()) => Admission::Waits(core.join(gate, class, now)),
                }
            }
        };
        answers.send();
        admission
    }

    /// A call is over: its slot is given back, or on.
    pub(crate) fn finish(gate: &Arc<Self>, admitted_at: Moment, sample: Sample) {
        // What was before tells all there is to know; loads of words that others write cost as much as writing them.
        let before = gate.word.give_back();
        if sample == Sample::Ignore {
            gate.ignored.fetch_add(1, Ordering::Relaxed);
        } else {
            gate.learn(admitted_at, sample, before.in_flight());
        }
        if before.is_guarded() {
            Self::give_on(gate);
        }
    }

    fn learn(&self, admitted_at: Moment, sample: Sample, in_flight: u32) {
        let now = self.clock.now();
        self.window.concurrency(in_flight);
        let fill = match sample {
            Sample::Overload => self.window.overload(),
            Sample::Success | Sample::Ignore => self.window.success(now.since(admitted_at)),
        };
        if fill != Fill::Room || self.window.has_ended(now) {
            self.close_window(now, fill);
        }
    }

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
            self.word.set_limit(core.limit.current());
        }
    }

    /// Gives every free slot to whom it is due.
    fn give_on(gate: &Arc<Self>) {
        let mut answers = Answers::default();
        {
            let mut core = gate.lock();
            let now = gate.clock.now();
            let mut victims = Vec::new();
            while gate.word.state().has_room() {
                let Some(seat) = core.queue.next(now, &mut victims) else { break };
                gate.word.take();
                answers.0.push((seat, Ok(Permit::new(Arc::clone(gate), now))));
            }
            core.refuse(victims, &mut answers);
            if core.queue.is_idle(now) {
                gate.word.unguard();
            }
        }
        answers.send();
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

    pub(crate) fn set_settings(gate: &Arc<Self>, settings: Settings) {
        {
            let mut core = gate.lock();
            core.limit.set_bounds(settings.limits);
            core.queue.set_waiting(settings.waiting);
            gate.word.set_limit(core.limit.current());
        }
        Self::give_on(gate);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let core = self.lock();
        let state = self.word.state();
        let (successes, overloads) = self.window.counts();
        let overloads = core.overloads + overloads;
        let ignored = self.ignored.load(Ordering::Relaxed);
        Snapshot {
            limit: state.limit(),
            in_flight: state.in_flight(),
            baseline: core.limit.baseline_ns().map(|nanos| Duration::from_nanos(nanos as u64)),
            queued: core.queue.lengths(),
            // Nobody counts on the way in: what is admitted is over, or in flight.
            admitted: core.successes + successes + overloads + ignored + u64::from(state.in_flight()),
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
    fn join(&mut self, gate: &Arc<Gate>, class: Priority, now: Moment) -> Place {
        let (seat, answer) = oneshot::channel();
        let (ticket, due) = self.queue.join(class, now, seat);
        Place::new(Arc::clone(gate), ticket, due.since(now), answer)
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
