//! What operators and probes see.

use std::convert::Infallible;

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};
use stampede_resilience::{Forced, Meaning};
use stampede_service::{Error, HttpLimits, stack};
use stampede_testkit::eventually;
use tower::{Layer, ServiceExt};

use crate::{PATIENCE, Served, node};

#[tokio::test(flavor = "multi_thread")]
async fn probes_tell_alive_from_ready() {
    let node = node(&[]);
    let gate = node.readiness().gate("copy");
    let served = Served::start(node, Router::new()).await;

    assert_eq!(served.admin("/livez").await.status(), 200);
    let ready = served.admin("/readyz").await;
    assert_eq!(ready.status(), 503);
    let report: Value = ready.json().await.unwrap();
    assert_eq!(
        report,
        json!({
            "ready": false, "started": true, "draining": false,
            "conditions": [{ "name": "copy", "ready": false, "reason": "not yet" }],
        })
    );

    gate.open();
    assert_eq!(served.admin("/readyz").await.status(), 200);
    gate.close("lost");
    assert_eq!(served.admin("/readyz").await.status(), 503);
    assert_eq!(served.admin("/livez").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_version_say_who_it_is_and_what_it_does() {
    let router = stack(Router::new().route("/shows/{id}", get(async || "a show")), HttpLimits::internal());
    let served = Served::start(node(&[("INSTANCE", "orders-7")]), router).await;
    assert_eq!(served.get("/shows/1").await.status(), 200);

    let version: Value = served.admin("/version").await.json().await.unwrap();
    assert_eq!(version, json!({ "service": "orders", "version": "1.2.3", "instance": "orders-7" }));

    // Written down when the answer's future is dropped, a moment after the client has the answer.
    eventually(PATIENCE, async || {
        let metrics = served.admin("/metrics").await.text().await.unwrap();
        metrics.lines().any(|line| {
            line.starts_with("http_server_request_duration_seconds_count")
                && line.contains(r#"http_response_status_code="200""#)
                && line.contains(r#"http_route="/shows/{id}""#)
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_whom_the_process_calls_and_how_that_goes() {
    let node = node(&[]);
    let inventory = node.destination("inventory").unwrap();
    assert!(matches!(node.destination("nobody"), Err(Error::NoDestination { .. })));
    let served = Served::start(node, Router::new()).await;
    let shown = async || served.admin("/destinations").await.json::<Value>().await.unwrap();
    let of = |shown: Value| shown.as_array().unwrap().iter().find(|one| one["name"] == "inventory").cloned();
    let before = of(shown().await).unwrap();
    assert_eq!((&before["circuit"], &before["refused_open"]), (&json!("closed"), &json!(0)));
    assert_eq!(before["policy"]["attempt_ms"], 500);

    inventory.breaker().force(Some(Forced::Open));
    let call = inventory.single(|_: Result<&(), &Infallible>| Meaning::Answer);
    let refused = call.layer(tower::service_fn(async |()| Ok::<_, Infallible>(()))).oneshot(()).await;
    assert!(refused.is_err());

    let metrics = served.admin("/metrics").await.text().await.unwrap();
    let refused = r#"stampede_destination_calls_total{destination="inventory",outcome="open""#;
    assert!(metrics.contains(refused), "{metrics}");

    let inventory = of(shown().await).unwrap();
    assert_eq!((&inventory["circuit"], &inventory["refused_open"]), (&json!("open"), &json!(1)));
    assert_eq!((&inventory["places"], &inventory["retry_tokens"]), (&json!(7), &json!(20)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_is_open_before_the_node_serves() {
    let node = node(&[]);
    let url = format!("http://{}/startupz", node.admin_address().unwrap());
    let starting = reqwest::get(url).await.unwrap();
    assert_eq!(starting.status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_may_show_more_to_operators_and_open_another_door() {
    let node = node(&[]);
    node.serve_on_admin(Router::new().route("/knobs", get(async || "all at zero")));
    let (listener, door) = node.listen_on(([127, 0, 0, 1], 0).into()).await.unwrap();
    node.serve_beside(listener, Router::new().route("/tokens", get(async || "a token")));
    let served = Served::start(node, Router::new()).await;

    assert_eq!(served.admin("/knobs").await.text().await.unwrap(), "all at zero");
    assert_eq!(served.admin("/livez").await.status(), 200);
    assert_eq!(served.admin("/nothing").await.status(), 404);
    let token = reqwest::get(format!("http://{door}/tokens")).await.unwrap();
    assert_eq!(token.text().await.unwrap(), "a token");
    assert_eq!(served.get("/knobs").await.status(), 404, "only operators see it");
}
