//! Calls on a paused clock, beside a model that plays them millisecond by millisecond.

use std::cell::Cell;
use std::future::{Ready, ready};
use std::rc::Rc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_assert_eq, prop_oneof, proptest};
use stampede_deadline::Clock;
use stampede_retry::{Budget, BudgetSettings};
use tower::{Layer, ServiceExt, service_fn};

use super::*;
use crate::{Delay, HedgeLayer, HedgePolicy, Snapshot};

const MS: Duration = Duration::from_millis(1);

fn budget(reserve: u32) -> Budget {
    let settings = BudgetSettings { per_mille: 0, reserve, min_per_second: 0 };
    Budget::try_new(settings, Clock::tokio()).unwrap()
}

fn hedge(attempts_max: u32, delay: Delay, granted: u32) -> Hedge {
    Hedge::new(HedgePolicy::try_new(attempts_max, delay).unwrap(), budget(granted), Clock::tokio())
}

/// The answers of these tests are their own verdicts.
fn itself(answer: &Result<(usize, Verdict), ()>) -> Verdict {
    answer.unwrap().1
}

/// What becomes of the attempts of a call, in their order: after how many milliseconds they answer, and what.
type Script = Vec<(u64, Verdict)>;

/// Which attempt answers, after how many milliseconds, and how many hedges were made.
#[derive(Debug, PartialEq)]
struct Story {
    answer: usize,
    millis: u64,
    hedged: u64,
}

/// Counts the futures that exist.
struct Running(Rc<Cell<usize>>);

