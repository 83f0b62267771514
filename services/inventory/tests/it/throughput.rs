//! A measurement, not a check: how many holds and purchases this machine bears.
//!
//! `cargo nextest run -p stampede-inventory --run-ignored only --no-capture -E 'test(throughput)'`

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use stampede_contracts::event::Seating;

use crate::world::{World, best, of_order, rows};

const BUYERS: usize = 32;

/// Calls `work` again and again from [`BUYERS`] places at once.
async fn a_second(name: &str, count: usize, work: impl AsyncFn() -> ()) {
    let started = Instant::now();
    let mut latencies: Vec<Duration> = stream::iter(0..count)
        .map(|_| async {
            let started = Instant::now();
            work().await;
            started.elapsed()
        })
        .buffer_unordered(BUYERS)
        .collect()
        .await;
    let took = started.elapsed();
    latencies.sort_unstable();
    let at = |share: usize| latencies[latencies.len() * share / 100];
    let rate = count as f64 / took.as_secs_f64();
    println!("{name}: {rate:.0} a second, p50 {:?}, p99 {:?}", at(50), at(99));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput() {
    let (world, _replica) = World::with_replica().await;
    let (ga, _) = world.open_section(Seating::GeneralAdmission(20_000)).await;
    a_second("holds, 20 blocks without numbers", 4_000, async || {
        world.hold(&best(&ga, 1)).await.unwrap();
    })
    .await;
    let (numbered, _) = world.open_section(rows(&[25; 800])).await;
    a_second("holds of 2, 20 blocks with 1,000 seats", 4_000, async || {
        world.hold(&best(&numbered, 2)).await.unwrap();
    })
    .await;
    let (hot, _) = world.open_section(rows(&[25; 40])).await;
    a_second("holds, one block with 1,000 seats", 1_000, async || {
        world.hold(&best(&hot, 1)).await.unwrap();
    })
    .await;
    a_second("refusals, a full section", 4_000, async || {
        world.hold(&best(&hot, 1)).await.unwrap_err();
    })
    .await;
    a_second("purchases (hold, attach, confirm)", 2_000, async || {
        let hold = world.hold(&best(&ga, 1)).await.unwrap();
        let attach = world.attach_of(&hold);
        world.attach(&attach).await.unwrap();
        world.confirm(&of_order(&attach)).await.unwrap();
    })
    .await;
    let (updates, hot): (i64, i64) =
        sqlx::query_as("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'block'")
            .fetch_one(world.pool())
            .await
            .unwrap();
    println!("block: {updates} updates, {hot} of them without touching an index");
    world.check().await;
}
