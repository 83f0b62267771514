//! Pages for people.

use reqwest::StatusCode;
use serde_json::Value;
use stampede_contracts::{Code, api};

use crate::support::{Stage, problem};

#[tokio::test]
async fn the_front_page_says_what_this_is_and_where_to_go() {
    let stage = Stage::start().await;
    let text = stage.get("/").send().await.unwrap();
    assert!(text.headers()["content-type"].to_str().unwrap().starts_with("text/plain"));
    let text = text.text().await.unwrap();
    assert!(text.contains("tickets") && text.contains("/docs") && text.contains("/v1/sessions"), "{text}");
    let page = stage.get("/").header("accept", "text/html,*/*").send().await.unwrap();
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
}

#[tokio::test]
async fn every_problem_is_explained_where_its_type_points() {
    let stage = Stage::start().await;
    for code in Code::ALL {
        let page = stage.get(&stampede_contracts::Problem::new(*code).kind).send().await.unwrap();
        assert_eq!(page.status(), StatusCode::OK, "{code}");
        assert!(page.text().await.unwrap().contains(code.title()), "{code}");
    }
    assert_eq!(problem(stage.get("/problems/nonsense").send().await.unwrap()).await.code, Code::NotFound);
}

#[tokio::test]
async fn test_cards_are_listed_outside_production_only() {
    let stage = Stage::start().await;
    let cards: api::TestCards = stage.get("/v1/test-cards").send().await.unwrap().json().await.unwrap();
    assert_eq!(cards.tokens_url, "http://127.0.0.1:9/tokens");
    assert_eq!(cards.cards.len(), api::TEST_CARDS.len());
    let stage = Stage::start_with(&[("ENVIRONMENT", "production")]).await;
    let response = stage.get("/v1/test-cards").send().await.unwrap();
    assert_eq!(problem(response).await.code, Code::RouteNotFound);
}

/// What a page of HTML loads.
fn loaded(page: &str) -> Vec<String> {
    let attributes = page.split(['"', '\'']).collect::<Vec<_>>();
    attributes
        .windows(2)
        .filter(|pair| pair[0].trim_end().ends_with("src=") || pair[0].trim_end().ends_with("href="))
        .map(|pair| pair[1].to_owned())
        .collect()
}

#[tokio::test]
async fn the_page_to_try_it_needs_no_internet() {
    let stage = Stage::start().await;
    assert_eq!(stage.get("/docs").send().await.unwrap().headers()["location"], "/docs/");
    let page = stage.get("/docs/").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(!policy.contains("http"), "nothing from elsewhere: {policy}");
    let parts = loaded(&page.text().await.unwrap());
    assert!(parts.len() >= 4, "{parts:?}");
    for part in &parts {
        assert!(!part.contains("//"), "{part} lies elsewhere");
        let response = stage.get(&format!("/docs/{}", part.trim_start_matches("./"))).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{part}");
        assert_eq!(response.headers()["content-security-policy"], policy.as_str());
    }
    let start = stage.get("/docs/swagger-initializer.js").send().await.unwrap().text().await.unwrap();
    assert!(start.contains("/openapi.json") && start.contains("\"validatorUrl\": \"none\""), "{start}");
    assert!(!start.contains("http://") && !start.contains("https://"), "{start}");
    let contract: Value = stage.get("/openapi.json").send().await.unwrap().json().await.unwrap();
    assert_eq!(contract["info"]["title"], "Stampede");
}

#[tokio::test]
async fn every_answer_is_guarded() {
    let stage = Stage::start().await;
    for path in ["/", "/v1/shows", "/nothing", "/openapi.json", "/docs/", "/v1/orders"] {
        let response = stage.get(path).send().await.unwrap();
        let headers = response.headers();
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["x-frame-options"], "DENY", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        for named in ["content-security-policy", "cache-control", "traceparent"] {
            assert!(headers.contains_key(named), "{path} {named}");
        }
    }
}
