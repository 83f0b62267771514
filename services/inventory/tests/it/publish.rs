//! What others are told of blocks and layouts.

use std::collections::HashSet;

use futures::StreamExt;
use futures::future::join_all;
use stampede_contracts::event::{BlockState, LayoutPublished, Row, SHOW_ROWS_MAX, Seating, ShowPublished};
use stampede_contracts::topology::{EVT_INVENTORY, LAYOUT};
use stampede_contracts::{BlockId, Event, Timestamp};
use stampede_inventory::publisher::Blocks;
use stampede_testkit::eventually;

use crate::server::provision;
use crate::world::{PATIENCE, World, best, of_order, rows};

/// Whether the stream has the block as the database has it.
async fn is_told(world: &World, show: &ShowPublished, block: BlockId) {
    eventually(PATIENCE, async || {
        let Some(told) = world.published(show.show_id, block).await else { return false };
        let truth: (i64, Option<String>, i32, i32, i32, i32) =
            sqlx::query_as("SELECT version, seats, free, held, attached, sold FROM block WHERE id = $1")
                .bind(block.number())
                .fetch_one(world.pool())
                .await
                .unwrap();
        let counts =
            [told.free, told.held, told.attached, told.sold].map(|count| i32::try_from(count).unwrap());
        let [free, held, attached, sold] = counts;
        (told.version, told.seats, free, held, attached, sold) == truth
    })
    .await;
}

#[tokio::test]
async fn every_change_is_told_in_the_end() {
    let (world, _replica) = World::with_replica().await;
    let (show, layout) = world.open_section(rows(&[6])).await;
    let block = layout.blocks[0].block_id;
    let first = world.published(show.show_id, block).await.unwrap();
    assert_eq!((first.seats.as_deref(), first.version, first.capacity), (Some("ffffff"), 1, 6));

    let hold = world.hold(&best(&show, 2)).await.unwrap();
    is_told(&world, &show, block).await;
    let attach = world.attach_of(&hold);
    world.attach(&attach).await.unwrap();
    is_told(&world, &show, block).await;
    world.confirm(&of_order(&attach)).await.unwrap();
    is_told(&world, &show, block).await;
    let last = world.published(show.show_id, block).await.unwrap();
    assert_eq!(last.seats.as_deref(), Some("ffssff"));
    assert_eq!((last.free, last.sold, last.version), (4, 2, 4));
    eventually(PATIENCE, async || world.count("SELECT count(*) FROM block WHERE dirty").await == 0).await;
}

#[tokio::test]
async fn a_busy_block_is_told_ten_times_a_second_at_most() {
    let (world, _replica) = World::with_replica().await;
    let (show, layout) = world.open_section(Seating::GeneralAdmission(1_000)).await;
    let mut told = world.operator.client().subscribe("evt.inventory.block.v1.>").await.unwrap();
    world.operator.client().flush().await.unwrap();
    let started = Timestamp::now();
    for _ in 0..10 {
        join_all((0..20).map(|_| async { world.hold(&best(&show, 1)).await.unwrap() })).await;
    }
    is_told(&world, &show, layout.blocks[0].block_id).await;
    let periods = u64::try_from(Timestamp::now().since(started).as_millis()).unwrap() / 100 + 1;
    told.unsubscribe_after(0).await.ok();
    let mut count = 0;
    let mut versions = HashSet::new();
    while let Some(message) = told.next().await {
        let state: BlockState = serde_json::from_slice(&message.payload).unwrap();
        versions.insert(state.version);
        count += 1;
    }
    assert!((1..=periods).contains(&count), "{count} messages in {periods} periods");
    assert!(versions.len() < 200, "coalesced");
}

#[tokio::test]
async fn a_lost_stream_and_bucket_are_filled_again() {
    let (mut world, _replica) = World::with_replica().await;
    let (show, layout) = world.open_section(rows(&[700, 700])).await;
    let (quiet, quiet_layout) = world.open_section(Seating::GeneralAdmission(7)).await;
    world.hold(&best(&show, 2)).await.unwrap();
    for block in &layout.blocks {
        is_told(&world, &show, block.block_id).await;
    }

    world.nats.lose_store().await;
    world.reconnect().await;
    provision(&world.operator).await;
    eventually(PATIENCE, async || world.layout(quiet.show_id).await.is_some()).await;
    eventually(PATIENCE, async || world.layout(show.show_id).await.is_some()).await;
    assert_eq!(world.layout(show.show_id).await.unwrap(), layout);
    for block in &layout.blocks {
        assert!(world.published(show.show_id, block.block_id).await.is_some(), "blocks come before layouts");
        is_told(&world, &show, block.block_id).await;
    }
    is_told(&world, &quiet, quiet_layout.blocks[0].block_id).await;
    let stream = world.operator.jetstream().get_stream(EVT_INVENTORY).await.unwrap();
    let subject = format!("evt.inventory.layout.v1.{}", show.show_id);
    eventually(PATIENCE, async || stream.get_last_raw_message_by_subject(&subject).await.is_ok()).await;
    let message = stream.get_last_raw_message_by_subject(&subject).await.unwrap();
    assert_eq!(serde_json::from_slice::<LayoutPublished>(&message.payload).unwrap(), layout);
    eventually(PATIENCE, async || world.hold(&best(&show, 2)).await.is_ok()).await;
    world.check().await;
}

