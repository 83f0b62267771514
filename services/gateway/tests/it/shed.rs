//! Too much to do.

use std::sync::Arc;

use axum::Router;
use axum::extract::RawQuery;
use axum::routing::get;
use reqwest::StatusCode;
use stampede_contracts::{Code, OrderId};
use stampede_testkit::eventually;
use tokio::sync::{Notify, Semaphore};

use crate::support::{OPERATOR_TOKEN, PATIENCE, Stage, problem};

/// Answers at once, but to `?hang`.
fn catalog(entered: &Arc<Semaphore>, leave: &Arc<Notify>) -> Router {
    let (entered, leave) = (Arc::clone(entered), Arc::clone(leave));
    let shows = move |RawQuery(query): RawQuery| async move {
        if query.as_deref() == Some("hang") {
            let left = leave.notified();
            entered.add_permits(1);
            left.await;
        }
        "{}"
    };
    Router::new().route("/v1/shows", get(shows))
}

#[tokio::test]
async fn browsing_is_shed_while_orders_go_on() {
    let one = [
        ("SHED_LIMIT_MIN", "1"),
        ("SHED_LIMIT_INITIAL", "1"),
        ("SHED_LIMIT_MAX", "1"),
        ("SHED_QUEUE_MAX", "0"),
    ];
    let stage = Stage::start_with(&one).await;
    let (entered, leave) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    stage.play("catalog", catalog(&entered, &leave)).await;
    let order = format!("/v1/orders/{}", OrderId::new());
    stage.play("orders", Router::new().route("/v1/orders/{id}", get(async || "{}"))).await;

    let browse = |path: &str| stage.get(path).header("operator-token", OPERATOR_TOKEN).send();
    let hanging = tokio::spawn(browse("/v1/shows?hang"));
    entered.acquire().await.unwrap().forget();

    let shed = browse("/v1/shows").await.unwrap();
    let after: u32 = shed.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=6).contains(&after), "spread, so that not all come back together: {after}");
    let told = problem(shed).await;
    assert_eq!((told.code, told.retry_after), (Code::Busy, Some(after)));
    let paid = stage.get(&order).header("order-secret", "5e".repeat(32)).send().await.unwrap();
    assert_eq!(paid.status(), StatusCode::OK, "what is about an order is let in");
    // Whoever finds its own order not urgent waits with the others.
    let humble = stage
        .get(&order)
        .header("order-secret", "5e".repeat(32))
        .header("priority", "u=7")
        .send()
        .await
        .unwrap();
    assert_eq!(problem(humble).await.code, Code::Busy);
    assert_eq!(problem(browse("/v1/lobby/anybody").await.unwrap()).await.code, Code::Busy);

    leave.notify_waiters();
    assert_eq!(hanging.await.unwrap().unwrap().status(), StatusCode::OK);
    eventually(PATIENCE, async || browse("/v1/shows").await.unwrap().status() == StatusCode::OK).await;
    let metrics = stage.metrics().await;
    for class in ["browse", "join"] {
        let refused = format!(r#"stampede_shed_refused_total{{class="{class}",gate="gateway","#);
        let full =
            metrics.lines().find(|line| line.starts_with(&refused) && line.contains(r#"reason="full""#));
        assert!(full.is_some_and(|line| !line.ends_with(" 0")), "{class}: {metrics}");
    }
}
