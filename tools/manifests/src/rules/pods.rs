//! Probes, resources, and the end of a pod.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::{In, Source};
use crate::{Code, Rendering, quantity};

/// Startup, readiness and liveness probes in every container that runs on, each with another question, on a port that
/// the container has; of ours, paths that the admin listener has, and a start that is not cut short.
pub fn probes_ask_three_questions(rendering: &Rendering, code: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in rendering.workloads.iter().filter(|workload| workload.is_long_running()) {
        for one in workload.containers().into_iter().filter(|one| !one.first) {
            faults.extend(probes(one, code));
        }
    }
    faults
}

fn probes(one: In<'_>, code: &Code) -> Vec<String> {
    let (container, title) = (one.container, one.title());
    let fields = [
        ("startupProbe", &container.startup_probe),
        ("readinessProbe", &container.readiness_probe),
        ("livenessProbe", &container.liveness_probe),
    ];
    let mut faults = Vec::new();
    let mut questions = Vec::new();
    for (field, probe) in fields {
        let Some(probe) = probe else {
            faults.push(format!("{title}, {field}: it is missing"));
            continue;
        };
        let http = probe.http_get.as_ref();
        let port = http.map(|get| &get.port).or(probe.tcp_socket.as_ref().map(|socket| &socket.port));
        match port {
            Some(port) if one.workload.port(port).is_none() => {
                faults.push(format!("{title}, {field}: {port:?} is no port of the container"));
            }
            None if probe.exec.is_none() => faults.push(format!("{title}, {field}: it asks nothing")),
            _ => {}
        }
        let path = http.and_then(|get| get.path.clone()).unwrap_or_default();
        if one.image_of_ours().is_some() && !code.admin_paths.contains(&path) {
            faults.push(format!("{title}, {field}: the admin listener has no {path:?}"));
        }
        questions.push((field, (path, port, &probe.exec)));
    }
    let question = |wanted: &str| questions.iter().find(|(field, _)| *field == wanted).map(|(_, asks)| asks);
    if question("readinessProbe") == question("livenessProbe") {
        faults.push(format!("{title}, livenessProbe: it asks the same as readinessProbe"));
    }
    if one.image_of_ours().is_some() {
        if question("startupProbe") == question("livenessProbe") {
            faults.push(format!("{title}, startupProbe: it asks the same as livenessProbe"));
        }
        let patience = container.startup_probe.as_ref().map(patience).unwrap_or_default();
        if patience <= code.startup {
            faults.push(format!(
                "{title}, startupProbe: {patience:?} is not longer than STARTUP_TIMEOUT_MS, {:?}",
                code.startup
            ));
        }
    }
    faults
}

/// For how long a probe may fail, with the defaults of Kubernetes.
fn patience(probe: &Probe) -> Duration {
    let seconds = probe.period_seconds.unwrap_or(10) * probe.failure_threshold.unwrap_or(3);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Requests and limits for CPU and memory in every container, none above its limit.
pub fn resources_are_asked_for_and_bounded(rendering: &Rendering, _: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for one in rendering.workloads.iter().flat_map(|workload| workload.containers()) {
        let resources = one.container.resources.clone().unwrap_or_default();
        let said = |side: &Option<std::collections::BTreeMap<String, Quantity>>, what: &str| {
            side.as_ref().and_then(|side| side.get(what)).and_then(quantity)
        };
        for what in ["cpu", "memory"] {
            let (request, limit) = (said(&resources.requests, what), said(&resources.limits, what));
            for (field, amount) in [("requests", request), ("limits", limit)] {
                if amount.is_none() {
                    faults.push(format!("{}, resources.{field}.{what}: it is missing", one.title()));
                }
            }
            if request > limit {
                faults.push(format!("{}, resources.requests.{what}: it is above the limit", one.title()));
            }
        }
    }
    faults
}

/// A pod of ours is not killed before its own drain has ended.
pub fn grace_is_longer_than_the_drain(rendering: &Rendering, code: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in rendering.workloads.iter().filter(|workload| workload.is_long_running()) {
        for one in workload.containers().into_iter().filter(|one| !one.first) {
            let Some(service) = one.image_of_ours().and_then(|name| code.services.get(name)) else {
                continue;
            };
            let variables = one.environment(rendering).unwrap_or_default();
            let said = |key: &str| match variables.get(key) {
                Some(Source::Text(text)) => service.duration(key, Some(text)),
                _ => service.duration(key, None),
            };
            let grace = workload.pod().termination_grace_period_seconds.unwrap_or(30);
            let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
            match (said("DRAIN_DELAY_MS"), said("DRAIN_TIMEOUT_MS")) {
                (Some(delay), Some(timeout)) if grace > delay + timeout + code.drain_more => {}
                (Some(delay), Some(timeout)) => faults.push(format!(
                    "{}, terminationGracePeriodSeconds: {grace:?} is not longer than a drain, {:?}",
                    one.title(),
                    delay + timeout + code.drain_more
                )),
                _ => faults.push(format!("{}: DRAIN_DELAY_MS, DRAIN_TIMEOUT_MS are no numbers", one.title())),
            }
        }
    }
    faults
}