#[tokio::test]
async fn the_layout_of_the_largest_show_is_stored() {
    let (world, _replica) = World::with_replica().await;
    let row = |nth| Row { label: format!("{nth:04}{}", "\u{1f39f}".repeat(12)), seats: 40 };
    let rows: Vec<Row> = (0..SHOW_ROWS_MAX).map(row).collect();
    let sections: Vec<_> = rows.chunks(50).map(|rows| Seating::Rows(rows.to_vec())).collect();
    let show = world.show(&sections);
    let layout = world.open(&show).await;
    let told: usize = layout.blocks.iter().map(|block| block.rows.len()).sum();
    assert_eq!(told, SHOW_ROWS_MAX);
    let stream = world.operator.jetstream().get_stream(EVT_INVENTORY).await.unwrap();
    let subject = format!("evt.inventory.layout.v1.{}", show.show_id);
    eventually(PATIENCE, async || stream.get_last_raw_message_by_subject(&subject).await.is_ok()).await;
}

#[tokio::test]
async fn a_lost_bucket_alone_is_filled_again() {
    let (world, _replica) = World::with_replica().await;
    let (show, layout) = world.open_section(rows(&[10])).await;
    world.operator.jetstream().delete_key_value(LAYOUT).await.unwrap();
    provision(&world.operator).await;
    eventually(PATIENCE, async || world.layout(show.show_id).await == Some(layout.clone())).await;
}

#[tokio::test]
async fn seats_are_sold_while_nats_keeps_nothing() {
    let (world, _replica) = World::with_replica().await;
    let (show, layout) = world.open_section(rows(&[10])).await;
    world.operator.jetstream().delete_stream(EVT_INVENTORY).await.unwrap();
    let hold = world.hold(&best(&show, 2)).await.unwrap();
    let attach = world.attach_of(&hold);
    world.attach(&attach).await.unwrap();
    world.confirm(&of_order(&attach)).await.unwrap();
    provision(&world.operator).await;
    eventually(PATIENCE, async || world.published(show.show_id, layout.blocks[0].block_id).await.is_some())
        .await;
    is_told(&world, &show, layout.blocks[0].block_id).await;
}

#[tokio::test]
async fn a_publisher_that_was_frozen_replaces_nothing_newer() {
    let (world, replica) = World::with_replica().await;
    let (show, layout) = world.open_section(rows(&[10])).await;
    let block = layout.blocks[0].block_id;
    is_told(&world, &show, block).await;
    let read = replica.inventory.store().blocks_of(show.show_id, world.now()).await.unwrap();
    let bus = world.inventory_bus().await;
    // One that knew the stream when it froze between reading and sending, and one that has just begun.
    let mut frozen = Blocks::new(&replica.inventory, &bus);
    frozen.publish(&read).await.unwrap();
    let mut behind = Blocks::new(&replica.inventory, &bus);
    behind.publish(&read).await.unwrap();
    let mut late = Blocks::new(&replica.inventory, &bus);

    world.hold(&best(&show, 2)).await.unwrap();
    is_told(&world, &show, block).await;
    for publisher in [&mut frozen, &mut late] {
        publisher.publish(&read).await.unwrap();
        let stored = world.published(show.show_id, block).await.unwrap();
        assert_eq!(stored.version, 2, "the stream goes backwards");
    }
    world.hold(&best(&show, 2)).await.unwrap();
    is_told(&world, &show, block).await;
    // What is current is published behind the messages of others, and then nothing is left to be noted.
    eventually(PATIENCE, async || world.count("SELECT count(*) FROM block WHERE dirty").await == 0).await;
    let read = replica.inventory.store().blocks_of(show.show_id, world.now()).await.unwrap();
    let stored = async || bus.last_message(EVT_INVENTORY, &read[0].subject()).await.unwrap().unwrap().0;
    let writer = "SELECT xmin::text::bigint FROM block";
    let (before, written_by) = (stored().await, world.count(writer).await);
    behind.publish(&read).await.unwrap();
    assert!(stored().await > before);
    assert_eq!(world.count(writer).await, written_by);
    world.check().await;
}

#[tokio::test]
async fn state_is_told_again_from_time_to_time_so_that_no_copy_is_wrong_for_ever() {
    let mut world = World::new().await;
    world.set("STATE_AGAIN_EVERY_MS", "200");
    let _replica = world.replica().await;
    let (show, layout) = world.open_section(rows(&[10])).await;
    let stream = world.operator.jetstream().get_stream(EVT_INVENTORY).await.unwrap();
    // A copy was lost with the end of the stream, and the generation is the same.
    stream.purge().await.unwrap();
    world
        .operator
        .jetstream()
        .get_key_value(LAYOUT)
        .await
        .unwrap()
        .purge(show.show_id.to_string())
        .await
        .unwrap();
    is_told(&world, &show, layout.blocks[0].block_id).await;
    let subject = format!("evt.inventory.layout.v1.{}", show.show_id);
    eventually(PATIENCE, async || stream.get_last_raw_message_by_subject(&subject).await.is_ok()).await;
    eventually(PATIENCE, async || world.layout(show.show_id).await == Some(layout.clone())).await;
}

#[tokio::test]
async fn without_its_bucket_the_stream_is_told_and_without_its_stream_the_bucket() {
    let (world, _replica) = World::with_replica().await;
    let (show, layout) = world.open_section(rows(&[10])).await;
    world.operator.jetstream().delete_key_value(LAYOUT).await.unwrap();
    // Its layout cannot be published, nor can the bucket be looked at.
    world.publish(&world.show(&[rows(&[10])])).await;
    eventually(PATIENCE, async || world.count("SELECT count(*) FROM show").await == 2).await;
    world.hold(&best(&show, 2)).await.unwrap();
    is_told(&world, &show, layout.blocks[0].block_id).await;
    eventually(PATIENCE, async || world.count("SELECT count(*) FROM block WHERE dirty").await == 0).await;
}
