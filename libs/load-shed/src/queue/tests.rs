//! The queue beside a naive one that scans lists and remembers everything.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;

const WAITING: Waiting =
    Waiting { target: Duration::from_millis(4), interval: Duration::from_millis(100), queue_max: 5 };

#[derive(Clone, Debug)]
enum Step {
    Arrive(Priority),
    Next,
    Leave(usize),
    Expire(usize),
    Pass(Duration),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let class = (0_u8..CLASSES as u8).prop_map(Priority::new);
    let step = prop_oneof![
        6 => class.prop_map(Step::Arrive),
        4 => Just(Step::Next),
        1 => (0_usize..8).prop_map(Step::Leave),
        1 => (0_usize..8).prop_map(Step::Expire),
        4 => prop_oneof![0_u64..6, 90_u64..110].prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
    ];
    vec(step, 1..120)
}

#[derive(Clone, Copy, Debug)]
struct Person {
    number: u64,
    class: Priority,
    due: Moment,
}

/// Everybody in one list, every shed in another.
#[derive(Default)]
struct Naive {
    people: Vec<Person>,
    sheds: Vec<(Priority, Moment)>,
    since: [Option<Moment>; CLASSES],
    victims: Vec<(u64, Reason)>,
    now: Moment,
}

impl Naive {
    fn shed_within_interval(&self, of: impl Fn(Priority) -> bool) -> bool {
        self.sheds.iter().any(|&(class, at)| of(class) && self.now < at + WAITING.interval)
    }

    fn outranked(&self, class: Priority) -> bool {
        self.shed_within_interval(|other| other < class)
    }

    fn look_again(&mut self) {
        for class in 0..CLASSES {
            let anybody = self.people.iter().any(|person| person.class.index() <= class);
            self.since[class] = anybody.then_some(self.since[class].unwrap_or(self.now));
        }
    }

    fn remove(&mut self, number: u64) -> Option<Person> {
        let place = self.people.iter().position(|person| person.number == number)?;
        let person = self.people.remove(place);
        self.look_again();
        Some(person)
    }

    fn shed(&mut self, class: Priority) {
        self.sheds.push((class, self.now));
        let below: Vec<_> = self.people.iter().copied().filter(|person| person.class > class).collect();
        for person in below {
            self.remove(person.number);
            self.sheds.push((person.class, self.now));
            self.victims.push((person.number, Reason::Outranked));
        }
    }

    fn shed_person(&mut self, person: Person, reason: Reason) {
        self.remove(person.number);
        self.victims.push((person.number, reason));
        self.shed(person.class);
    }

    fn arrive(&mut self, class: Priority, number: u64) -> Result<Moment, Reason> {
        if self.outranked(class) {
            self.shed(class);
            return Err(Reason::Outranked);
        }
        if self.people.len() >= WAITING.queue_max {
            // The least urgent, and of those the newest.
            match self.people.iter().copied().max_by_key(|person| (person.class, person.number)) {
                Some(last) if last.class > class => self.shed_person(last, Reason::Full),
                _ => {
                    self.shed(class);
                    return Err(Reason::Full);
                }
            }
        }
        let soon = self.now + WAITING.target;
        let due = match self.since[class.index()] {
            None => self.now + WAITING.interval,
            Some(_) if self.shed_within_interval(|other| other <= class) => soon,
            Some(since) => soon.max(since + WAITING.interval),
        };
        self.people.push(Person { number, class, due });
        self.look_again();
        Ok(due)
    }

    fn next(&mut self) -> Option<Person> {
        loop {
            let first = self.people.iter().copied().min_by_key(|person| (person.class, person.number))?;
            if self.now < first.due {
                return self.remove(first.number);
            }
            self.shed_person(first, Reason::Late);
        }
    }
}

/// Victims in an order that both have.
fn sorted(mut victims: Vec<(u64, Reason)>) -> Vec<(u64, Reason)> {
    victims.sort_by_key(|&(number, _)| number);
    victims
}

