//! The rights in the README suffice, and what is forbidden is noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::kv;
use stampede_bus::{
    Consumer, DeadLetterKeeper, Delivery, Members, Reached, Replay, Responder, ResponderSettings, Verdict,
};
use stampede_contracts::{Heartbeat, Timestamp};
use stampede_testkit::{Nats, eventually};
use tokio_util::sync::CancellationToken;

use crate::consumer::settings;
use crate::dead_letters::{crash_over, make_advisories};
use crate::support::{
    Echo, FACTS, Note, PATIENCE, WORK, WORKER, command, connect_as, make_facts, make_work, messages_in,
    publish, state, worker,
};

/// Word for word the table in the README, for user and service `svc`.
const RIGHTS: &str = r#"
authorization {
  users: [
    { user: operator, password: operator }
    { user: caller, password: caller, permissions: {
        publish: [ "rpc.test.>", "cmd.test.>", "evt.test.>" ]
        subscribe: [ "_INBOX_caller.>" ]
    } }
    { user: svc, password: svc, permissions: {
        publish: [
          "$JS.API.CONSUMER.INFO.CMD_TEST.worker", "$JS.API.CONSUMER.MSG.NEXT.CMD_TEST.worker"
          "$JS.ACK.CMD_TEST.worker.>", "dlq.svc.worker"
          "$JS.API.CONSUMER.INFO.ADVISORIES.worker-advisories"
          "$JS.API.CONSUMER.MSG.NEXT.ADVISORIES.worker-advisories", "$JS.ACK.ADVISORIES.worker-advisories.>"
          "$JS.API.STREAM.INFO.CMD_TEST", "$JS.API.STREAM.MSG.GET.CMD_TEST", "$JS.API.STREAM.MSG.DELETE.CMD_TEST"
          "$JS.API.STREAM.INFO.EVT_TEST", "$JS.API.CONSUMER.CREATE.EVT_TEST", "$JS.API.CONSUMER.MSG.NEXT.EVT_TEST.*"
          "$KV.layout.>", "$JS.API.DIRECT.GET.KV_layout.>"
          "$JS.API.STREAM.INFO.KV_layout", "$JS.API.CONSUMER.CREATE.KV_layout"
          "$JS.API.CONSUMER.MSG.NEXT.KV_layout.*"
          "oam.heartbeat.svc.>"
        ]
        subscribe: [ "_INBOX_svc.>", "rpc.test.>", "oam.heartbeat.*.*" ]
        allow_responses: true
    } }
    { user: nobody, password: nobody, permissions: { publish: [ "nothing" ], subscribe: [ "_INBOX_nobody.>" ] } }
  ]
}
"#;

