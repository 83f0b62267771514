//! Traces go along. Every test is a process of its own under nextest, so the global subscriber is this test's.

use stampede_bus::{Consumer, Failure, Responder, ResponderSettings, Verdict};
use stampede_telemetry::{Settings, trace};
use stampede_testkit::{Nats, eventually};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::consumer::settings;
use crate::support::{Echo, PATIENCE, WORK, WORKER, command, connect, make_work, publish, worker};

#[tokio::test]
async fn calls_and_new_messages_belong_to_the_trace_that_caused_them_and_repeats_do_not() {
    let telemetry = stampede_telemetry::init(&Settings::new("test", "1", "test-1")).unwrap();
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let span = tracing::info_span!("the cause");
    let cause = span.in_scope(|| trace::trace_id().unwrap());

    let responder =
        ResponderSettings { subject: "rpc.test.*".into(), queue: "test".into(), capacity: 8, workers: 1 };
    let responder = Responder::new(bus.clone(), responder)
        .on::<Echo, _, _>(async |_, _| Ok(trace::trace_id().unwrap_or_default()));
    tokio::spawn(responder.run(CancellationToken::new()));
    let ask = async || bus.call::<Echo>("rpc.test.echo".into(), &String::new()).await.unwrap_or_default();
    eventually(PATIENCE, async || !ask().await.is_empty()).await;
    assert_ne!(ask().await, cause);
    assert_eq!(ask().instrument(span.clone()).await, cause);

    make_work(&bus, worker()).await;
    let message = span.in_scope(|| command("x"));
    assert!(message.traceparent.as_ref().unwrap().contains(&cause));
    publish(&bus, &[message]).await;
    let (sender, mut traces) = mpsc::channel(2);
    let run = Consumer::new(bus, WORK, WORKER, settings()).run(CancellationToken::new(), move |batch| {
        let sender = sender.clone();
        async move {
            let alone = batch[0].span().in_scope(|| trace::trace_id().unwrap());
            sender.try_send((trace::trace_id().unwrap(), alone)).unwrap();
            match batch[0].delivered {
                1 => Err(Failure::Fault("at first".into())),
                _ => Ok(vec![Verdict::Done]),
            }
        }
    });
    tokio::spawn(run);
    assert_eq!(traces.recv().await, Some((cause.clone(), cause.clone())));
    let (repeated, alone) = traces.recv().await.unwrap();
    assert_ne!(repeated, cause);
    assert_eq!(alone, repeated);

    let metrics = telemetry.metrics().render().unwrap();
    for name in [
        "messaging_client_operation_duration_seconds_count",
        "messaging_process_duration_seconds_count",
        r#"stampede_shed_admitted_total{gate="rpc.test.*"}"#,
    ] {
        assert!(metrics.contains(name), "{name} is missing in\n{metrics}");
    }
}
