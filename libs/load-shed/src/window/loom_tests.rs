use loom::sync::Arc;
use loom::thread;

use super::*;

#[test]
fn loom_no_sample_is_lost_or_counted_twice() {
    loom::model(|| {
        let window = Arc::new(Window::new(Moment::default(), 1));
        for _ in 0..SAMPLES_MIN {
            window.success(0, Duration::from_nanos(5));
        }
        let other = Arc::clone(&window);
        let thread = thread::spawn(move || other.success(0, Duration::from_nanos(5)));
        let closed = window.close(Moment::from_nanos(200_000_000)).expect("it was over");
        thread.join().expect("counted");
        assert_eq!(u64::from(closed.count) + window.counts().0, SAMPLES_MIN + 1);
        assert_eq!(closed.mean_ns, Some(5.0));
    });
}