#[tokio::test]
async fn the_rights_in_the_readme_suffice_for_everything() {
    let nats = Nats::start_with_config(RIGHTS).await;
    let operator = connect_as(&nats, "operator", "operator").await;
    let caller = connect_as(&nats, "caller", "caller").await;
    let bus = connect_as(&nats, "svc", "svc").await;
    make_everything(&operator).await;
    let forever = CancellationToken::new;

    let responder =
        ResponderSettings { subject: "rpc.test.*.*".into(), queue: "test".into(), capacity: 8, workers: 1 };
    let responder = Responder::new(bus.clone(), responder).on::<Echo, _, _>(async |text, _| Ok(text));
    tokio::spawn(responder.run(forever()));
    let ask = async || caller.call_repeatedly::<Echo>("rpc.test.1.echo".into(), &"hi".to_owned()).await;
    eventually(PATIENCE, async || ask().await.is_ok()).await;

    publish(&caller, &[command("crash")]).await;
    crash_over(&operator, WORK).await;
    let keeper = DeadLetterKeeper::new(bus.clone(), WORK, WORKER);
    tokio::spawn(keeper.run(forever()));
    eventually(PATIENCE, async || messages_in(&operator, "DLQ").await == 1).await;
    eventually(PATIENCE, async || messages_in(&operator, WORK).await == 0).await;

    publish(&caller, &[command("done"), command("dead"), command("done too")]).await;
    let done = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&done);
    let judge = move |delivery: &Delivery| match delivery.decode::<Note>().unwrap().text.as_str() {
        "dead" => Verdict::Dead("as asked".into()),
        _ => {
            count.fetch_add(1, Ordering::SeqCst);
            Verdict::Done
        }
    };
    let consumer = Consumer::new(bus.clone(), WORK, WORKER, settings());
    tokio::spawn(consumer.run(forever(), move |batch| {
        let verdicts = batch.iter().map(&judge).collect();
        async { Ok(verdicts) }
    }));
    eventually(PATIENCE, async || done.load(Ordering::SeqCst) == 2).await;
    eventually(PATIENCE, async || messages_in(&operator, "DLQ").await == 2).await;
    eventually(PATIENCE, async || messages_in(&operator, WORK).await == 0).await;

    assert!(bus.generation(FACTS).await.unwrap().is_some());
    publish(&caller, &[state(1, "a")]).await;
    let caught_up = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&caught_up);
    let replay = Replay::new(bus.clone(), FACTS, "evt.test.>");
    tokio::spawn(replay.run(
        forever(),
        async |_| Ok(()),
        move |place| {
            count.fetch_add(u32::from(place == Reached::Present), Ordering::SeqCst);
        },
    ));
    eventually(PATIENCE, async || caught_up.load(Ordering::SeqCst) == 1).await;

    bus.kv_put("layout", "a", "1".into()).await.unwrap();
    assert_eq!(bus.kv_get("layout", "a").await, Ok(Some("1".into())));
    let seen = Arc::new(AtomicU32::new(0));
    let (count, watcher) = (Arc::clone(&seen), bus.clone());
    tokio::spawn(async move {
        let change = |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
        };
        watcher.watch_bucket("layout", CancellationToken::new(), change).await
    });
    eventually(PATIENCE, async || seen.load(Ordering::SeqCst) == 1).await;

    let members = Members::new(bus.clone());
    tokio::spawn(members.clone().run(forever()));
    let beating = bus.clone();
    tokio::spawn(async move {
        beating.heartbeat(|| std::future::ready(heartbeat()), CancellationToken::new()).await
    });
    eventually(PATIENCE, async || !members.takers("svc").is_empty()).await;

    assert_eq!((bus.violations(), caller.violations()), (0, 0));
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        service: "svc".into(),
        instance: "svc-1".into(),
        version: "1".into(),
        address: Some("localhost:80".into()),
        admin: "localhost:81".into(),
        ready: true,
        started_at: Timestamp::now(),
    }
}

async fn make_everything(operator: &stampede_bus::Bus) {
    let impatient = pull::Config { ack_wait: Duration::from_secs(1), max_deliver: 2, ..worker() };
    make_work(operator, impatient).await;
    make_advisories(operator, WORK).await;
    make_facts(operator).await;
    let bucket = kv::Config { bucket: "layout".into(), ..kv::Config::default() };
    operator.jetstream().create_key_value(bucket).await.unwrap();
}

#[tokio::test]
async fn what_is_forbidden_is_counted() {
    let nats = Nats::start_with_config(RIGHTS).await;
    let operator = connect_as(&nats, "operator", "operator").await;
    make_facts(&operator).await;
    let bus = connect_as(&nats, "nobody", "nobody").await;

    // A forbidden publish looks like one that nobody acknowledges, a forbidden subscription like silence.
    bus.client().publish("evt.test.note.v1.1", "x".into()).await.unwrap();
    eventually(PATIENCE, async || bus.violations() == 1).await;
    let _subscriber = bus.client().subscribe("evt.test.>").await.unwrap();
    eventually(PATIENCE, async || bus.violations() == 2).await;
    assert_eq!(messages_in(&operator, FACTS).await, 0);
    assert_eq!(operator.violations(), 0);
}
