//! Everything at once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use stampede_balance::{Balancer, Change, Event, Outcome, Settings};
use stampede_deadline::Clock;

/// Threads that call, fail, give up and change the set lose no call, and tell every change once.
#[test]
fn threads_end_with_nothing_in_flight() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let teller = Arc::clone(&told);
    let settings = Settings {
        failures_max: 2,
        ejection_first: Duration::from_millis(1),
        ejection_max: Duration::from_millis(3),
        ejected_percent_max: 50,
    };
    let observe = move |change: Change<u32>| teller.lock().unwrap().push(change);
    let balancer = Balancer::observed(settings, Clock::system(), observe).unwrap();
    balancer.set_replicas(0..8);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (balancer, told) = (balancer.clone(), &told);
            scope.spawn(move || {
                let mut held = Vec::new();
                for round in 0..5_000_000_u32 {
                    if round >= 5_000 && told.lock().unwrap().len() >= 200 {
                        break;
                    }
                    let tried = [round % 9, (round + thread) % 9];
                    held.extend(balancer.pick(&tried[..round as usize % 3]));
                    if held.len() > 3 {
                        let pick = held.swap_remove(round as usize % 4);
                        match (*pick.replica() + round) % 5 {
                            0 => drop(pick),
                            1 => pick.record(Outcome::Success),
                            _ => pick.record(Outcome::Failure),
                        }
                    }
                    if round.is_multiple_of(50) {
                        balancer.set_replicas((0..4).chain(4..4 + (round + thread) % 5));
                    }
                }
            });
        }
    });
    let snapshot = balancer.snapshot();
    assert_eq!(snapshot.iter().map(|replica| replica.in_flight).collect::<Vec<_>>(), vec![0; snapshot.len()]);
    assert!(snapshot.iter().filter(|replica| replica.returns_in.is_some()).count() <= snapshot.len() / 2);

    // The four who were there all the time: an ejection, a return, and so on, each once.
    let told = told.lock().unwrap();
    assert!(told.len() >= 200, "{}", told.len());
    for replica in snapshot.iter().take(4) {
        let mut changes: Vec<_> = told.iter().filter(|change| change.replica == replica.replica).collect();
        changes.sort_unstable_by_key(|change| change.generation);
        for (change, generation) in changes.iter().zip(1..) {
            assert_eq!(change.generation, generation);
            assert_eq!(matches!(change.event, Event::Ejected(_)), generation % 2 == 1);
        }
        assert_eq!(changes.len().div_ceil(2) as u64, replica.ejections);
    }
}
