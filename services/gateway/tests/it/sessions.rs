//! Sessions and the operators' token.

use reqwest::StatusCode;
use stampede_contracts::Code;

use crate::support::{OPERATOR_TOKEN, Stage, client, problem};

const MINE: &str = "/v1/orders";

async fn refusal(stage: &Stage, authorization: &str) -> Code {
    let response = stage.get(MINE).header("authorization", authorization).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    problem(response).await.code
}

#[tokio::test]
async fn a_token_opens_what_belongs_to_a_session() {
    let stage = Stage::start().await;
    let token = stage.session().await;
    assert!(token.starts_with("stp1."));
    // Nobody plays orders, and to find that out one has to be let in.
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let mine = stage.get(MINE).header("authorization", format!("{scheme} {token}")).send().await.unwrap();
        assert_eq!(problem(mine).await.code, Code::Unavailable);
    }
    let response = stage.get(MINE).send().await.unwrap();
    assert_eq!(problem(response).await.code, Code::Unauthenticated);
}

#[tokio::test]
async fn what_proves_no_session_is_refused() {
    let stage = Stage::start().await;
    let token = stage.session().await;
    let (signed, mac) = token.rsplit_once('.').unwrap();
    let forged = [
        format!("Bearer {signed}.{}", "A".repeat(mac.len())),
        format!("Bearer {signed}."),
        format!("Bearer {signed}"),
        format!("Bearer {token}A"),
        format!("Bearer {}", token.replace("stp1", "stp2")),
        "Bearer".to_owned(),
        "Bearer \u{1F3AB}".to_owned(),
        format!("Basic {token}"),
        token.clone(),
        format!("Bearer {OPERATOR_TOKEN}"),
    ];
    for authorization in forged {
        assert_eq!(refusal(&stage, &authorization).await, Code::Unauthenticated, "{authorization}");
    }
    let twice = stage.get(MINE).bearer_auth(&token).header("authorization", format!("Bearer {token}"));
    assert_eq!(problem(twice.send().await.unwrap()).await.code, Code::Unauthenticated);
}

#[tokio::test]
async fn a_session_ends() {
    let stage = Stage::start_with(&[("SESSION_TTL_MS", "0")]).await;
    let token = stage.session().await;
    assert_eq!(refusal(&stage, &format!("Bearer {token}")).await, Code::Unauthenticated);
}

#[tokio::test]
async fn an_address_gets_so_many_sessions_however_many_connections_it_has() {
    let stage = Stage::start_with(&[("SESSIONS_PER_MINUTE", "1"), ("SESSIONS_BURST", "3")]).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        // A client of its own each time: another connection.
        let response = client().post(format!("{}/v1/sessions", stage.base)).send().await.unwrap();
        assert_eq!(response.headers()["ratelimit-policy"], r#""default";q=3;w=180"#);
        statuses.push(response.status().as_u16());
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            let wait: u32 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=61).contains(&wait), "{wait}");
            assert_eq!(problem(response).await.code, Code::RateLimited);
        }
    }
    assert_eq!(statuses, [201, 201, 201, 429, 429]);
    assert!(stage.metrics().await.contains("stampede_gateway_rate_limited"), "refusals are counted");

    let lifted = stage.post("/v1/sessions").header("operator-token", OPERATOR_TOKEN).send().await.unwrap();
    assert_eq!(lifted.status(), StatusCode::CREATED);
    let guessed = stage.post("/v1/sessions").header("operator-token", "a-guess").send().await.unwrap();
    assert_eq!(guessed.status(), StatusCode::TOO_MANY_REQUESTS);
    // What a stranger writes about its address is not believed.
    let elsewhere = stage.post("/v1/sessions").header("x-forwarded-for", "192.0.2.7").send().await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_client_counts() {
    let keys = [("SESSIONS_PER_MINUTE", "1"), ("SESSIONS_BURST", "1"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
    let stage = Stage::start_with(&keys).await;
    let ask = async |hops: &str| {
        let request = stage.post("/v1/sessions").header("x-forwarded-for", hops);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask("192.0.2.7").await, 201);
    assert_eq!(ask("192.0.2.7").await, 429);
    assert_eq!(ask("192.0.2.8").await, 201);
    assert_eq!(
        ask("198.51.100.1, 192.0.2.8").await,
        429,
        "what stands before the last hop is the client's own word"
    );
}