proptest! {
    #[test]
    fn it_decides_as_the_naive_queue_does(steps in steps()) {
        let (mut queue, mut naive) = (Queue::new(WAITING), Naive::default());
        let mut tickets = Vec::new();
        // The clock of a process that has been up for a while.
        naive.now = Moment::from_nanos(1_000_000_000);
        for step in steps {
            let (now, mut victims) = (naive.now, Vec::new());
            match step {
                Step::Pass(time) => naive.now = now + time,
                Step::Arrive(class) => {
                    let number = tickets.len() as u64;
                    let expected = naive.arrive(class, number);
                    let joined = queue.make_way(class, now, &mut victims).map(|()| queue.join(class, now, number));
                    prop_assert_eq!(joined.map(|(_, due)| due), expected);
                    if let Ok((ticket, _)) = joined {
                        tickets.push(ticket);
                    }
                }
                Step::Next => {
                    let expected = naive.next();
                    prop_assert_eq!(queue.next(now, &mut victims), expected.map(|person| person.number));
                    if let Some(person) = expected {
                        prop_assert!(!naive.outranked(person.class), "{:?} was admitted", person);
                    }
                }
                Step::Leave(which) => if let Some(&ticket) = tickets.iter().rev().nth(which) {
                    let expected = naive.remove(ticket.number).map(|person| person.number);
                    prop_assert_eq!(queue.leave(ticket), expected);
                },
                Step::Expire(which) => if let Some(&ticket) = tickets.iter().rev().nth(which) {
                    if let Some(&person) = naive.people.iter().find(|person| person.number == ticket.number) {
                        naive.shed_person(person, Reason::Late);
                    }
                    queue.expire(ticket, now, &mut victims);
                },
            }
            let victims = victims.iter().map(|victim| (victim.token, victim.reason)).collect();
            prop_assert_eq!(sorted(victims), sorted(std::mem::take(&mut naive.victims)));
            for class in Priority::MOST_URGENT.and_below() {
                prop_assert_eq!(queue.is_outranked(class, naive.now), naive.outranked(class));
                prop_assert_eq!(queue.is_clear(class), naive.since[class.index()].is_none());
            }
            prop_assert_eq!(queue.lengths().iter().sum::<usize>(), naive.people.len());
            prop_assert!(naive.people.len() <= WAITING.queue_max);
        }
    }
}

fn at(millis: u64) -> Moment {
    Moment::from_nanos(1_000_000_000) + Duration::from_millis(millis)
}

#[test]
fn a_burst_may_wait_and_a_standing_queue_may_not() {
    let (class, mut queue) = (Priority::new(1), Queue::new(WAITING));
    assert_eq!(queue.join(class, at(0), 'a').1, at(100));
    assert_eq!(queue.join(class, at(50), 'b').1, at(100), "no later than when the queue counts as standing");
    assert_eq!(queue.join(class, at(150), 'c').1, at(154));

    let mut victims = Vec::new();
    assert_eq!(queue.next(at(152), &mut victims), Some('c'));
    let late: Vec<_> = victims.iter().map(|victim| (victim.token, victim.reason)).collect();
    assert_eq!(late, [('a', Reason::Late), ('b', Reason::Late)]);

    // Empty for a moment, but shed within the interval: whoever is alone may wait, and nobody behind.
    assert_eq!(queue.join(class, at(153), 'd').1, at(253));
    assert_eq!(queue.join(class, at(154), 'e').1, at(158));
}

#[test]
fn the_urgent_do_not_see_the_queue_of_the_others() {
    let mut queue = Queue::new(WAITING);
    queue.join(Priority::LEAST_URGENT, at(0), 'a');
    assert_eq!(queue.join(Priority::MOST_URGENT, at(500), 'b').1, at(600));
    assert_eq!(queue.join(Priority::LEAST_URGENT, at(500), 'c').1, at(504));
}
