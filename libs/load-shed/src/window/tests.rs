use super::*;

const END: Moment = Moment::from_nanos(200_000_000);

fn filled(successes: u64) -> Window {
    let window = Window::new(Moment::default(), 2);
    for _ in 0..successes {
        window.success(0, Duration::from_micros(3));
    }
    window
}

#[test]
fn it_is_closed_when_it_is_over_and_says_enough() {
    let window = filled(9);
    window.look(0, Moment::default(), || 7);
    assert_eq!(window.close(END), None, "too few");
    window.overload();
    assert_eq!(window.close(Moment::from_nanos(99_999_999)), None, "too early");
    assert!(window.has_ended(END));
    let samples = Samples { mean_ns: Some(3_000.0), count: 9, overloads: 1, peak: 7 };
    assert_eq!(window.close(END), Some(samples));
    assert_eq!((window.close(END), window.counts()), (None, (0, 0)));
    assert!(!window.has_ended(END) && window.has_ended(END + LENGTH));
}

#[test]
fn a_full_window_is_closed_early() {
    let window = filled(SAMPLES_FULL);
    assert_eq!(window.success(0, Duration::ZERO), Fill::Full);
    assert_eq!(window.close(Moment::default()).map(|samples| samples.count), Some(SAMPLES_FULL as u32 + 1));
    assert_eq!(window.success(0, Duration::ZERO), Fill::Room);
}

#[test]
fn no_latency_spills_into_the_count() {
    let window = Window::new(Moment::default(), 2);
    while window.success(0, Duration::MAX) != Fill::Brimful {}
    let samples = window.close(END).unwrap();
    assert_eq!(u64::from(samples.count), SAMPLES_BRIM + 1);
    assert!((samples.mean_ns.unwrap() - LATENCY_MAX_NS as f64).abs() < 1.0);
}

#[test]
fn the_peak_is_looked_for_now_and_then_in_every_lane() {
    let window = filled(10);
    let at = |nanos| Moment::from_nanos(1_000_000 + nanos);
    window.look(0, at(0), || 3);
    window.look(1, at(1), || 4);
    window.look(0, at(LOOK_EVERY_NS - 1), || unreachable!("too early"));
    assert_eq!(window.close(END).map(|samples| samples.peak), Some(4));

    (0..10).for_each(|_| assert_eq!(window.success(1, Duration::ZERO), Fill::Room));
    window.look(0, at(LOOK_EVERY_NS), || 6);
    window.look(0, at(2 * LOOK_EVERY_NS), || 5);
    assert_eq!(window.close(END + LENGTH).map(|samples| samples.peak), Some(6));
}

#[test]
fn the_lanes_add_up() {
    let window = filled(9);
    (0..3).for_each(|_| assert_eq!(window.success(1, Duration::from_micros(7)), Fill::Room));
    assert_eq!(window.counts(), (12, 0));
    let samples = window.close(END).unwrap();
    assert_eq!((samples.count, samples.mean_ns), (12, Some(4_000.0)));
    assert_eq!(window.counts(), (0, 0));
}
