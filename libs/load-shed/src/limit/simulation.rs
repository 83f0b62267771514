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

/// Calls that come whether or not earlier ones have ended, as they do from a crowd: what finds no slot is shed.
struct Crowd {
    server: Simulation,
    per_second: f64,
    next_ns: f64,
    /// Calls that hang, of a thousand.
    hanging: u64,
    /// A call that takes longer is a timeout.
    deadline_ns: u64,
    window: Samples,
    sum_ns: u64,
}

/// What became of the calls of some time.
#[derive(Debug, Default)]
struct Fate {
    arrived: u32,
    shed: u32,
    served: u32,
    latency_ns: u64,
}

impl Crowd {
    fn new(workers: usize, service_ms: u64, initial: u32, per_second: f64) -> Self {
        let mut server = Simulation::new(workers, service_ms);
        server.limit = Limit::new(Limits { min: 4, initial, max: 1_000 });
        let (window, deadline_ns) = (Samples::default(), 200 * MILLI);
        Self { server, per_second, next_ns: 0.0, hanging: 0, deadline_ns, window, sum_ns: 0 }
    }

    fn seconds(&mut self, seconds: u32) -> Fate {
        let mut fate = Fate::default();
        (0..seconds * 10).for_each(|_| self.window(&mut fate));
        fate
    }

    /// Everything that happens in a window. One with too few samples stays open, as it does outside of simulations.
    fn window(&mut self, fate: &mut Fate) {
        let until = self.server.now + WINDOW_NS;
        loop {
            let ends = self.server.running.peek().map_or(u64::MAX, |Reverse((ends, _))| *ends);
            let arrives = self.next_ns as u64;
            if ends.min(arrives) >= until {
                break;
            }
            if arrives < ends {
                self.server.now = arrives;
                let uniform = (self.server.random_below(1 << 30) + 1) as f64 / f64::from(1 << 30);
                self.next_ns -= uniform.ln() * 1e9 / self.per_second;
                fate.arrived += 1;
                if self.server.running.len() >= self.server.limit.current() as usize {
                    fate.shed += 1;
                } else if self.server.random_below(1_000) < self.hanging {
                    self.server.running.push(Reverse((arrives + self.deadline_ns, arrives)));
                } else {
                    self.server.start();
                }
            } else if let Some(Reverse((ends, started))) = self.server.running.pop() {
                self.server.now = ends;
                self.window.peak = self.window.peak.max(self.server.running.len() as u32 + 1);
                if ends - started >= self.deadline_ns {
                    self.window.overloads += 1;
                } else {
                    self.window.count += 1;
                    self.sum_ns += ends - started;
                    fate.served += 1;
                    fate.latency_ns += ends - started;
                }
            }
        }
        self.server.now = until;
        let Samples { count, overloads, .. } = self.window;
        if count + overloads >= 10 {
            self.window.mean_ns = (count > 0).then(|| self.sum_ns as f64 / f64::from(count));
            self.server.limit.learn(&self.window);
            (self.window, self.sum_ns) = (Samples::default(), 0);
        }
    }
}

impl Fate {
    fn shed_per_mille(&self) -> f64 {
        f64::from(self.shed) * 1_000.0 / f64::from(self.arrived)
    }

    fn mean_ms(&self) -> f64 {
        self.latency_ns as f64 / f64::from(self.served) / MILLI as f64
    }
}

#[test]
fn steady_load_that_the_server_can_serve_is_not_shed() {
    for workers in [16, 64] {
        for percent in [50, 80, 90] {
            let mut crowd = Crowd::new(workers, 10, 20, workers as f64 * f64::from(percent));
            crowd.seconds(30);
            let seconds: Vec<f64> = (0..60).map(|_| crowd.seconds(1).shed_per_mille()).collect();
            let (mean, worst) =
                (seconds.iter().sum::<f64>() / 60.0, seconds.iter().copied().fold(0.0, f64::max));
            let load = format!("{percent} % of {workers} workers");
            println!("{load}: {mean:.3} of 1000 shed, {worst:.1} in the worst second");
            assert!(mean < 1.0 && worst < 10.0, "{load}: {mean}, {worst}, {:?}", crowd.server.limit);
        }
    }
}

#[test]
fn the_first_calls_find_the_whole_initial_limit() {
    let mut crowd = Crowd::new(256, 10, 80, 6_000.0);
    assert_eq!(crowd.server.limit.current(), 80);
    for second in 0..10 {
        let fate = crowd.seconds(1);
        assert!(fate.shed_per_mille() < 10.0, "second {second}: {fate:?}, {:?}", crowd.server.limit);
    }
}

