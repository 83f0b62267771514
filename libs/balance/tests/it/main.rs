//! The balancer as those see it who call through it.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod ejections;
mod picks;
mod simulation;
mod threads;

use std::time::Duration;

use stampede_balance::{Balancer, Outcome, Pick, Settings, Snapshot};
use stampede_deadline::Clock;

const SECOND: Duration = Duration::from_secs(1);

const SETTINGS: Settings = Settings {
    failures_max: 3,
    ejection_first: Duration::from_secs(10),
    ejection_max: Duration::from_secs(35),
    ejected_percent_max: 50,
};

/// Over replicas with the numbers from 0 on.
fn balancer(replicas: u8) -> Balancer<u8> {
    let balancer = Balancer::try_new(SETTINGS, Clock::system()).unwrap().with_seed(7);
    balancer.set_replicas(0..replicas);
    balancer
}

/// A call to this replica and no other.
fn call(balancer: &Balancer<u8>, replica: u8) -> Pick<u8> {
    let others: Vec<u8> = (0..=u8::MAX).filter(|other| *other != replica).collect();
    balancer.pick(&others).unwrap()
}

fn fail(balancer: &Balancer<u8>, replica: u8, times: u32) {
    for _ in 0..times {
        call(balancer, replica).record(Outcome::Failure);
    }
}

fn shown(balancer: &Balancer<u8>, replica: u8) -> Snapshot<u8> {
    balancer.snapshot().into_iter().find(|snapshot| snapshot.replica == replica).unwrap()
}

fn ejected(balancer: &Balancer<u8>) -> Vec<u8> {
    let all = balancer.snapshot().into_iter();
    all.filter(|snapshot| snapshot.returns_in.is_some()).map(|snapshot| snapshot.replica).collect()
}
