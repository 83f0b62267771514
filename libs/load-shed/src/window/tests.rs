use super::*;

const END: Moment = Moment::from_nanos(200_000_000);

fn filled(successes: u64) -> Window {
    let window = Window::new(Moment::default());
    for _ in 0..successes {
        window.success(Duration::from_micros(3));
    }
    window
}

#[test]
fn it_is_closed_when_it_is_over_and_says_enough() {
    let window = filled(9);
    window.concurrency(7);
    window.concurrency(5);
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
    assert_eq!(window.success(Duration::ZERO), Fill::Full);
    assert_eq!(window.close(Moment::default()).map(|samples| samples.count), Some(SAMPLES_FULL as u32 + 1));
    assert_eq!(window.success(Duration::ZERO), Fill::Room);
}

#[test]
fn no_latency_spills_into_the_count() {
    let window = Window::new(Moment::default());
    while window.success(Duration::MAX) != Fill::Brimful {}
    let samples = window.close(END).unwrap();
    assert_eq!(u64::from(samples.count), SAMPLES_BRIM + 1);
    assert!((samples.mean_ns.unwrap() - LATENCY_MAX_NS as f64).abs() < 1.0);
}
