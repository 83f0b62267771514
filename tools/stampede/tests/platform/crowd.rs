//! Many buyers at once: exactly what there is gets sold.

use stampede::load::{Habits, Outcome, Summary};

use crate::stage::{Stage, free_seats, sold_seats};

/// Everybody has tickets, was told that nothing is left, or, where the machine is too slow for them all, to come later.
fn everybody_was_told(summary: &Summary, buyers: u64) {
    let told = [Outcome::Bought, Outcome::SoldOut, Outcome::Refused].map(|outcome| summary.count(outcome));
    assert_eq!((summary.arrived, told.iter().sum()), (buyers, buyers), "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_buyers_for_five_hundred_seats() {
    let stage = Stage::start(&[]).await;
    let club = stage.show("club").await;
    let plan = stage.plan(&[&club.summary.slug], 2_000, 200.0, Habits::ONLY_BUY);
    let summary = stage.under_load(plan, async {}).await;
    everybody_was_told(&summary, 2_000);
    stage.free_seats_become("club", 0).await;
    let club = stage.show("club").await;
    assert_eq!((sold_seats(&club), free_seats(&club)), (vec![500], 0));
    stage.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn general_admission_is_never_sold_beyond_capacity() {
    let stage = Stage::start(&[]).await;
    // A block holds at most a thousand places: the first section is one, the second is two of them.
    let show = stage.general_admission("meadow", &[300, 1_100]).await;
    let plan = stage.plan(&[&show.summary.slug], 1_500, 150.0, Habits::ONLY_BUY);
    let summary = stage.under_load(plan, async {}).await;
    everybody_was_told(&summary, 1_500);
    stage.free_seats_become("meadow", 0).await;
    assert_eq!(sold_seats(&stage.show("meadow").await), [300, 1_100]);
    // Nobody was charged without a ticket, by the provider's own books.
    stage.verify().await;
}
