//! Who waits, for how long, and who is sent away: a plain state machine that is handed the time.
//!
//! One line per class, each first in, first out. The rule for how long is CoDel's in its form for servers (B. Maurer,
//! "Fail at Scale", ACM Queue 2015, after K. Nichols and V. Jacobson, "Controlling Queue Delay", ACM Queue 2012): a
//! queue that was empty a moment ago is a burst and may wait, one that stands is an overload and may not. The rule for
//! who is DAGOR's (H. Zhou et al., "Overload Control for Scaling WeChat Microservices", SoCC 2018): by priority alone.

use std::collections::VecDeque;

use stampede_deadline::Moment;

use crate::{CLASSES, Priority, Reason, Waiting};

/// Finds a waiter again. Tickets of one line only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    number: u64,
    pub class: Priority,
}

/// Somebody who was sent away.
#[derive(Debug, PartialEq)]
pub(crate) struct Victim<T> {
    pub token: T,
    pub class: Priority,
    pub reason: Reason,
}

#[derive(Debug)]
struct Waiter<T> {
    number: u64,
    due: Moment,
    token: T,
}

/// The lines of waiters, each known by a token.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    waiting: Waiting,
    lines: [VecDeque<Waiter<T>>; CLASSES],
    /// Since when there has always been a waiter of this class or a more urgent one, which is the queue as this class
    /// sees it.
    standing_since: [Option<Moment>; CLASSES],
    /// When the last one of this class was shed, plus the interval.
    shed_until: [Moment; CLASSES],
    next_number: u64,
}

impl<T> Queue<T> {
    pub(crate) fn new(waiting: Waiting) -> Self {
        Self {
            waiting,
            lines: [const { VecDeque::new() }; CLASSES],
            standing_since: [None; CLASSES],
            shed_until: [Moment::default(); CLASSES],
            next_number: 0,
        }
    }

    /// Other settings, for those who come from now on.
    pub(crate) fn set_waiting(&mut self, waiting: Waiting) {
        self.waiting = waiting;
    }

    /// How many wait, by class.
    pub(crate) fn lengths(&self) -> [usize; CLASSES] {
        std::array::from_fn(|class| self.lines[class].len())
    }

    /// Whether nobody waits whom one of this class must not overtake.
    pub(crate) fn is_clear(&self, class: Priority) -> bool {
        self.lines[..=class.index()].iter().all(VecDeque::is_empty)
    }

    /// Whether a more urgent class was shed within the interval: then this one must not be admitted.
    pub(crate) fn is_outranked(&self, class: Priority, now: Moment) -> bool {
        self.shed_until[..class.index()].iter().any(|&until| now < until)
    }

    /// Whether there is nothing to decide: nobody waits and no class is kept out.
    pub(crate) fn is_idle(&self, now: Moment) -> bool {
        self.is_clear(Priority::LEAST_URGENT) && !self.is_outranked(Priority::LEAST_URGENT, now)
    }

    /// Whether somebody who found no slot may [`join`](Self::join). Who has to go for that, or because of the refusal,
    /// is added to `victims`.
    pub(crate) fn make_way(
        &mut self,
        class: Priority,
        now: Moment,
        victims: &mut Vec<Victim<T>>,
    ) -> Result<(), Reason> {
        let reason = if self.is_outranked(class, now) {
            Reason::Outranked
        } else if self.is_full() && !self.push_out_for(class, now, victims) {
            Reason::Full
        } else {
            return Ok(());
        };
        self.note_shed(class, now, victims);
        Err(reason)
    }

    /// Somebody waits from now on, until the moment that is answered.
    pub(crate) fn join(&mut self, class: Priority, now: Moment, token: T) -> (Ticket, Moment) {
        let due = self.due(class, now);
        let number = self.next_number;
        self.next_number += 1;
        self.lines[class.index()].push_back(Waiter { number, due, token });
        for seen_by in class.and_below() {
            self.standing_since[seen_by.index()].get_or_insert(now);
        }
        (Ticket { number, class }, due)
    }

    /// Who gets the slot that is free now. Those who waited too long are added to `victims`.
    pub(crate) fn next(&mut self, now: Moment, victims: &mut Vec<Victim<T>>) -> Option<T> {
        for class in Priority::MOST_URGENT.and_below() {
            while let Some(waiter) = self.lines[class.index()].pop_front() {
                self.forget_what_is_empty();
                if now < waiter.due {
                    return Some(waiter.token);
                }
                victims.push(Victim { token: waiter.token, class, reason: Reason::Late });
                self.note_shed(class, now, victims);
            }
        }
        None
    }

    /// A waiter gives up by itself; nothing follows from that. `None` if it had been decided about already.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let line = &mut self.lines[ticket.class.index()];
        let place = line.binary_search_by_key(&ticket.number, |waiter| waiter.number).ok()?;
        let waiter = line.remove(place)?;
        self.forget_what_is_empty();
        Some(waiter.token)
    }

    /// A waiter's time is up: it becomes a victim, unless it had been decided about already.
    pub(crate) fn expire(&mut self, ticket: Ticket, now: Moment, victims: &mut Vec<Victim<T>>) {
        if let Some(token) = self.leave(ticket) {
            victims.push(Victim { token, class: ticket.class, reason: Reason::Late });
            self.note_shed(ticket.class, now, victims);
        }
    }

    /// How long somebody of this class may wait who comes now.
    fn due(&self, class: Priority, now: Moment) -> Moment {
        let patient = match self.standing_since[class.index()] {
            // Whoever is alone in the queue waits for a single slot. CoDel, too, never drops the last packet.
            None => return now + self.waiting.interval,
            Some(since) => since + self.waiting.interval,
        };
        let soon = now + self.waiting.target;
        // A queue that ran empty for a moment in the middle of an overload is no new burst.
        let overloaded = self.shed_until[..=class.index()].iter().any(|&until| now < until);
        if overloaded { soon } else { soon.max(patient) }
    }

    fn is_full(&self) -> bool {
        self.lines.iter().map(VecDeque::len).sum::<usize>() >= self.waiting.queue_max
    }

    /// Pushes out the newest waiter of the least urgent class, if it is less urgent than `class`.
    fn push_out_for(&mut self, class: Priority, now: Moment, victims: &mut Vec<Victim<T>>) -> bool {
        let Some(last) =
            Priority::MOST_URGENT.and_below().filter(|&of| !self.lines[of.index()].is_empty()).last()
        else {
            return false;
        };
        if last <= class {
            return false;
        }
        if let Some(waiter) = self.lines[last.index()].pop_back() {
            victims.push(Victim { token: waiter.token, class: last, reason: Reason::Full });
            self.note_shed(last, now, victims);
            self.forget_what_is_empty();
        }
        true
    }

    /// One of `class` is shed, so everybody less urgent goes as well and is kept out for an interval.
    fn note_shed(&mut self, class: Priority, now: Moment, victims: &mut Vec<Victim<T>>) {
        self.shed_until[class.index()] = now + self.waiting.interval;
        for below in class.and_below().skip(1) {
            for waiter in std::mem::take(&mut self.lines[below.index()]) {
                victims.push(Victim { token: waiter.token, class: below, reason: Reason::Outranked });
                self.shed_until[below.index()] = now + self.waiting.interval;
            }
        }
        self.forget_what_is_empty();
    }

    fn forget_what_is_empty(&mut self) {
        for class in Priority::MOST_URGENT.and_below() {
            if self.is_clear(class) {
                self.standing_since[class.index()] = None;
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests;
