//! The limit in front of a simulated server, in virtual time: `workers` serve one call each, further ones queue.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const WINDOW_NS: u64 = 100_000_000;
const MILLI: u64 = 1_000_000;

struct Simulation {
    limit: Limit,
    now: u64,
    free_at: BinaryHeap<Reverse<u64>>,
    running: BinaryHeap<Reverse<(u64, u64)>>,
    service_ns: u64,
    /// Of a thousand calls, so many fail at once with an error of the application.
    errors: u64,
    random: u64,
}

impl Simulation {
    fn new(workers: usize, service_ms: u64) -> Self {
        Self {
            limit: Limit::new(Limits { min: 1, initial: 20, max: 1_000 }),
            now: 0,
            free_at: std::iter::repeat_n(Reverse(0), workers).collect(),
            running: BinaryHeap::new(),
            service_ns: service_ms * MILLI,
            errors: 0,
            random: 7,
        }
    }

    /// xorshift64*, good enough for weather.
    fn random_below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    /// Calls spread between half and one and a half of the service time.
    fn start(&mut self) {
        if self.random_below(1_000) < self.errors {
            self.running.push(Reverse((self.now + MILLI / 10, u64::MAX)));
            return;
        }
        let Reverse(free) = self.free_at.pop().expect("there are workers");
        let begins = free.max(self.now);
        let ends = begins + self.service_ns / 2 + self.random_below(self.service_ns);
        self.free_at.push(Reverse(ends));
        self.running.push(Reverse((ends, self.now)));
    }

    /// One window with never more than `demand` calls at a time; answers how many were served.
    fn window(&mut self, demand: u32) -> u32 {
        let until = self.now + WINDOW_NS;
        let (mut samples, mut sum) = (Samples::default(), 0_u64);
        while self.now < until {
            while self.running.len() < self.limit.current().min(demand) as usize {
                self.start();
            }
            samples.peak = samples.peak.max(self.running.len() as u32);
            let Some(Reverse((ends, started))) = self.running.pop() else { break };
            self.now = ends;
            if started != u64::MAX {
                samples.count += 1;
                sum += ends - started;
            }
        }
        samples.mean_ns = (samples.count > 0).then(|| sum as f64 / f64::from(samples.count));
        self.limit.learn(&samples);
        samples.count
    }

    fn windows(&mut self, windows: u32, demand: u32) -> u32 {
        (0..windows).map(|_| self.window(demand)).sum()
    }

    /// The mean limit over some windows outside of probes.
    fn mean_aim(&mut self, windows: u32) -> f64 {
        (0..windows)
            .map(|_| {
                self.window(u32::MAX);
                self.limit.aim
            })
            .sum::<f64>()
            / f64::from(windows)
    }
}

#[test]
fn it_finds_the_capacity_of_a_server_from_both_sides() {
    for workers in [1, 4, 16, 64, 256] {
        let mut server = Simulation::new(workers, 10);
        // Half of a small limit is still a queue, so the smallest servers get some calls too many. Fifty seconds, so that small servers have found out that the first baseline was a queue.
        server.windows(500, u32::MAX);
        let (aim, capacity) = (server.mean_aim(300), workers as f64);
        assert!((capacity * 0.9..=capacity * 1.6 + 4.0).contains(&aim), "{aim} for {workers} workers");
        let served = f64::from(server.windows(100, u32::MAX));
        let possible = capacity * 1_000.0;
        assert!(served >= possible * 0.9, "{served} of {possible} with {workers} workers");
    }
}

#[test]
fn idle_does_not_grow() {
    let mut server = Simulation::new(16, 10);
    server.windows(1_000, 3);
    assert_eq!(server.limit.current(), 20);
}

#[test]
fn a_dependency_that_becomes_three_times_slower_keeps_its_throughput() {
    let mut server = Simulation::new(16, 10);
    server.windows(500, u32::MAX);
    server.service_ns *= 3;
    for second in 0..30 {
        // A third of 16 workers × 100 a second is the most there is now.
        let served = server.windows(10, u32::MAX);
        assert!(served >= 533 / 2, "{served} in second {second}: {:?}", server.limit);
    }
    let aim = server.mean_aim(100);
    assert!((14.0..=34.0).contains(&aim), "{aim}");
    let baseline = server.limit.baseline_ns().unwrap() / 30e6;
    assert!((0.9..1.4).contains(&baseline), "the new normal: {baseline}");
}

#[test]
fn a_server_that_loses_workers_gets_fewer_calls() {
    let mut server = Simulation::new(64, 10);
    server.windows(500, u32::MAX);
    server.free_at = std::iter::repeat_n(Reverse(server.now), 8).collect();
    server.windows(300, u32::MAX);
    let aim = server.mean_aim(100);
    assert!((7.0..=18.0).contains(&aim), "{aim}");
}

#[test]
fn errors_do_not_shrink_it() {
    let mut server = Simulation::new(16, 10);
    server.windows(500, u32::MAX);
    server.errors = 300;
    server.windows(300, u32::MAX);
    let aim = server.mean_aim(100);
    assert!(aim >= 16.0, "{aim}");
}
