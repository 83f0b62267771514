use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use stampede_bus::{Bus, Members};
use stampede_contracts::{Heartbeat, Timestamp};
use stampede_testkit::{Nats, eventually};
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, connect};

fn heartbeat(instance: &str, ready: bool) -> Heartbeat {
    Heartbeat {
        service: "orders".into(),
        instance: instance.into(),
        version: "1".into(),
        address: Some(format!("{instance}:8080")),
        admin: format!("{instance}:8081"),
        ready,
        started_at: Timestamp::now(),
    }
}

fn beat(bus: &Bus, instance: &'static str, ready: Arc<AtomicBool>) -> CancellationToken {
    let (bus, shutdown) = (bus.clone(), CancellationToken::new());
    let until = shutdown.clone();
    tokio::spawn(async move {
        bus.heartbeat(|| std::future::ready(heartbeat(instance, ready.load(Ordering::SeqCst))), until).await
    });
    shutdown
}

#[tokio::test]
async fn members_are_found_and_leave_when_they_stop_or_take_no_work() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let members = Members::new(bus.clone());
    tokio::spawn(members.clone().run(CancellationToken::new()));
    assert!(members.takers("orders").is_empty());

    let ready = Arc::new(AtomicBool::new(false));
    let first = beat(&bus, "a", Arc::clone(&ready));
    let _second = beat(&bus, "b", Arc::new(AtomicBool::new(true)));
    eventually(PATIENCE, async || members.all("orders").len() == 2).await;
    assert_eq!(members.takers("orders"), ["http://b:8080"]);

    let before = members.version();
    ready.store(true, Ordering::SeqCst);
    let both = ["http://a:8080", "http://b:8080"];
    eventually(PATIENCE, async || members.takers("orders") == both).await;
    assert_ne!(members.version(), before);

    first.cancel();
    eventually(PATIENCE, async || members.takers("orders") == ["http://b:8080"]).await;
    eventually(PATIENCE, async || members.all("orders").len() == 1).await;
}

#[tokio::test]
async fn the_last_word_of_a_member_is_that_it_takes_no_more_work() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let mut said = bus.client().subscribe("oam.heartbeat.orders.a").await.unwrap();
    let stop = beat(&bus, "a", Arc::new(AtomicBool::new(true)));
    let mut ready = async || {
        let message = tokio::time::timeout(PATIENCE, said.next()).await.unwrap().unwrap();
        serde_json::from_slice::<Heartbeat>(&message.payload).unwrap().ready
    };
    assert!(ready().await);
    stop.cancel();
    while ready().await {}
}

#[tokio::test]
async fn while_the_server_is_away_the_last_known_set_stays() {
    let mut nats = Nats::start().await;
    let bus = connect(&nats).await;
    let members = Members::new(bus.clone());
    tokio::spawn(members.clone().run(CancellationToken::new()));
    let _beating = beat(&bus, "a", Arc::new(AtomicBool::new(true)));
    eventually(PATIENCE, async || !members.takers("orders").is_empty()).await;

    nats.freeze();
    eventually(PATIENCE, async || !bus.is_connected()).await;
    assert!(!members.takers("orders").is_empty());
    nats.thaw();
    nats.restart().await;
    eventually(PATIENCE, async || bus.is_connected()).await;
    assert!(!members.takers("orders").is_empty());
}

#[tokio::test]
async fn nobody_speaks_for_another() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let members = Members::new(bus.clone());
    tokio::spawn(members.clone().run(CancellationToken::new()));
    let _beating = beat(&bus, "honest", Arc::new(AtomicBool::new(true)));
    eventually(PATIENCE, async || !members.takers("orders").is_empty()).await;

    let forged = serde_json::to_vec(&heartbeat("forged", true)).unwrap();
    bus.client().publish("oam.heartbeat.lobby.x", forged.into()).await.unwrap();
    bus.client().publish("oam.heartbeat.lobby.x", "nonsense".into()).await.unwrap();
    let _later = beat(&bus, "later", Arc::new(AtomicBool::new(true)));
    eventually(PATIENCE, async || members.all("orders").len() == 2).await;
    assert!(members.all("lobby").is_empty());
}
