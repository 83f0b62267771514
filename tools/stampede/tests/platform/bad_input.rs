//! Whatever strangers send, the answer is a 4xx with problem details, and nothing is written.

use reqwest::Method;
use stampede::client::{With, new_key};
use stampede_contracts::{Problem, ShowId};

use crate::stage::{Stage, free_seats};

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_named_and_changes_nothing() {
    let stage = Stage::start(&[]).await;
    let (token, show) = (stage.token().await, stage.show("club").await);
    let before = free_seats(&show);
    let (show_id, section) = (show.summary.show_id, show.sections[0].section_id);
    let holds = format!("/v1/shows/{show_id}/holds");
    let huge = format!(r#"{{"section":"{section}","quantity":2,"x":"{}"}}"#, "x".repeat(1_000_000));
    let bodies: Vec<String> = [
        "",
        "{",
        "null",
        "[]",
        "17",
        "\"text\"",
        "{}",
        "\u{0}",
        "{\"section\":\"\u{202e}\u{1f3ab}\",\"quantity\":1}",
        r#"{"section":"sec_0","quantity":1}"#,
        r#"{"seats":[]}"#,
        r#"{"seats":["b1-0","b1-0"]}"#,
        r#"{"seats":["b999999-0"]}"#,
        r#"{"seats":"b1-0"}"#,
        r#"{"seats":["b1--1"]}"#,
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(
        ["-1", "0", "9", "1.5", "4294967296", "1e400", "\"2\"", "null"]
            .map(|quantity| format!(r#"{{"section":"{section}","quantity":{quantity}}}"#)),
    )
    .chain([huge, format!(r#"{{"section":"{section}","quantity":1,"unknown":true}}"#)])
    .collect();

    let mut asked = 0;
    let mut check = |what: &str, reply: stampede::client::Reply| {
        assert!((400..500).contains(&reply.status.as_u16()), "{what}: {}", reply.status);
        assert_eq!(reply.headers["content-type"], Problem::MEDIA_TYPE, "{what}");
        assert!(reply.problem().is_some(), "{what}: {}", String::from_utf8_lossy(&reply.body));
        asked += 1;
    };
    for body in &bodies {
        for path in [holds.as_str(), "/v1/orders"] {
            let key = new_key();
            let with = With::token(&token).key(&key);
            let reply =
                stage.client.send(Method::POST, path, with, Some(body.clone().into_bytes())).await.unwrap();
            check(&format!("{path} {}", body.chars().take(60).collect::<String>()), reply);
        }
    }

    let good = format!(r#"{{"section":"{section}","quantity":1}}"#).into_bytes();
    let (long, huge) = ("k".repeat(1_000), "k".repeat(1_000_000));
    for key in [None, Some(""), Some("\""), Some("a b"), Some(long.as_str()), Some(huge.as_str())] {
        let with = With { token: Some(&token), key, ..With::default() };
        let reply = stage.client.send(Method::POST, &holds, with, Some(good.clone())).await.unwrap();
        check(&format!("key of {} bytes", key.map_or(0, str::len)), reply);
    }
    for bad in ["", "nonsense", "stp1.e30.e30", &token[..token.len() - 2], &format!("{token}x")] {
        let key = new_key();
        let reply = stage
            .client
            .send(Method::POST, &holds, With::token(bad).key(&key), Some(good.clone()))
            .await
            .unwrap();
        check("token", reply);
    }
    let paths = [
        "/v1/shows/shw_0".to_owned(),
        format!("/v1/shows/{}", ShowId::new()),
        format!("/v1/shows/{}/lobby", ShowId::new()),
        format!("/v1/shows/{show_id}/seats"),
        format!("/v1/shows/{show_id}/seats?section=sec_0"),
        "/v1/shows?limit=-1".to_owned(),
        "/v1/shows?limit=99999999999999999999".to_owned(),
        "/v1/shows?cursor=%00".to_owned(),
        "/v1/holds/hld_b1_0".to_owned(),
        "/v1/holds/hld_b1_00000000000000000000000000000000".to_owned(),
        "/v1/holds/hld_b9223372036854775808_00000000000000000000000000000000".to_owned(),
        "/v1/orders/ord_00000000000000000000000000000000".to_owned(),
        "/v1/orders/%F0%9F%8E%AB".to_owned(),
        "/v1/tickets/tkt_00000000000000000000000000000000".to_owned(),
        "/v1/lobby/lby_00000000000000000000000000000000".to_owned(),
        "/v1/nothing".to_owned(),
    ];
    for path in paths {
        let reply = stage.client.send(Method::GET, &path, With::token(&token), None).await.unwrap();
        check(&path, reply);
    }
    // Forged passes, and an operator's call by a stranger.
    for pass in ["x", "pass1.a.b.c", &"p".repeat(3_000)] {
        let (key, lobby) =
            (new_key(), stage.client.shows().await.unwrap().into_iter().find(|show| show.lobby).unwrap());
        let shown: stampede_contracts::api::Show =
            stage.client.show(lobby.show_id, With::default()).await.unwrap().json().unwrap();
        let with = With::token(&token).key(&key).pass(Some(pass));
        check("pass", stage.client.hold(lobby.show_id, &crate::stage::best(&shown, 1), with).await.unwrap());
    }
    check(
        "ops",
        stage
            .client
            .send(Method::POST, "/v1/ops/shows", With::token(&token), Some(b"{}".to_vec()))
            .await
            .unwrap(),
    );
    let reply = stage.client.send(Method::DELETE, "/v1/shows", With::default(), None).await.unwrap();
    check("method", reply);
    assert!(asked > 80, "{asked}");

    let orders = stage.client.send(Method::GET, "/v1/orders", With::token(&token), None).await.unwrap();
    assert_eq!(orders.json::<serde_json::Value>().unwrap()["items"], serde_json::json!([]));
    assert_eq!(free_seats(&stage.show("club").await), before);
}
