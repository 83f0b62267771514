//! What a gate shows. Every test is a process of its own under nextest, so the global meter is this test's.

use stampede_contracts::{Class, Code};
use stampede_deadline::Clock;
use stampede_load_shed::{Limits, Reason, Settings, Waiting};
use stampede_resilience::{Gate, busy};
use stampede_telemetry::{Metrics, init};

/// The number that has these labels.
fn shown(metrics: &Metrics, name: &str, labels: &[&str]) -> Option<u64> {
    let text = metrics.render().unwrap();
    let of_name = format!("stampede_shed_{name}{{");
    let mut lines = text.lines().filter(|line| {
        line.starts_with(&of_name)
            && line.contains(r#"gate="door""#)
            && labels.iter().all(|label| line.contains(label))
    });
    let number = lines.next()?.rsplit(' ').next()?.parse().unwrap();
    assert_eq!(lines.next(), None, "{name} {labels:?}");
    Some(number)
}

#[tokio::test(start_paused = true)]
async fn a_gate_shows_who_is_in_who_waits_and_who_was_refused_until_it_is_gone() {
    let metrics = init(&stampede_telemetry::Settings::new("test", "1", "test-1")).unwrap().metrics();
    let limits = Limits { min: 1, initial: 1, max: 1 };
    let waiting = Waiting { queue_max: 1, ..Waiting::default() };
    let gate = Gate::new("door", Settings::try_new(limits, waiting).unwrap(), Clock::tokio());
    let number = |name, labels: &[&str]| shown(&metrics, name, labels);

    let inside = gate.acquire(Class::Browse).await.unwrap();
    let join = gate.acquire(Class::Join);
    assert_eq!(number("queued", &[r#"class="join""#]), Some(1));
    let hold = gate.acquire(Class::Hold);
    assert_eq!(number("queued", &[r#"class="join""#]), Some(0));
    assert_eq!(number("queued", &[r#"class="hold""#]), Some(1));
    assert_eq!(gate.acquire(Class::Browse).await.unwrap_err().reason, Reason::Outranked);
    assert_eq!(join.await.unwrap_err().reason, Reason::Full);
    let late = hold.await.unwrap_err();
    assert_eq!(late.reason, Reason::Late);
    assert_eq!(
        (busy(&late).code, busy(&late).retry_after),
        (Code::Busy, u32::try_from(late.retry_after.as_secs()).ok())
    );

    assert_eq!((number("limit", &[]), number("in_flight", &[])), (Some(1), Some(1)));
    assert_eq!(number("admitted_total", &[]), Some(1));
    for (class, reasons) in
        [("pay", [0, 0, 0]), ("hold", [0, 1, 0]), ("join", [1, 0, 0]), ("browse", [0, 0, 1])]
    {
        let class = format!(r#"class="{class}""#);
        let shown = ["full", "late", "outranked"]
            .map(|reason| number("refused_total", &[&class, &format!(r#"reason="{reason}""#)]));
        assert_eq!(shown, reasons.map(Some), "{class}");
    }

    drop(inside);
    assert_eq!((number("limit", &[]), number("in_flight", &[])), (Some(1), Some(0)));
    drop(gate);
    assert_eq!((number("limit", &[]), number("admitted_total", &[])), (None, None));
}
