//! The users that `stampede_contracts::topology` declares can do with the bus what their services do, and no more is
//! asked for: not one permission violation.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use stampede_bus::{
    Bus, Consumer, DeadLetterKeeper, Delivery, Members, Message, Replay, Responder, ResponderSettings,
    Verdict,
};
use stampede_contracts::topology::{
    ADVISORIES, BUCKETS, CONSUMERS, DLQ, EVT_INVENTORY, User, advisory_consumer, users,
};
use stampede_contracts::{Heartbeat, Timestamp};
use stampede_testkit::{Nats, eventually, provision};
use tokio_util::sync::CancellationToken;

use crate::consumer::settings;
use crate::support::{Echo, PATIENCE, connect_as, messages_in};

fn server_config() -> String {
    // JSON is a subset of the server's own language.
    let list = |subjects: Vec<String>| serde_json::to_string(&subjects).unwrap();
    let user = |User { name, publish, subscribe, allow_responses }: User| {
        let (publish, subscribe) = (list(publish), list(subscribe));
        let permissions =
            format!("publish: {publish}, subscribe: {subscribe}, allow_responses: {allow_responses}");
        format!("{{ user: {name}, password: {name}, permissions: {{ {permissions} }} }}\n")
    };
    format!("authorization {{ users: [\n{}] }}\n", users().into_iter().map(user).collect::<String>())
}

fn message(subject: &str) -> Message {
    Message {
        subject: subject.replace('>', &uuid::Uuid::now_v7().to_string()),
        ce_id: uuid::Uuid::now_v7().to_string(),
        ce_source: "test".into(),
        ce_type: "stampede.test.v1".into(),
        ce_time: Timestamp::now(),
        correlation_id: None,
        causation_id: None,
        traceparent: None,
        msg_id: uuid::Uuid::now_v7().to_string(),
        payload: b"{}".to_vec(),
    }
}

fn heartbeat(service: &str) -> Heartbeat {
    Heartbeat {
        service: service.into(),
        instance: format!("{service}-1"),
        version: "1".into(),
        address: Some("localhost:80".into()),
        admin: "localhost:81".into(),
        ready: true,
        started_at: Timestamp::now(),
    }
}

#[tokio::test]
async fn the_declared_users_can_do_what_their_services_do() {
    let nats = Nats::start_with_config(&server_config()).await;
    let mut buses = HashMap::new();
    for user in users() {
        buses.insert(user.name, connect_as(&nats, user.name, user.name).await);
    }
    let operator = &buses["operator"];
    provision(operator.jetstream()).await;

    work_and_bury(&buses).await;
    copy(&buses).await;
    call(&buses).await;

    let members = Members::new(buses["gateway"].clone());
    tokio::spawn(members.clone().run(CancellationToken::new()));
    for (name, bus) in buses.iter().filter(|(name, _)| **name != "operator") {
        let (name, bus) = (*name, bus.clone());
        tokio::spawn(async move {
            bus.heartbeat(|| std::future::ready(heartbeat(name)), CancellationToken::new()).await
        });
        eventually(PATIENCE, async || !members.takers(name).is_empty()).await;
    }
    for (name, bus) in &buses {
        assert_eq!(bus.violations(), 0, "{name}");
    }
}

/// Every consumer handles a message and buries another, and its keeper listens.
async fn work_and_bury(buses: &HashMap<&str, Bus>) {
    let operator = &buses["operator"];
    for (number, declared) in (1..).zip(CONSUMERS) {
        let bus = &buses[declared.service];
        let handled = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&handled);
        let judge = move |delivery: &Delivery| match &delivery.causation_id {
            Some(consumer) if consumer != declared.name => Verdict::Done,
            Some(_) => Verdict::Dead("as asked".into()),
            None => {
                count.fetch_add(1, Ordering::SeqCst);
                Verdict::Done
            }
        };
        let consumer = Consumer::new(bus.clone(), declared.stream, declared.name, settings());
        tokio::spawn(consumer.run(CancellationToken::new(), move |batch| {
            let verdicts = batch.iter().map(&judge).collect();
            async { Ok(verdicts) }
        }));
        let keeper = DeadLetterKeeper::new(bus.clone(), declared.stream, declared.name);
        tokio::spawn(keeper.run(CancellationToken::new()));
        operator.publish(&message(declared.filter[0])).await.unwrap();
        operator.publish(&message(declared.filter[0]).caused_by(declared.name)).await.unwrap();
        eventually(PATIENCE, async || handled.load(Ordering::SeqCst) > 0).await;
        eventually(PATIENCE, async || messages_in(operator, DLQ).await == number).await;
        eventually(PATIENCE, async || {
            let twin = advisory_consumer(declared.name);
            let advisories = operator.jetstream().get_stream(ADVISORIES).await.unwrap();
            advisories.consumer_info(twin).await.unwrap().num_waiting > 0
        })
        .await;
    }
}

