//! Many buyers at once: exactly what there is gets sold.

use stampede::load::{self, Habits, Outcome, Plan};

use crate::stage::{Stage, free_seats};

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_buyers_for_five_hundred_seats() {
    let stage = Stage::start(&[]).await;
    let club = stage.show("club").await;
    let plan = Plan {
        url: stage.platform.gateway_url.clone(),
        buyers: 2_000,
        rate: 200.0,
        shows: vec![club.summary.slug.clone()],
        duration: None,
        in_flight_max: 2_000,
        habits: Habits::ONLY_BUY,
        seed: 7,
        operator_token: Some(stage.platform.secrets().unwrap().operator_token().unwrap()),
        history: stage.platform.state.root().join("history.jsonl"),
    };
    let summary = load::run(plan, |_, _| {}).await.unwrap();
    let told = summary.count(Outcome::Bought) + summary.count(Outcome::SoldOut);
    assert_eq!((summary.arrived, told), (2_000, 2_000), "{summary}");
    stage.free_seats_become("club", 0).await;
    let sold: u64 = stage
        .show("club")
        .await
        .sections
        .iter()
        .filter_map(|section| section.availability)
        .map(|now| now.sold)
        .sum();
    assert_eq!(sold, 500);
    assert_eq!(free_seats(&stage.show("club").await), 0);
}
