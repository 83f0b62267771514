use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_nats::jetstream::kv;
use stampede_bus::{BucketError, Bus};
use stampede_testkit::{Nats, eventually};
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, connect};

async fn make_bucket(bus: &Bus) -> kv::Store {
    bus.jetstream()
        .create_key_value(kv::Config { bucket: "layout".into(), ..kv::Config::default() })
        .await
        .unwrap()
}

#[tokio::test]
async fn what_was_put_is_got_until_it_is_deleted() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    assert!(bus.kv_put("layout", "a", "1".into()).await.is_err());
    assert!(matches!(bus.kv_get("layout", "a").await, Err(BucketError::Unavailable(_))));

    let store = make_bucket(&bus).await;
    assert_eq!(bus.kv_get("layout", "a").await, Ok(None));
    bus.kv_put("layout", "a", "1".into()).await.unwrap();
    bus.kv_put("layout", "a", "2".into()).await.unwrap();
    assert_eq!(bus.kv_get("layout", "a").await, Ok(Some("2".into())));
    assert_eq!(store.get("a").await.unwrap(), Some("2".into()));
    store.delete("a").await.unwrap();
    assert_eq!(bus.kv_get("layout", "a").await, Ok(None));
}

#[tokio::test]
async fn a_watch_sees_what_is_there_and_every_change_also_after_the_bucket_was_lost() {
    let mut nats = Nats::start().await;
    let bus = connect(&nats).await;
    let store = make_bucket(&bus).await;
    bus.kv_put("layout", "old", "0".into()).await.unwrap();
    bus.kv_put("layout", "old", "1".into()).await.unwrap();
    bus.kv_put("layout", "doomed", "1".into()).await.unwrap();

    let known = Arc::new(Mutex::new(BTreeMap::new()));
    let (copy, watcher) = (Arc::clone(&known), bus.clone());
    let _watch = tokio::spawn(async move {
        let change = |key: String, value: Option<bytes::Bytes>| match value {
            Some(value) => drop(copy.lock().unwrap().insert(key, value)),
            None => drop(copy.lock().unwrap().remove(&key)),
        };
        watcher.watch_bucket("layout", CancellationToken::new(), change).await
    });
    let now =
        || known.lock().unwrap().iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>();
    eventually(PATIENCE, async || now() == ["doomed=b\"1\"", "old=b\"1\""]).await;

    store.delete("doomed").await.unwrap();
    bus.kv_put("layout", "new", "1".into()).await.unwrap();
    eventually(PATIENCE, async || now() == ["new=b\"1\"", "old=b\"1\""]).await;

    nats.lose_store().await;
    eventually(PATIENCE, async || bus.is_connected()).await;
    make_bucket(&bus).await;
    bus.kv_put("layout", "new", "2".into()).await.unwrap();
    eventually(PATIENCE, async || now() == ["new=b\"2\"", "old=b\"1\""]).await;
}