impl Running {
    fn new(count: Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn play(script: Script, hedge: &Hedge) -> Story {
    let (made, running) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let counter = Rc::clone(&running);
    let inner = service_fn(move |()| {
        let n = made.replace(made.get() + 1);
        let (millis, verdict) = script[n];
        let held = Running::new(Rc::clone(&counter));
        async move {
            let _held = held;
            sleep(Duration::from_millis(millis)).await;
            Ok::<_, ()>((n, verdict))
        }
    });
    let mut service = HedgeLayer::new(hedge.clone(), itself).layer(inner);
    let started = Instant::now();
    let mut call = Box::pin(service.ready().await.unwrap().call(()));
    let (answer, _) = call.as_mut().await.unwrap();
    assert_eq!(running.get(), 0, "losers are dropped before the answer, not with the call");
    Story { answer, millis: started.elapsed().as_millis() as u64, hedged: hedge.snapshot().hedged }
}

fn model(script: &Script, attempts_max: u32, delay: u64, granted: u32) -> Story {
    let mut hedged = 0;
    let mut may_fire = true;
    // Number, and when it ends.
    let mut running = vec![(0, script[0].0)];
    let mut next_hedge = delay;
    let mut last = None;
    for now in 0.. {
        let mut to_fire = 0;
        for (n, _) in running.extract_if(.., |(_, end)| *end == now) {
            match script[n].1 {
                Verdict::Done => return Story { answer: n, millis: now, hedged },
                Verdict::Refused => last = last.or(Some(n)),
                Verdict::Another | Verdict::Fatal => last = Some(n),
            }
            to_fire += u64::from(script[n].1 == Verdict::Another);
            may_fire &= script[n].1 == Verdict::Another;
        }
        to_fire += u64::from(to_fire == 0 && now == next_hedge);
        for _ in 0..to_fire {
            may_fire = may_fire && hedged < u64::from(attempts_max - 1) && hedged < u64::from(granted);
            if may_fire {
                hedged += 1;
                running.push((hedged as usize, now + script[hedged as usize].0));
            }
            next_hedge = now + delay;
        }
        if let (Some(answer), true) = (last, running.is_empty()) {
            return Story { answer, millis: now, hedged };
        }
    }
    unreachable!("every attempt ends")
}

fn script() -> impl Strategy<Value = Script> {
    let verdict = prop_oneof![
        3 => Just(Verdict::Another), 1 => Just(Verdict::Done), 1 => Just(Verdict::Fatal), 1 => Just(Verdict::Refused)
    ];
    vec((1_u64..60, verdict), 5)
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(script in script(), attempts_max in 2_u32..=5, delay in 1_u64..40, granted in 0_u32..5) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let story = runtime.block_on(async {
            let delay = Delay::fixed(Duration::from_millis(delay)).unwrap();
            play(script.clone(), &hedge(attempts_max, delay, granted)).await
        });
        prop_assert_eq!(story, model(&script, attempts_max, delay, granted));
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_refused_or_fails_ends_nothing_that_still_runs() {
    for verdict in [Verdict::Refused, Verdict::Fatal, Verdict::Another] {
        let hedge = hedge(2, Delay::fixed(10 * MS).unwrap(), 9);
        let (slow, quick) = ((80, Verdict::Done), (1, verdict));
        let first_answers = Story { answer: 0, millis: 80, hedged: 1 };
        assert_eq!(play(vec![slow, quick], &hedge).await, first_answers, "the hedge is {verdict:?}");
        let hedge_answers = Story { answer: 1, millis: 90, hedged: 2 };
        assert_eq!(play(vec![(20, verdict), slow], &hedge).await, hedge_answers, "the first is {verdict:?}");
    }
    let hedge = hedge(2, Delay::fixed(10 * MS).unwrap(), 9);
    let refused = play(vec![(5, Verdict::Another), (1, Verdict::Refused)], &hedge).await;
    assert_eq!(refused.answer, 0, "an attempt that was not made does not hide the answer of the callee");
}

#[tokio::test(start_paused = true)]
async fn what_was_done_is_counted() {
    let slow_at_first = vec![(99, Verdict::Done), (1, Verdict::Done)];
    for (granted, snapshot) in [
        (1, Snapshot { hedged: 1, won: 1, refused: 0, delay: 10 * MS }),
        (0, Snapshot { hedged: 0, won: 0, refused: 1, delay: 10 * MS }),
    ] {
        let hedge = hedge(2, Delay::fixed(10 * MS).unwrap(), granted);
        play(slow_at_first.clone(), &hedge).await;
        assert_eq!(hedge.snapshot(), snapshot);
    }
}

/// Its clones are never ready, or broken.
struct OnlyOnce(Option<()>, Poll<Result<(), ()>>);

impl Clone for OnlyOnce {
    fn clone(&self) -> Self {
        Self(None, self.1)
    }
}

impl Service<()> for OnlyOnce {
    type Response = (usize, Verdict);
    type Error = ();
    type Future = Pin<Box<dyn Future<Output = Result<(usize, Verdict), ()>>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        if self.0.is_some() { Poll::Ready(Ok(())) } else { self.1 }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.0.take().expect("called although it is not ready");
        Box::pin(async {
            sleep(100 * MS).await;
            Ok((0, Verdict::Done))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_cannot_be_made_does_not_fail_the_first_attempt() {
    for clones in [Poll::Pending, Poll::Ready(Err(()))] {
        let hedge = hedge(3, Delay::fixed(10 * MS).unwrap(), 9);
        let service = HedgeLayer::new(hedge.clone(), itself).layer(OnlyOnce(Some(()), clones));
        assert_eq!(service.oneshot(()).await, Ok((0, Verdict::Done)), "{clones:?}");
        assert_eq!(hedge.snapshot().won, 0);
    }
}

/// Answers after as many milliseconds as it is asked to, if it is asked for the first time; at once for 0.
async fn after(millis: u64, attempts: Rc<Cell<u64>>) -> Result<(usize, Verdict), ()> {
    let is_first = attempts.replace(attempts.get() + 1) == 0;
    if millis > 0 {
        sleep(if is_first { Duration::from_millis(millis) } else { MS }).await;
    }
    Ok((0, Verdict::Done))
}

async fn calls(hedge: &Hedge, count: u32, millis: u64) -> Duration {
    let inner = service_fn(|attempts| after(millis, attempts));
    let mut service = HedgeLayer::new(hedge.clone(), itself).layer(inner);
    for _ in 0..count {
        service.ready().await.unwrap().call(Rc::default()).await.unwrap();
    }
    hedge.snapshot().delay
}

#[tokio::test(start_paused = true)]
async fn the_delay_follows_the_quantile_of_calls_that_had_to_wait() {
    let hedge = hedge(2, Delay::quantile(900, 5 * MS, 200 * MS, 64).unwrap(), 100_000);
    assert_eq!(calls(&hedge, 1_000, 0).await, 200 * MS, "answers at once are not measured");
    assert_eq!(calls(&hedge, 63, 30).await, 200 * MS, "not trusted yet");
    let trusted = calls(&hedge, 1, 30).await;
    assert!((30 * MS..=34 * MS).contains(&trusted), "{trusted:?}");
    assert_eq!(hedge.snapshot().hedged, 0);
    assert_eq!(calls(&hedge, 1_100, 2).await, 5 * MS, "no shorter than the shortest");
    assert_eq!(hedge.snapshot().hedged, 0);

    // All of these are won by a hedge a millisecond later, and still the delay learns that the first ones were slow.
    let learned = calls(&hedge, 1_100, 500).await;
    assert!(learned > 5 * MS && hedge.snapshot().won == 1_100, "{learned:?}");
    assert_eq!(calls(&hedge, 20_000, 9_000).await, 200 * MS, "no longer than the longest");
}

#[tokio::test(start_paused = true)]
async fn fatal_answers_do_not_make_the_callee_look_fast() {
    let hedge = hedge(2, Delay::quantile(900, MS, 500 * MS, 10).unwrap(), 9);
    let inner = service_fn(async |()| {
        sleep(MS).await;
        Ok::<_, ()>((0, Verdict::Fatal))
    });
    let service = HedgeLayer::new(hedge.clone(), itself).layer(inner);
    for _ in 0..100 {
        service.clone().oneshot(()).await.unwrap();
    }
    assert_eq!(hedge.snapshot().delay, 500 * MS);
}

#[tokio::test(start_paused = true)]
async fn an_answer_at_once_needs_neither_clock_nor_timer() {
    let hedge = hedge(2, Delay::fixed(MS).unwrap(), 9);
    let inner = service_fn(|()| -> Ready<_> { ready(Ok::<_, ()>((0, Verdict::Done))) });
    let mut service = HedgeLayer::new(hedge, itself).layer(inner);
    let mut call = Box::pin(service.ready().await.unwrap().call(()));
    assert_eq!(call.as_mut().await, Ok((0, Verdict::Done)));
    assert!(call.started.is_none() && call.timer.is_none());
    assert_eq!(call.others.capacity(), 0);
}
