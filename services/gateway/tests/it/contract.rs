//! The contract: a valid OpenAPI 3.1 document that names exactly what is served.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::Value;
use stampede_contracts::Code;
use stampede_gateway::http::contract;

use crate::support::{Stage, problem};

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

fn document() -> Value {
    serde_json::from_str(&contract().to_json().unwrap()).unwrap()
}

/// Path, method and operation.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(METHODS.contains(&method.as_str()), "{path}: {method}");
            found.push((path.clone(), method.clone(), operation.clone()));
        }
    }
    found
}

/// Follows a `$ref`, if it is one.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(target) => {
            document.pointer(target.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("{target}"))
        }
        None => value,
    }
}

fn every_object<'a>(value: &'a Value, visit: &mut impl FnMut(&'a serde_json::Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            visit(object);
            object.values().for_each(|inner| every_object(inner, visit));
        }
        Value::Array(items) => items.iter().for_each(|inner| every_object(inner, visit)),
        _ => {}
    }
}

#[test]
fn it_is_a_document_of_openapi_3_1() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    assert_eq!(document["info"]["license"]["identifier"], "Apache-2.0");
    let known =
        ["openapi", "info", "servers", "paths", "webhooks", "components", "security", "tags", "externalDocs"];
    assert!(document.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())));
    every_object(&document, &mut |object| {
        if let Some(Value::String(target)) = object.get("$ref") {
            let found = target.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
            assert!(found.is_some(), "{target} leads nowhere");
        }
        assert!(!object.contains_key("nullable"), "that was OpenAPI 3.0: {object:?}");
    });
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(name.chars().all(allowed), "{name} is no name of a component");
    }
}

#[test]
fn every_operation_is_complete() {
    let document = document();
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    let tags: BTreeSet<_> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].clone().to_string()).collect();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let at = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].to_string()), "{at}: two operations of one name");
        assert!(operation["summary"].is_string(), "{at}");
        assert!(
            operation["tags"].as_array().unwrap().iter().all(|tag| tags.contains(&tag.to_string())),
            "{at}"
        );
        for requirement in operation["security"].as_array().into_iter().flatten() {
            assert!(requirement.as_object().unwrap().keys().all(|name| schemes.contains_key(name)), "{at}");
        }
        for (kind, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
            let example = content.get("example").or(content.get("examples"));
            assert!(example.is_some(), "{at}: {kind} without an example");
        }
        check_parameters(&document, &at, &path, &operation);
        check_responses(&document, &at, &operation);
    }
}

fn check_parameters(document: &Value, at: &str, path: &str, operation: &Value) {
    let mut seen = BTreeSet::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let parameter = resolved(document, parameter);
        let (name, place) = (parameter["name"].as_str().unwrap(), parameter["in"].as_str().unwrap());
        assert!(seen.insert((place, name)), "{at}: {name} twice");
        assert!(["path", "query", "header", "cookie"].contains(&place), "{at}: {name}");
        assert!(parameter["schema"].is_object() && parameter["description"].is_string(), "{at}: {name}");
        if place == "path" {
            assert_eq!(parameter["required"], true, "{at}: {name}");
        }
    }
    let in_path: BTreeSet<_> = path.split(['{', '}']).skip(1).step_by(2).collect();
    let declared: BTreeSet<_> =
        seen.iter().filter(|(place, _)| *place == "path").map(|(_, name)| *name).collect();
    assert_eq!(in_path, declared, "{at}");
    if path.starts_with("/v1/") {
        for name in ["Deadline-Ms", "Priority", "traceparent"] {
            assert!(seen.contains(&("header", name)), "{at}: {name}");
        }
    }
}

fn check_responses(document: &Value, at: &str, operation: &Value) {
    let responses: BTreeMap<_, _> = operation["responses"].as_object().unwrap().iter().collect();
    assert!(responses.keys().any(|status| status.starts_with('2')), "{at}: no success");
    for (status, response) in &responses {
        let response = resolved(document, response);
        assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{at}: {status}");
        let number: u16 = status.parse().unwrap();
        for (kind, content) in response["content"].as_object().into_iter().flatten() {
            let named = content["examples"].as_object().is_some_and(|examples| !examples.is_empty());
            assert!(named || content.get("example").is_some(), "{at}: {status} {kind} without an example");
        }
        if number >= 400 {
            let content = &response["content"]["application/problem+json"];
            assert_eq!(content["schema"]["$ref"], "#/components/schemas/Problem", "{at}: {status}");
            let examples = content["examples"].as_object().unwrap();
            assert!(!examples.is_empty(), "{at}: {status}");
            for (code, example) in examples {
                let value = &resolved(document, example)["value"];
                assert_eq!(
                    (&value["code"], &value["status"]),
                    (&code.as_str().into(), &number.into()),
                    "{at}"
                );
            }
        }
        if [429, 503].contains(&number) {
            assert!(response["headers"]["Retry-After"].is_object(), "{at}: {status}");
        }
        if at.contains(" /v1/") {
            for header in ["RateLimit", "RateLimit-Policy", "traceparent"] {
                assert!(response["headers"][header].is_object(), "{at}: {status} {header}");
            }
        }
    }
    if at.contains(" /v1/") {
        for always in ["400", "408", "414", "429", "431", "500", "501", "503", "504"] {
            assert!(responses.contains_key(&always.to_owned()), "{at}: {always}");
        }
    }
    if operation["security"].is_array() {
        assert!(responses.contains_key(&"401".to_owned()), "{at}");
    }
}

#[test]
fn every_code_has_an_example() {
    let document = document();
    let examples = document["components"]["examples"].as_object().unwrap();
    assert_eq!(examples.len(), Code::ALL.len());
}

#[tokio::test]
async fn what_it_names_is_served_and_nothing_beside_it() {
    let stage = Stage::start().await;
    let document = document();
    let mut methods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, method, _) in operations(&document) {
        methods.entry(path).or_default().insert(method.to_uppercase());
    }
    for (path, named) in methods {
        let address = path
            .replace("{show_id}", "shw_0192f0c1a2b37c4d8e5f60718293a4b5")
            .replace("{lobby_ticket}", "lby_0192f0c1a2b37c4d8e5f60718293a4b5")
            .replace("{hold_id}", "hld_b1042_5f60718293a4b50192f0c1a2b37c4d8e")
            .replace("{order_id}", "ord_0192f0c1a2b37c4d8e5f60718293a4b5")
            .replace("{ticket_id}", "tkt_0192f0c1a2b37c4d8e5f60718293a4b5")
            .replace("{code}", "seats_taken");
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            let request = stage.request(Method::from_bytes(method.as_bytes()).unwrap(), &address);
            let response = request.header("deadline-ms", "1000").send().await.unwrap();
            let status = response.status().as_u16();
            if named.contains(method) {
                assert_ne!(status, 405, "{method} {path} is named and not served");
                if status == 404 {
                    assert_ne!(problem(response).await.code, Code::RouteNotFound, "{method} {path}");
                }
            } else {
                assert_eq!(status, 405, "{method} {path} is served and not named");
            }
        }
    }
}
