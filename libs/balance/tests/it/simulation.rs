//! Two choices beside one at random and turn by turn, in front of simulated replicas in virtual time: each serves one
//! call after the other.

use std::collections::VecDeque;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use stampede_balance::{Balancer, Outcome, Pick};

use crate::balancer;

const REPLICAS: u8 = 10;
const CALLS: u32 = 30_000;

enum Router {
    Random(SmallRng),
    RoundRobin(u8),
    TwoChoices(Balancer<u8>),
}

impl Router {
    fn all() -> [Self; 3] {
        let random = Self::Random(SmallRng::seed_from_u64(1));
        [random, Self::RoundRobin(0), Self::TwoChoices(balancer(REPLICAS))]
    }

    fn route(&mut self) -> (u8, Option<Pick<u8>>) {
        match self {
            Self::Random(rng) => (rng.random_range(0..REPLICAS), None),
            Self::RoundRobin(last) => {
                *last = (*last + 1) % REPLICAS;
                (*last, None)
            }
            Self::TwoChoices(balancer) => {
                let pick = balancer.pick(&[]).unwrap();
                (*pick.replica(), Some(pick))
            }
        }
    }
}

/// The calls that a replica has not served yet, and when it will have.
type Queue = VecDeque<(f64, Option<Pick<u8>>)>;

struct Served {
    /// By each replica.
    calls: [u32; REPLICAS as usize],
    /// The most calls that were at one replica at a time.
    longest: usize,
}

/// Calls that come at random times, on an average one in `1 / load` milliseconds, to replicas that take so many
/// milliseconds a call on an average.
fn serve(mut router: Router, load: f64, takes: [f64; REPLICAS as usize]) -> Served {
    let mut weather = SmallRng::seed_from_u64(3);
    let mut exponential = |mean: f64| -mean * (1.0 - weather.random::<f64>()).ln();
    let mut queues: [Queue; REPLICAS as usize] = Default::default();
    let mut served = Served { calls: [0; _], longest: 0 };
    let mut now = 0.0;
    for _ in 0..CALLS {
        now += exponential(1.0 / load);
        for queue in &mut queues {
            while queue.front().is_some_and(|(ends, _)| *ends <= now) {
                if let Some((_, Some(pick))) = queue.pop_front() {
                    pick.record(Outcome::Success);
                }
            }
        }
        let (replica, pick) = router.route();
        let replica = usize::from(replica);
        let begins = queues[replica].back().map_or(now, |(ends, _)| *ends);
        queues[replica].push_back((begins + exponential(takes[replica]), pick));
        served.calls[replica] += 1;
        served.longest = served.longest.max(queues[replica].len());
    }
    served
}

#[test]
fn a_slow_replica_gets_less_work() {
    let mut takes = [10.0; REPLICAS as usize];
    takes[0] = 100.0;
    // A little more than half of what all of them can do; a tenth of it is five times what the slow one can.
    let [random, round_robin, two_choices] = Router::all().map(|router| serve(router, 0.5, takes));
    for (name, blind) in [("random", random), ("round robin", round_robin)] {
        assert!(blind.calls[0] > CALLS / 11, "{name}: a tenth of the work");
        assert!(blind.longest > 30 * two_choices.longest, "{name}: {}", blind.longest);
    }
    let others = two_choices.calls[1..].iter().sum::<u32>() / 9;
    assert!(two_choices.calls[0] * 3 < others, "{:?}", two_choices.calls);
    assert!(two_choices.longest < 12, "{}", two_choices.longest);
}

#[test]
fn the_longest_queue_of_equals_is_short() {
    let takes = [10.0; REPLICAS as usize];
    let [random, round_robin, two_choices] = Router::all().map(|router| serve(router, 0.9, takes));
    let longest = two_choices.longest;
    assert!(random.longest > 3 * longest, "{longest} and {}", random.longest);
    assert!(2 * round_robin.longest > 3 * longest, "{longest} and {}", round_robin.longest);
    assert!(longest < 20, "{longest}");
}
