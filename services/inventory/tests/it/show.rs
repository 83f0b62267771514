//! Shows as catalog publishes them.

use stampede_bus::Message;
use stampede_contracts::event::{Seating, ShowPublished};
use stampede_contracts::topology::{DLQ, EVT_CATALOG};
use stampede_contracts::{Money, Timestamp};
use stampede_telemetry::Telemetry;
use stampede_testkit::eventually;

use crate::world::{PATIENCE, World, best, code, rows};

#[tokio::test]
async fn a_show_is_laid_out_once_however_often_it_comes() {
    let (world, _replica) = World::with_replica().await;
    let show = world.show(&[rows(&[400, 400, 400]), Seating::GeneralAdmission(1_500)]);
    let layout = world.open(&show).await;
    let blocks: Vec<_> =
        layout.blocks.iter().map(|block| (block.section_id, block.capacity, block.rows.len())).collect();
    let [seats, floor] = [show.sections[0].section_id, show.sections[1].section_id];
    assert_eq!(blocks, [(seats, 800, 2), (seats, 400, 1), (floor, 750, 0), (floor, 750, 0)]);
    let mut shards: Vec<u16> = layout.blocks.iter().map(|block| block.shard).collect();
    shards.sort_unstable();
    shards.dedup();
    assert_eq!(shards.len(), 4);

    world.publish(&show).await;
    let last = ShowPublished { version: 2, title: "Another".into(), ..show.clone() };
    world.publish(&last).await;
    eventually(PATIENCE, async || world.count("SELECT version FROM show").await == 2).await;
    assert_eq!(world.count("SELECT count(*) FROM block").await, 4);
    assert_eq!(world.layout(show.show_id).await.unwrap(), layout);
}

#[tokio::test]
async fn a_show_published_in_an_outage_of_the_database_is_laid_out_after_it_however_long_that_is() {
    let (world, _replica) = World::with_replica().await;
    let show = world.show(&[rows(&[10])]);
    let consumer = async || {
        let stream = world.operator.jetstream().get_stream(EVT_CATALOG).await.unwrap();
        stream.consumer_info("inventory-shows").await.unwrap()
    };
    world.database.shut().await;
    world.publish(&show).await;
    let failed = r#"messaging_process_duration_seconds_count{error_type="failed",messaging_destination_template="inventory-shows""#;
    let attempts = || {
        let metrics = Telemetry::installed().unwrap().metrics().render().unwrap();
        let line = metrics.lines().find(|line| line.starts_with(failed)).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    eventually(PATIENCE, async || attempts() >= 3).await;
    world.database.open().await;

    eventually(PATIENCE, async || world.layout(show.show_id).await.is_some()).await;
    eventually(PATIENCE, async || consumer().await.num_ack_pending == 0).await;
    assert_eq!(consumer().await.delivered.consumer_sequence, 1, "the outage has used up no delivery");
    assert_eq!(world.operator.newest_dead_letter().await, Ok(0));
}

#[tokio::test]
async fn a_later_version_changes_what_later_holds_freeze_and_never_the_geometry() {
    let (world, replica) = World::with_replica().await;
    let (show, layout) = world.open_section(rows(&[10])).await;
    let before = world.hold(&best(&show, 1)).await.unwrap();

    let mut later = ShowPublished { version: 3, title: "Later".into(), ..show.clone() };
    later.sections[0].price = Money::try_new(6_000, "EUR".parse().unwrap()).unwrap();
    later.sections[0].name = "Best".into();
    later.sections[0].seating = rows(&[99, 99]);
    replica.inventory.store().take_show(&later).await.unwrap();
    // This replica was not told by its own consumer and believes the old version; the database does not.
    let after = world.hold(&best(&show, 1)).await.unwrap();
    assert_eq!((after.total.amount(), after.show.title.as_str()), (6_000, "Later"));
    assert_eq!(after.seats[0].section, "Best");
    assert_eq!(world.get(&before).await.unwrap(), before);
    assert_eq!(world.layout(show.show_id).await.unwrap(), layout);

    let outdated = ShowPublished { version: 2, title: "Outdated".into(), ..show.clone() };
    assert!(!replica.inventory.store().take_show(&outdated).await.unwrap());
    assert_eq!(world.hold(&best(&show, 1)).await.unwrap().show.title, "Later");

    let closed = ShowPublished { version: 4, starts_at: world.now(), ..later };
    world.publish(&closed).await;
    eventually(PATIENCE, async || {
        world.hold(&best(&show, 1)).await.is_err_and(|problem| problem.code.as_str() == "not_on_sale")
    })
    .await;
    world.check().await;
}

#[tokio::test]
async fn what_is_no_show_is_laid_aside() {
    let (world, _replica) = World::with_replica().await;
    let message = Message {
        subject: "evt.catalog.show.v1.x".into(),
        ce_id: "1".into(),
        ce_source: "catalog".into(),
        ce_type: "stampede.catalog.show.v1".into(),
        ce_time: Timestamp::now(),
        correlation_id: None,
        causation_id: None,
        traceparent: None,
        msg_id: "1".into(),
        payload: b"{}".to_vec(),
    };
    world.operator.publish(&message).await.unwrap();
    eventually(PATIENCE, async || {
        let mut stream = world.operator.jetstream().get_stream(DLQ).await.unwrap();
        stream.info().await.unwrap().state.messages == 1
    })
    .await;
    let (show, _) = world.open_section(rows(&[1])).await;
    assert!(world.hold(&best(&show, 1)).await.is_ok(), "and the next one is taken");
    assert_eq!(code(world.hold(&best(&show, 1)).await), "seats_taken");
}
