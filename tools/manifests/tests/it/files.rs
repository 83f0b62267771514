//! What is no object: scripts, alerts, dashboards, images, compose.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use stampede_manifests::code::metrics as metrics_of;

use crate::stage::{code, read, workspace};

#[test]
fn databases_are_those_of_the_services() {
    let script = read("k8s/base/infra/postgres/databases.sh");
    let list = script.split("for name in ").nth(1).unwrap().split(';').next().unwrap();
    let made: BTreeSet<&str> = list.split_whitespace().collect();
    let wanted: BTreeSet<&str> = code().services.values().filter_map(|one| one.database.as_deref()).collect();
    assert_eq!(made, wanted, "databases.sh, and tools/stampede/src/services.rs");
    let kept = objects("k8s/overlays/ha/postgres-databases.yaml");
    let mut kept: BTreeSet<String> = names(&kept, &["spec", "name"]);
    // The first one is made with the cluster.
    let cluster = objects("k8s/overlays/ha/postgres-cluster.yaml");
    kept.extend(names(&cluster, &["spec", "bootstrap", "initdb", "database"]));
    assert_eq!(kept, wanted.into_iter().map(str::to_owned).collect(), "the databases of ha");
}

fn objects(path: &str) -> Value {
    Value::Array(serde_saphyr::from_multiple(&read(path)).unwrap())
}

fn names(objects: &Value, path: &[&str]) -> BTreeSet<String> {
    let at = |object: &Value| path.iter().fold(object.clone(), |value, key| value[key].clone());
    objects.as_array().unwrap().iter().filter_map(|one| at(one).as_str().map(str::to_owned)).collect()
}

/// The names of metrics in an expression of Prometheus.
fn metrics(expression: &str) -> BTreeSet<String> {
    // Labels, ranges and texts first: what is left are metrics, functions and words.
    let mut plain = String::new();
    let (mut depth, mut quoted) = (0_u32, false);
    for c in expression.chars() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ if depth == 0 => plain.push(c),
            _ => {}
        }
    }
    for word in ["by", "without", "on", "ignoring", "group_left", "group_right"] {
        while let Some(start) = plain.find(&format!("{word} (")) {
            let end = start + plain[start..].find(')').unwrap() + 1;
            plain.replace_range(start..end, "");
        }
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut names = BTreeSet::new();
    let mut rest = plain.as_str();
    while let Some(start) = rest.find(is_name) {
        let word = &rest[start..];
        let (word, after) = word.split_at(word.find(|c| !is_name(c)).unwrap_or(word.len()));
        let is_number = word.starts_with(|first: char| first.is_ascii_digit());
        let is_word = ["and", "or", "unless", "bool", "offset"].contains(&word);
        if !is_number && !is_word && !after.trim_start().starts_with('(') {
            names.insert(word.to_owned());
        }
        rest = after;
    }
    names
}

#[test]
fn names_of_metrics_are_found_in_expressions() {
    let found = metrics(
        r#"sum by (job) (rate(a_total{x=~"b|c"}[5m])) / max without (i) (d) > 0.5 or absent(up{job="e"})"#,
    );
    assert_eq!(found, ["a_total", "d", "up"].map(str::to_owned).into());
}

/// Every expression below a value.
fn expressions(value: &Value, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            all.extend(map.get("expr").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| expressions(value, all));
        }
        Value::Array(list) => list.iter().for_each(|value| expressions(value, all)),
        _ => {}
    }
}

#[test]
fn alerts_and_pictures_show_metrics_that_exist() {
    let made = metrics_of(&workspace()).unwrap();
    for path in ["alerts.yml", "grafana/stampede.json"] {
        let text = read(&format!("k8s/components/observability/{path}"));
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        let mut all = Vec::new();
        expressions(&value, &mut all);
        assert!(!all.is_empty(), "{path} has no expression");
        let named: BTreeSet<String> = all.iter().flat_map(|expression| metrics(expression)).collect();
        // `up` is Prometheus's own.
        let unknown: Vec<_> = named.iter().filter(|name| *name != "up" && !made.contains(*name)).collect();
        assert!(unknown.is_empty(), "{path}: nothing makes {unknown:?}");
    }
}

#[test]
fn images_and_compose_are_of_this_version() {
    let version = &code().version;
    let dockerfile = read("deploy/Dockerfile");
    let said = dockerfile.lines().find_map(|line| line.strip_prefix("ARG VERSION="));
    assert_eq!(said, Some(version.as_str()), "deploy/Dockerfile, ARG VERSION");
    let compose: Value = serde_saphyr::from_str(&read("deploy/compose.yaml")).unwrap();
    let mut ours = BTreeSet::new();
    for (name, service) in compose["services"].as_object().unwrap() {
        let image = service["image"].as_str().unwrap();
        if let Some(image) = image.strip_prefix("localhost/stampede/") {
            let (image, tag) = image.split_once(':').unwrap();
            assert_eq!(tag, version, "deploy/compose.yaml, {name}");
            ours.insert(image.to_owned());
        }
    }
    let mut known: BTreeSet<String> = code().services.keys().cloned().collect();
    known.insert("stampede".to_owned());
    assert_eq!(ours, known, "deploy/compose.yaml has another set of images");
    for path in ["deploy/Dockerfile", "deploy/compose.yaml", "docs/guides/kubernetes.md"] {
        let text = read(path);
        let tags = text.split("localhost/stampede/").skip(1).filter_map(|rest| {
            let tag = rest.split_whitespace().next()?.trim_matches('`').split_once(':')?.1;
            tag.starts_with(|first: char| first.is_ascii_digit()).then(|| tag.to_owned())
        });
        for tag in tags {
            assert_eq!(&tag, version, "{path}");
        }
    }
}

#[test]
fn compose_sets_keys_that_are_read() {
    let compose: Value = serde_saphyr::from_str(&read("deploy/compose.yaml")).unwrap();
    for (name, service) in &code().services {
        let environment = &compose["services"][name]["environment"];
        let (own, common) = (environment.as_object().unwrap(), environment["<<"].as_object());
        for key in own.keys().chain(common.into_iter().flatten().map(|(key, _)| key)) {
            assert!(key == "<<" || service.keys.contains_key(key), "{name} does not read {key}");
        }
    }
}

#[test]
fn compose_waits_longer_than_a_drain() {
    let compose: Value = serde_saphyr::from_str(&read("deploy/compose.yaml")).unwrap();
    let of = |service: &Value, key: &str| {
        let value = service.get(key).or_else(|| service["<<"].get(key));
        value.and_then(Value::as_str).map(str::to_owned)
    };
    for (name, service) in &code().services {
        let own = &compose["services"][name];
        let drain = ["DRAIN_DELAY_MS", "DRAIN_TIMEOUT_MS"]
            .map(|key| service.duration(key, of(&own["environment"], key).as_deref()).unwrap());
        let drain = drain.iter().sum::<Duration>() + code().drain_more;
        let grace = of(own, "stop_grace_period").unwrap();
        let grace = Duration::from_secs(grace.trim_end_matches('s').parse().unwrap());
        assert!(grace > drain, "{name}, stop_grace_period: {grace:?} is not longer than a drain, {drain:?}");
    }
}