/// State streams are replayed, and buckets written and watched.
async fn copy(buses: &HashMap<&str, Bus>) {
    buses["inventory"].publish(&message("evt.inventory.block.v1.x.y")).await.unwrap();
    assert_eq!(buses["inventory"].generation(EVT_INVENTORY).await.unwrap().map(|text| text.len()), Some(36));
    for service in ["catalog", "lobby"] {
        let caught_up = CancellationToken::new();
        let done = caught_up.clone();
        let replay = Replay::new(buses[service].clone(), EVT_INVENTORY, "evt.inventory.>");
        tokio::spawn(replay.run(CancellationToken::new(), async |_| Ok(()), move |_| done.cancel()));
        tokio::time::timeout(PATIENCE, caught_up.cancelled()).await.unwrap();
    }
    for bucket in BUCKETS {
        let writer = &buses[bucket.writer];
        writer.kv_put(bucket.name, "a", "1".into()).await.unwrap();
        assert_eq!(writer.kv_get(bucket.name, "a").await, Ok(Some("1".into())));
        for reader in bucket.readers {
            let seen = CancellationToken::new();
            let (done, bus) = (seen.clone(), buses[reader].clone());
            tokio::spawn(async move {
                bus.watch_bucket(bucket.name, CancellationToken::new(), |_, _| done.cancel()).await
            });
            tokio::time::timeout(PATIENCE, seen.cancelled()).await.unwrap();
        }
    }
}

/// Who calls what.
const CALLS: [(&str, &[&str]); 5] = [
    (
        "gateway",
        &[
            "rpc.inventory.any.hold",
            "rpc.inventory.63.hold",
            "rpc.inventory.7.get",
            "rpc.inventory.7.release",
        ],
    ),
    (
        "orders",
        &[
            "rpc.inventory.any.attach",
            "rpc.inventory.any.detach",
            "rpc.inventory.any.confirm",
            "rpc.inventory.any.free",
        ],
    ),
    ("lobby", &["rpc.inventory.any.close_pass"]),
    ("payments", &["rpc.orders.card"]),
    ("notify", &["rpc.orders.buyer"]),
];

async fn call(buses: &HashMap<&str, Bus>) {
    for (service, subject) in [("inventory", "rpc.inventory.*.*"), ("orders", "rpc.orders.*")] {
        let settings =
            ResponderSettings { subject: subject.into(), queue: service.into(), capacity: 8, workers: 1 };
        tokio::spawn(Responder::new(buses[service].clone(), settings).run(CancellationToken::new()));
    }
    for (caller, subjects) in CALLS {
        for subject in subjects {
            // That there is no such function is an answer, and only the responder can give it.
            eventually(PATIENCE, async || {
                let answer = buses[caller].call_repeatedly::<Echo>((*subject).into(), &String::new()).await;
                matches!(answer, Err(stampede_bus::CallError::Malformed(_)))
            })
            .await;
        }
    }
}

#[tokio::test]
async fn the_server_refuses_every_call_and_every_event_that_is_not_a_services_own() {
    let nats = Nats::start_with_config(&server_config()).await;
    let operator = connect_as(&nats, "operator", "operator").await;
    let mut heard = operator.client().subscribe(">").await.unwrap();
    operator.client().flush().await.unwrap();
    let calls = CALLS.iter().flat_map(|(caller, subjects)| subjects.iter().map(move |own| (*caller, *own)));
    let events = [
        ("catalog", "evt.catalog.show.v1.x"),
        ("inventory", "evt.inventory.block.v1.x.y"),
        ("inventory", "evt.inventory.layout.v1.x"),
        ("inventory", "evt.inventory.pass.v1.x"),
        ("orders", "evt.orders.order.v1.x"),
        ("orders", "cmd.payments.capture"),
        ("orders", "cmd.notify.tickets"),
        ("payments", "evt.payments.result.v1.x"),
        ("notify", "evt.notify.mail.v1.x"),
    ];
    let owned: Vec<(&str, &str)> = calls.chain(events).collect();
    // Of everybody: another version, another noun, a function that does not exist, all of a service.
    let nobodys = [
        "rpc.inventory.any.nothing",
        "rpc.inventory.hold",
        "rpc.orders.x.card",
        "evt.orders.order.v2.x",
        "evt.inventory.hold.v1.x",
        "evt.payments.ledger.v1.x",
        "rpc.payments.any.capture",
    ];
    for user in users().iter().filter(|user| user.name != "operator") {
        let bus = connect_as(&nats, user.name, user.name).await;
        let (own, foreign): (Vec<_>, Vec<_>) = owned.iter().partition(|(owner, _)| *owner == user.name);
        let foreign = foreign.into_iter().map(|(_, subject)| subject).chain(nobodys);
        let mut refused = 0;
        for subject in foreign {
            bus.client().publish(subject, user.name.into()).await.unwrap();
            refused += 1;
        }
        eventually(PATIENCE, async || bus.violations() == refused).await;
        for (_, subject) in own {
            bus.client().publish(subject, user.name.into()).await.unwrap();
            // What was refused would have come before, because the server keeps the order of a connection.
            let message = tokio::time::timeout(PATIENCE, heard.next()).await.unwrap().unwrap();
            assert_eq!((&*message.subject, &message.payload[..]), (subject, user.name.as_bytes()));
        }
        assert_eq!(bus.violations(), refused, "{}", user.name);
    }
}
