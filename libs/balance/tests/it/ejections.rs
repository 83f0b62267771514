//! Who is left out, and for how long.

use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use stampede_balance::{Balancer, Change, Event, InvalidSettings, Outcome, Settings};
use stampede_deadline::Clock;
use tokio::time::advance;

use crate::{SECOND, SETTINGS, call, ejected, fail, shown};

/// Over replicas with the numbers from 0 on, on the clock of a test that pauses it.
fn balancer(replicas: u8, settings: Settings) -> Balancer<u8> {
    let balancer = Balancer::try_new(settings, Clock::tokio()).unwrap().with_seed(7);
    balancer.set_replicas(0..replicas);
    balancer
}

fn is_picked(balancer: &Balancer<u8>, replica: u8) -> bool {
    (0..200).any(|_| *balancer.pick(&[]).unwrap().replica() == replica)
}

#[test]
fn settings_are_checked() {
    let none = Settings { failures_max: 0, ..SETTINGS };
    assert_eq!(Balancer::<u8>::try_new(none, Clock::system()).err(), Some(InvalidSettings::NoFailure));
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_eject_and_nothing_else_does() {
    let balancer = balancer(4, SETTINGS);
    fail(&balancer, 2, 2);
    call(&balancer, 2).record(Outcome::Success);
    fail(&balancer, 2, 2);
    call(&balancer, 2).record(Outcome::Neutral);
    drop(call(&balancer, 2));
    assert_eq!((shown(&balancer, 2).failures, ejected(&balancer)), (2, vec![]));
    assert!(is_picked(&balancer, 2));

    fail(&balancer, 2, 1);
    let snapshot = shown(&balancer, 2);
    assert_eq!((snapshot.failures, snapshot.returns_in, snapshot.ejections), (0, Some(10 * SECOND), 1));
    assert!(!is_picked(&balancer, 2));
}

#[tokio::test(start_paused = true)]
async fn it_returns_after_its_time_with_a_clean_count() {
    let balancer = balancer(4, SETTINGS);
    fail(&balancer, 2, 3);
    advance(10 * SECOND - Duration::from_nanos(1)).await;
    assert!(!is_picked(&balancer, 2));
    advance(Duration::from_nanos(1)).await;
    assert_eq!(shown(&balancer, 2).returns_in, None);
    assert!(is_picked(&balancer, 2));
    fail(&balancer, 2, 2);
    assert_eq!(ejected(&balancer), []);
    fail(&balancer, 2, 1);
    assert_eq!((ejected(&balancer), shown(&balancer, 2).ejections), (vec![2], 2));
}

#[tokio::test(start_paused = true)]
async fn the_time_grows_with_every_ejection_and_shrinks_with_every_time_in_rotation() {
    let balancer = balancer(4, SETTINGS);
    let lasts = || {
        fail(&balancer, 0, 3);
        shown(&balancer, 0).returns_in.unwrap()
    };
    for seconds in [10, 20, 30, 35, 35, 35] {
        assert_eq!(lasts(), seconds * SECOND);
        advance(seconds * SECOND).await;
    }
    // In rotation since then, for two whole first times: two of the four steps are forgiven.
    advance(29 * SECOND).await;
    assert_eq!(lasts(), 30 * SECOND);
    // It is in rotation from the end of the ejection on, whether or not a call came then.
    advance(30 * SECOND + 9 * SECOND).await;
    assert_eq!(lasts(), 35 * SECOND);
    advance(35 * SECOND + 1_000 * SECOND).await;
    assert_eq!(lasts(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn only_a_share_is_ejected_at_a_time() {
    let balancer = balancer(10, Settings { ejected_percent_max: 34, ..SETTINGS });
    for replica in 0..10 {
        fail(&balancer, replica, 5);
    }
    assert_eq!(ejected(&balancer), [0, 1, 2]);
    assert!((3..10).all(|replica| shown(&balancer, replica).failures == 5));

    // Their time is over: one more failure of others finds room.
    advance(10 * SECOND).await;
    for replica in 6..10 {
        fail(&balancer, replica, 1);
    }
    assert_eq!(ejected(&balancer), [6, 7, 8]);
}

#[tokio::test(start_paused = true)]
async fn the_last_one_stays() {
    for (replicas, bound) in [(1, 0), (2, 1), (3, 2)] {
        let balancer = balancer(replicas, Settings { ejected_percent_max: 100, ..SETTINGS });
        for replica in 0..replicas {
            fail(&balancer, replica, 9);
        }
        assert_eq!(ejected(&balancer).len(), bound);
    }
    let balancer = balancer(2, Settings { ejected_percent_max: 1, ..SETTINGS });
    fail(&balancer, 1, 3);
    assert_eq!(ejected(&balancer), [1], "of two one may be ejected, however small the share");
}

#[tokio::test(start_paused = true)]
async fn a_call_with_nobody_else_to_go_to_goes_to_an_ejected_one() {
    let balancer = balancer(4, SETTINGS);
    fail(&balancer, 0, 3);
    fail(&balancer, 1, 3);
    assert!((0..200).all(|_| *balancer.pick(&[2]).unwrap().replica() == 3));
    let busy = call(&balancer, 0);
    assert!((0..200).all(|_| *balancer.pick(&[2, 3]).unwrap().replica() == 1), "the idler of the two");
    drop(busy);
    assert_eq!(*balancer.pick(&[1, 2, 3]).unwrap().replica(), 0);
    assert!(balancer.pick(&[0, 1, 2, 3]).is_none());
    assert_eq!(ejected(&balancer), [0, 1], "and it stays ejected");
}

#[tokio::test(start_paused = true)]
async fn outcomes_from_before_are_ignored() {
    let balancer = balancer(4, SETTINGS);
    let before: Vec<_> = (0..8).map(|_| call(&balancer, 1)).collect();
    let mut before = before.into_iter();
    fail(&balancer, 1, 3);
    before.by_ref().take(3).for_each(|pick| pick.record(Outcome::Failure));
    before.by_ref().take(1).for_each(|pick| pick.record(Outcome::Success));
    assert_eq!(shown(&balancer, 1).returns_in, Some(10 * SECOND), "neither longer nor shorter");
    let between = call(&balancer, 1);

    advance(10 * SECOND).await;
    fail(&balancer, 1, 2);
    between.record(Outcome::Failure);
    before.by_ref().take(3).for_each(|pick| pick.record(Outcome::Failure));
    assert_eq!(shown(&balancer, 1).failures, 2, "not one more");
    before.by_ref().for_each(|pick| pick.record(Outcome::Success));
    assert_eq!(shown(&balancer, 1).failures, 2, "nor are they wiped out");
    assert_eq!(shown(&balancer, 1).in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn who_stays_stays_ejected_and_who_comes_again_does_not() {
    let balancer = balancer(4, SETTINGS);
    fail(&balancer, 0, 3);
    fail(&balancer, 1, 3);
    balancer.set_replicas([1, 2, 3, 4]);
    assert_eq!(ejected(&balancer), [1]);
    balancer.set_replicas([0, 1, 2, 3]);
    assert_eq!(ejected(&balancer), [1]);
    assert_eq!(shown(&balancer, 0).ejections, 0);
    assert!(is_picked(&balancer, 0));
}

#[tokio::test(start_paused = true)]
async fn a_set_that_shrinks_lets_return_who_are_too_many() {
    let balancer = balancer(8, SETTINGS);
    for replica in [3, 1, 0, 2] {
        fail(&balancer, replica, 3);
        advance(SECOND).await;
    }
    balancer.set_replicas([0, 1, 2, 3, 4]);
    assert_eq!(ejected(&balancer), [0, 2], "those that have the longest still to go");
    balancer.set_replicas([2]);
    assert_eq!(ejected(&balancer), [], "the last one takes calls");
    assert!(is_picked(&balancer, 2));
    fail(&balancer, 2, 9);
    assert_eq!(ejected(&balancer), []);
}

#[tokio::test(start_paused = true)]
async fn every_change_is_told_once_and_outside_of_the_lock() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let teller = Arc::clone(&told);
    let balancer = Balancer::observed(SETTINGS, Clock::tokio(), move |change| {
        teller.lock().unwrap().push(change);
    });
    let balancer = balancer.unwrap();
    balancer.set_replicas(0..4);
    let change = |replica, generation, event| Change { replica, event, generation };
    let news = || std::mem::take(&mut *told.lock().unwrap());

    fail(&balancer, 3, 3);
    fail(&balancer, 3, 3);
    assert_eq!(news(), [change(3, 1, Event::Ejected(10 * SECOND))]);
    advance(10 * SECOND).await;
    balancer.snapshot();
    assert_eq!(news(), [], "the next call brings it back");
    let _ = balancer.pick(&[]);
    let _ = balancer.pick(&[]);
    assert_eq!(news(), [change(3, 2, Event::Returned)]);
    fail(&balancer, 3, 3);
    fail(&balancer, 0, 3);
    assert_eq!(
        news(),
        [change(3, 3, Event::Ejected(20 * SECOND)), change(0, 1, Event::Ejected(10 * SECOND))]
    );
    balancer.set_replicas([3, 0, 1]);
    assert_eq!(news(), [change(0, 2, Event::Returned)]);
    balancer.set_replicas([0, 1]);
    assert_eq!(news(), [], "who has left is not told of");
}

#[test]
fn the_observer_may_call_back() {
    let (done, is_done) = mpsc::channel();
    // A thread of its own, which may hang without hanging the test.
    std::thread::spawn(move || {
        let handle = Arc::new(OnceLock::<Balancer<u8>>::new());
        let inside = Arc::clone(&handle);
        let observe =
            move |change: Change<u8>| done.send((change, inside.get().unwrap().snapshot())).unwrap();
        let balancer = Balancer::observed(SETTINGS, Clock::system(), observe).unwrap();
        balancer.set_replicas(0..2);
        handle.set(balancer.clone()).unwrap();
        fail(&balancer, 1, 3);
    });
    let (change, snapshot) = is_done.recv_timeout(5 * SECOND).unwrap();
    assert_eq!(change.event, Event::Ejected(10 * SECOND));
    assert!(snapshot[1].returns_in.is_some());
}