#[test]
fn calls_that_become_slower_bit_by_bit_are_not_shed() {
    let mut crowd = Crowd::new(256, 10, 20, 3_000.0);
    crowd.seconds(20);
    let mut fate = Fate::default();
    for step in 0..1_200 {
        crowd.server.service_ns = 10 * MILLI + 20 * MILLI * step / 1_200;
        crowd.window(&mut fate);
    }
    assert!(fate.shed_per_mille() < 1.0, "{fate:?}, {:?}", crowd.server.limit);
}

#[test]
fn calls_that_become_slower_from_one_moment_to_the_next_are_shed_for_some_seconds_only() {
    for (factor, seconds) in [(2, 5), (3, 10), (5, 15)] {
        let mut crowd = Crowd::new(256, 10, 20, 3_000.0);
        crowd.seconds(20);
        crowd.server.service_ns *= factor;
        let (until, fate) = (crowd.seconds(seconds), crowd.seconds(60));
        println!("{factor} times: {:.0} of 1000 shed in {seconds} s", until.shed_per_mille());
        assert!(until.shed_per_mille() < 500.0, "{factor} times: {until:?}");
        assert!(fate.shed_per_mille() < 1.0, "{factor} times: {fate:?}, {:?}", crowd.server.limit);
    }
}

#[test]
fn timeouts_that_have_nothing_to_do_with_the_load_shed_no_call() {
    for hanging in [10, 50, 100, 200, 400] {
        let mut crowd = Crowd::new(64, 10, 20, 2_000.0);
        crowd.seconds(20);
        crowd.hanging = hanging;
        let (until, fate) = (crowd.seconds(30), crowd.seconds(60));
        println!("{hanging} of 1000 hang: {:.0} of 1000 shed in 30 s", until.shed_per_mille());
        assert!(fate.shed_per_mille() < 1.0, "{hanging}: {fate:?}, {:?}", crowd.server.limit);
    }
}

#[test]
fn of_twice_as_much_as_the_server_can_serve_it_serves_as_much_as_it_can() {
    for workers in [4, 16, 64] {
        for (initial, deadline_ms) in [(20, 200), (500, 200), (500, 50)] {
            let mut crowd = Crowd::new(workers, 10, initial, workers as f64 * 200.0);
            crowd.deadline_ns = deadline_ms * MILLI;
            crowd.seconds(30);
            let (fate, possible) = (crowd.seconds(20), workers as f64 * 100.0 * 20.0);
            let (served, limit) = (f64::from(fate.served) / possible, &crowd.server.limit);
            println!(
                "{workers} workers, {initial}, {deadline_ms} ms: {served:.2} in {:.0} ms",
                fate.mean_ms()
            );
            assert!(served > 0.9, "{served} with {workers} workers: {limit:?}");
            assert!(fate.mean_ms() < 25.0, "{} ms with {workers} workers: {limit:?}", fate.mean_ms());
        }
    }
}

/// Calls that hang keep their slots, so some of them are missing.
#[test]
fn timeouts_during_an_overload_do_not_starve_the_server() {
    for workers in [4, 16, 64] {
        let mut crowd = Crowd::new(workers, 10, 20, workers as f64 * 200.0);
        crowd.hanging = 100;
        crowd.seconds(30);
        let (fate, possible) = (crowd.seconds(20), workers as f64 * 100.0 * 20.0);
        let served = f64::from(fate.served) / possible;
        println!("{workers} workers: {served:.2} in {:.0} ms", fate.mean_ms());
        assert!(served > 0.6, "{served} with {workers} workers: {:?}", crowd.server.limit);
    }
}

/// Most calls time out at first, also while the limit is probed: that is not taken for normal.
#[test]
fn a_server_that_loses_nearly_all_workers_serves_as_much_as_it_still_can() {
    for (workers, deadline_ms) in [(1, 50), (1, 200), (2, 50), (4, 200)] {
        let mut crowd = Crowd::new(64, 10, 20, 12_800.0);
        crowd.deadline_ns = deadline_ms * MILLI;
        crowd.seconds(30);
        crowd.server.free_at = std::iter::repeat_n(Reverse(crowd.server.now), workers).collect();
        crowd.seconds(30);
        let served = f64::from(crowd.seconds(20).served) / (workers as f64 * 100.0 * 20.0);
        assert!(served > 0.8, "{served} with {workers} workers: {:?}", crowd.server.limit);
    }
}
