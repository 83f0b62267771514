//! Selectors and the names of pods.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::network::nodes;
use crate::pod::{leads_to, name_of, selects};
use crate::{Code, Rendering};

/// A workload selects its own pods and no others, spreads those, and a budget means pods that are there.
pub fn selectors_mean_pods(rendering: &Rendering, _: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in &rendering.workloads {
        let (title, labels) = (format!("{}/{}", workload.kind, workload.name), workload.labels());
        let mut want = |field: &str, selector: Option<&LabelSelector>| {
            let Some(selector) = selector else {
                faults.push(format!("{title}, {field}: it is missing"));
                return;
            };
            let meant = rendering.workloads.iter().filter(|other| selects(selector, &other.labels()));
            let meant: Vec<&str> = meant.map(|other| other.name.as_str()).collect();
            if !selects(selector, &labels) || meant.len() > 1 {
                faults.push(format!("{title}, {field}: it means the pods of {meant:?}"));
            }
        };
        if workload.is_long_running() {
            want("selector", workload.selector.as_ref());
        }
        for spread in workload.pod().topology_spread_constraints.iter().flatten() {
            let field = format!("topologySpreadConstraints, {}", spread.topology_key);
            want(&field, spread.label_selector.as_ref());
        }
        let spreads = workload.pod().topology_spread_constraints.unwrap_or_default();
        let known = ["topology.kubernetes.io/zone", "kubernetes.io/hostname"];
        for key in
            spreads.iter().map(|spread| &spread.topology_key).filter(|key| !known.contains(&key.as_str()))
        {
            faults.push(format!("{title}, topologySpreadConstraints: no node has a label {key}"));
        }
    }
    for budget in &rendering.budgets {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        let meant = rendering.workloads.iter().filter(|one| one.is_long_running());
        if meant.filter(|one| selects(&selector, &one.labels())).count() != 1 {
            faults.push(format!(
                "PodDisruptionBudget/{}: it does not mean one workload",
                name_of(&budget.metadata)
            ));
        }
    }
    faults
}

/// Every Service leads to the pods of one workload, each of its ports to one of theirs; the Service of a StatefulSet of
/// several pods gives each a name.
pub fn services_lead_to_ports(rendering: &Rendering, _: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for service in &rendering.services {
        let title = format!("Service/{}", name_of(&service.metadata));
        let meant: Vec<_> =
            nodes(rendering).into_iter().filter(|node| leads_to(service, &node.labels)).collect();
        let [node] = meant.as_slice() else {
            let names: Vec<&str> = meant.iter().map(|node| node.name.as_str()).collect();
            faults.push(format!("{title}, selector: it means the pods of {names:?}"));
            continue;
        };
        for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
            let target = port.target_port.clone().unwrap_or(IntOrString::Int(port.port));
            if node.port(&target).is_none() {
                faults.push(format!("{title}, port {}: {} has no port {target:?}", port.port, node.name));
            }
        }
    }
    for workload in rendering.workloads.iter().filter(|workload| workload.kind == "StatefulSet") {
        let name = workload.service.clone().unwrap_or_default();
        let service = rendering.services.iter().find(|service| name_of(&service.metadata) == name);
        let ip = service.and_then(|service| service.spec.as_ref()?.cluster_ip.clone());
        if service.is_none_or(|service| !leads_to(service, &workload.labels())) {
            faults.push(format!("StatefulSet/{}, serviceName: {name:?} does not lead to it", workload.name));
        } else if workload.replicas != Some(1) && ip.as_deref() != Some("None") {
            faults.push(format!("StatefulSet/{}, serviceName: {name:?} is not headless", workload.name));
        }
    }
    faults
}
