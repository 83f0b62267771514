//! Quotas of requests.

use std::time::Instant;

use axum::Router;
use axum::routing::get;
use reqwest::StatusCode;
use stampede_contracts::Code;
use stampede_testkit::eventually;

use crate::support::{OPERATOR_TOKEN, PATIENCE, Stage, client, problem};

fn catalog() -> Router {
    Router::new().route("/v1/shows", get(async || "{}"))
}

#[tokio::test]
async fn a_session_shares_one_quota_over_all_its_connections() {
    let keys = [("SESSION_REQUESTS_PER_SECOND", "1"), ("SESSION_REQUESTS_BURST", "4")];
    let stage = Stage::start_with(&keys).await;
    stage.play("catalog", catalog()).await;
    let (token, another) = (stage.session().await, stage.session().await);
    let ask = async |token: &str| {
        let url = format!("{}/v1/shows", stage.base);
        client().get(url).bearer_auth(token).send().await.unwrap()
    };
    let began = Instant::now();
    let answers = futures::future::join_all((0..12).map(|_| ask(&token))).await;
    let fine = answers.iter().filter(|answer| answer.status() == StatusCode::OK).count();
    // On a busy machine seconds pass, and with each of them one more.
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!((4..=4 + seconds).contains(&fine), "{fine} of 12 in {seconds} s");
    for answer in answers {
        assert_eq!(answer.headers()["ratelimit-policy"], r#""default";q=4;w=4"#);
        assert!(answer.headers().contains_key("ratelimit"));
        if answer.status() != StatusCode::OK {
            assert_eq!(answer.headers()["retry-after"], "1");
            let problem = problem(answer).await;
            assert_eq!((problem.code, problem.retry_after), (Code::RateLimited, Some(1)));
        }
    }
    assert_eq!(ask(&another).await.status(), StatusCode::OK, "another session has its own");
}

#[tokio::test]
async fn without_a_session_the_address_counts() {
    let keys = [("ADDRESS_REQUESTS_PER_SECOND", "1"), ("ADDRESS_REQUESTS_BURST", "300")];
    let stage = Stage::start_with(&keys).await;
    stage.play("catalog", catalog()).await;
    let ask = async || client().get(format!("{}/v1/shows", stage.base)).send().await.unwrap();
    let first = ask().await;
    assert_eq!(first.headers()["ratelimit-policy"], r#""default";q=300;w=300"#);
    let mut refused = None;
    for _ in 0..400 {
        let forged = stage.get("/v1/shows").bearer_auth("stp1.forged.token").send().await.unwrap();
        if forged.status() == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(forged);
            break;
        }
    }
    assert_eq!(
        problem(refused.expect("a forged token brings no quota of its own")).await.code,
        Code::RateLimited
    );
    let token = stage.session().await;
    let with_session = stage.get("/v1/shows").bearer_auth(token).send().await.unwrap();
    assert_eq!(with_session.status(), StatusCode::OK);
    let unlimited = stage.get("/v1/shows").header("operator-token", OPERATOR_TOKEN).send().await.unwrap();
    assert_eq!(unlimited.status(), StatusCode::OK);
    assert!(!unlimited.headers().contains_key("ratelimit"));
}

#[tokio::test]
async fn gateways_share_the_quota_of_a_client() {
    let keys = [("SESSION_REQUESTS_PER_SECOND", "1"), ("SESSION_REQUESTS_BURST", "8")];
    let stage = Stage::start_with(&keys).await;
    stage.play("catalog", catalog()).await;
    let left = async || {
        let token = stage.session().await;
        let answer = stage.get("/v1/shows").bearer_auth(token).send().await.unwrap();
        answer.headers()["ratelimit"].to_str().unwrap().to_owned()
    };
    assert_eq!(left().await, r#""default";r=7;t=1"#, "alone it has all of it");
    stage.announce("gateway", "127.0.0.1:9".parse().unwrap());
    // One of eight counts twice, and of the six that are left three are this gateway's.
    eventually(PATIENCE, async || left().await == r#""default";r=3;t=2"#).await;
}
