//! Telling the merchant.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use stampede_psp_sim::card::Card;
use stampede_psp_sim::knobs::Knobs;
use stampede_psp_sim::webhooks::{Target, sign};
use stampede_service::{Rotating, Secret};
use stampede_testkit::eventually;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{PATIENCE, Sim, serve, sim_with};

const SECRET: &str = "whisper";
const NEXT_SECRET: &str = "the next one";

/// A merchant that refuses each event as often as it was told to before it takes it.
#[derive(Clone, Default)]
struct Merchant {
    refusals: usize,
    refused: Arc<Mutex<HashMap<String, usize>>>,
    taken: Arc<Mutex<Vec<Value>>>,
}

async fn receive(State(merchant): State<Merchant>, headers: HeaderMap, body: String) -> StatusCode {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let id = header("webhook-id");
    let timestamp = header("webhook-timestamp").parse().unwrap();
    let signatures = [SECRET, NEXT_SECRET].map(|secret| sign(secret, &id, timestamp, &body));
    assert_eq!(header("webhook-signature"), signatures.join(" "), "one by each, while it is replaced");
    let mut refused = merchant.refused.lock().unwrap();
    let count = refused.entry(id).or_default();
    if *count < merchant.refusals {
        *count += 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    merchant.taken.lock().unwrap().push(serde_json::from_str(&body).unwrap());
    StatusCode::NO_CONTENT
}

async fn sim_for(merchant: Merchant) -> (Sim, AbortOnDropHandle<()>) {
    let (url, server) = serve(Router::new().route("/hooks", post(receive)).with_state(merchant)).await;
    let target = Target {
        url: format!("{url}/hooks").parse().unwrap(),
        secret: Rotating { current: Secret::new(SECRET), others: vec![Secret::new(NEXT_SECRET)] },
    };
    (sim_with(Duration::from_secs(1), Some(target)).await, server)
}

impl Merchant {
    fn types(&self) -> HashSet<String> {
        let taken = self.taken.lock().unwrap();
        taken.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }
}

#[tokio::test]
async fn the_merchant_is_told_what_happened_even_if_it_refuses_at_first() {
    let merchant = Merchant { refusals: 2, ..Merchant::default() };
    let (sim, _server) = sim_for(merchant.clone()).await;
    let authorisation = sim.authorised("k1", Card::Works).await;
    sim.capture("k2", &authorisation).await.unwrap();
    sim.authorise("k3", &Card::Declined.token()).await.unwrap();
    let expected = ["authorisation.succeeded", "capture.succeeded", "authorisation.declined"];
    let expected: HashSet<String> = expected.into_iter().map(str::to_owned).collect();
    eventually(PATIENCE, async || merchant.types() == expected).await;

    let taken = merchant.taken.lock().unwrap();
    let told = taken.iter().find(|event| event["type"] == "authorisation.succeeded").unwrap();
    assert_eq!((told["key"].as_str(), told["id"].as_str()), (Some("k1"), Some(authorisation.as_str())));
}

#[tokio::test]
async fn a_doubled_webhook_has_the_same_id() {
    let merchant = Merchant::default();
    let (sim, _server) = sim_for(merchant.clone()).await;
    let knobs = Knobs { webhook_delay_ms: 0, webhook_duplicate_rate: 1.0, ..Knobs::default() };
    sim.set(knobs);
    sim.authorised("k1", Card::Works).await;
    eventually(PATIENCE, async || merchant.count() == 2).await;
    let taken = merchant.taken.lock().unwrap();
    assert_eq!(taken[0], taken[1]);
}

#[tokio::test]
async fn webhooks_overtake_each_other_and_none_is_lost() {
    let merchant = Merchant::default();
    let (sim, _server) = sim_for(merchant.clone()).await;
    sim.set(Knobs { webhook_delay_ms: 0, webhook_shuffle_rate: 0.5, ..Knobs::default() });
    let keys: Vec<String> = (0..20).map(|n| format!("k{n:02}")).collect();
    for key in &keys {
        sim.authorised(key, Card::Works).await;
    }
    eventually(PATIENCE, async || merchant.count() == keys.len()).await;
    let taken = merchant.taken.lock().unwrap();
    let mut told: Vec<&str> = taken.iter().map(|event| event["key"].as_str().unwrap()).collect();
    assert_ne!(told, keys, "in order");
    told.sort_unstable();
    assert_eq!(told, keys);
}
