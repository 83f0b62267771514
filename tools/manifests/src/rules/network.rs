//! Who may talk to whom.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use stampede_blueprint::{Blueprint, Kind, Via, Way};

use crate::pod::{Labels, name_of, selects};
use crate::{Code, Rendering};

/// Ports of a Postgres that the CloudNativePG operator runs.
const CLUSTER_PORTS: [(&str, i32); 2] = [("sql", 5432), ("status", 8000)];

/// Arrows that no blueprint draws, by the part that brings them. `*` stands for every process of ours.
const MORE: [(&str, &[&str]); 6] = [
    ("kind", &["postgres-databases -> postgres:sql"]),
    (
        "ha",
        &[
            "nats -> nats:peers",
            "postgres -> postgres:sql",
            // A primary that cannot reach the API server asks its peers whether it is alone.
            "postgres -> postgres:status",
            // The API server, which a policy cannot name.
            "postgres -> anywhere:443",
            "postgres -> anywhere:6443",
            "cnpg-system/cloudnative-pg -> postgres:sql",
            "cnpg-system/cloudnative-pg -> postgres:status",
        ],
    ),
    (
        "observability",
        &[
            "* -> collector:otlp",
            "collector -> jaeger:otlp",
            "prometheus -> *:admin",
            "prometheus -> alertmanager:web",
            "grafana -> prometheus:web",
            "grafana -> jaeger:web",
        ],
    ),
    ("autoscaling-queue", &["keda/keda-operator -> nats:monitor"]),
    ("ingress", &["traefik/traefik -> gateway:http"]),
    (
        "load",
        &["load -> gateway:http", "load -> psp-sim:tokens", "load -> nats:client", "load -> postgres:sql"],
    ),
];

/// Pods of one kind, also those that an operator makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) labels: Labels,
    ports: Vec<(String, i32)>,
}

impl Node {
    pub(super) fn port(&self, wanted: &IntOrString) -> Option<&str> {
        let is_wanted = |(name, number): &&(String, i32)| match wanted {
            IntOrString::Int(wanted) => number == wanted,
            IntOrString::String(wanted) => name == wanted,
        };
        self.ports.iter().find(is_wanted).map(|(name, _)| name.as_str())
    }
}

pub(super) fn nodes(rendering: &Rendering) -> Vec<Node> {
    let mut all: Vec<Node> = Vec::new();
    for workload in &rendering.workloads {
        let node = Node { name: workload.name.clone(), labels: workload.labels(), ports: workload.ports() };
        // A Job and the CronJob that does the same are one.
        if !all.contains(&node) {
            all.push(node);
        }
    }
    for cluster in rendering.custom("Cluster") {
        let name = cluster["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let inherited = cluster["spec"]["inheritedMetadata"]["labels"].as_object();
        let inherited = inherited.into_iter().flatten();
        let mut labels: Labels =
            inherited.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
        labels.insert("cnpg.io/cluster".to_owned(), name.clone());
        let ports = CLUSTER_PORTS.map(|(name, number)| (name.to_owned(), number)).to_vec();
        all.push(Node { name, labels, ports });
    }
    all
}

/// One side of a policy's rule, whichever way it goes.
struct Side<'a> {
    policy: &'a NetworkPolicy,
    peers: &'a [NetworkPolicyPeer],
    ports: &'a [NetworkPolicyPort],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Self::In => "Ingress",
            Self::Out => "Egress",
        }
    }
}

fn sides(rendering: &Rendering, direction: Direction) -> Vec<Side<'_>> {
    let mut all = Vec::new();
    for policy in &rendering.policies {
        let Some(spec) = policy.spec.as_ref() else { continue };
        match direction {
            Direction::In => all.extend(spec.ingress.iter().flatten().map(|rule| Side {
                policy,
                peers: rule.from.as_deref().unwrap_or_default(),
                ports: rule.ports.as_deref().unwrap_or_default(),
            })),
            Direction::Out => all.extend(spec.egress.iter().flatten().map(|rule| Side {
                policy,
                peers: rule.to.as_deref().unwrap_or_default(),
                ports: rule.ports.as_deref().unwrap_or_default(),
            })),
        }
    }
    all
}

impl Side<'_> {
    fn is_of(&self, node: &Node) -> bool {
        subject(self.policy).is_some_and(|selector| selects(&selector, &node.labels))
    }

    fn names(&self, node: &Node) -> bool {
        self.peers.iter().any(|peer| {
            peer.namespace_selector.is_none()
                && peer.pod_selector.as_ref().is_some_and(|selector| selects(selector, &node.labels))
        })
    }

    /// Whether the port of the pods that are connected to is open here.
    fn opens(&self, target: &Node, port: &str) -> bool {
        let number = |wanted: &NetworkPolicyPort| wanted.port.as_ref().and_then(|wanted| target.port(wanted));
        self.ports.is_empty() || self.ports.iter().any(|wanted| number(wanted) == Some(port))
    }

    /// Pods of other namespaces, as `namespace/value of the label`.
    fn strangers(&self) -> Vec<String> {
        let value = |selector: &Option<LabelSelector>| {
            let labels = selector.as_ref().and_then(|selector| selector.match_labels.clone());
            labels.unwrap_or_default().into_values().next().unwrap_or_else(|| "anybody".to_owned())
        };
        let others =
            self.peers.iter().filter(|peer| peer.namespace_selector.is_some() || peer.ip_block.is_some());
        others
            .map(|peer| format!("{}/{}", value(&peer.namespace_selector), value(&peer.pod_selector)))
            .collect()
    }

    fn numbers(&self) -> Vec<String> {
        let text = |port: &NetworkPolicyPort| match &port.port {
            Some(IntOrString::Int(number)) => number.to_string(),
            Some(IntOrString::String(name)) => name.clone(),
            None => "any".to_owned(),
        };
        if self.ports.is_empty() { vec!["any".to_owned()] } else { self.ports.iter().map(text).collect() }
    }
}

fn subject(policy: &NetworkPolicy) -> Option<LabelSelector> {
    Some(policy.spec.as_ref()?.pod_selector.clone().unwrap_or_default())
}

fn is_denied(rendering: &Rendering, node: &Node, direction: Direction) -> bool {
    rendering.policies.iter().any(|policy| {
        let types = policy.spec.as_ref().and_then(|spec| spec.policy_types.clone()).unwrap_or_default();
        types.iter().any(|one| one == direction.as_str())
            && subject(policy).is_some_and(|selector| selects(&selector, &node.labels))
    })
}

/// The arrows that both of their ends allow, and a sentence for every arrow that only one of them does.
pub fn arrows(rendering: &Rendering) -> (BTreeSet<String>, Vec<String>) {
    let nodes = nodes(rendering);
    let (ingress, egress) = (sides(rendering, Direction::In), sides(rendering, Direction::Out));
    let (mut arrows, mut halves) = (BTreeSet::new(), Vec::new());
    for to in &nodes {
        let open: Vec<_> = ingress.iter().filter(|side| side.is_of(to)).collect();
        let free = !is_denied(rendering, to, Direction::In);
        for (port, _) in &to.ports {
            for side in open.iter().filter(|side| side.opens(to, port)) {
                let from = if side.peers.is_empty() { vec!["outside".to_owned()] } else { side.strangers() };
                arrows.extend(from.into_iter().map(|from| format!("{from} -> {}:{port}", to.name)));
            }
            for from in &nodes {
                let out = |side: &&Side<'_>| side.is_of(from) && side.names(to) && side.opens(to, port);
                let leaves =
                    !is_denied(rendering, from, Direction::Out) || egress.iter().any(|side| out(&side));
                let named = open.iter().any(|side| side.names(from) && side.opens(to, port));
                let enters =
                    free || named || open.iter().any(|side| side.peers.is_empty() && side.opens(to, port));
                let arrow = format!("{} -> {}:{port}", from.name, to.name);
                match (leaves, enters) {
                    (true, true) => arrows.extend([arrow]),
                    (true, false) => halves.push(format!("{arrow}: {} does not let it in", to.name)),
                    (false, true) if named => halves.push(format!("{arrow}: {} is not let out", from.name)),
                    (false, _) => {}
                }
            }
        }
    }
    for from in &nodes {
        for side in egress.iter().filter(|side| side.is_of(from)) {
            let to = if side.peers.is_empty() { vec!["anywhere".to_owned()] } else { side.strangers() };
            for to in to {
                arrows.extend(side.numbers().into_iter().map(|port| format!("{} -> {to}:{port}", from.name)));
            }
        }
    }
    (arrows, halves)
}

/// What may be connected is what the blueprints draw, what an overlay or component brings, and names; nothing else.
pub fn arrows_are_those_of_the_blueprints(rendering: &Rendering, code: &Code) -> Vec<String> {
    let (found, mut faults) = arrows(rendering);
    let expected = expected(rendering, code);
    faults.extend(
        found.difference(&expected).map(|arrow| format!("NetworkPolicy: {arrow} is open, nobody drew it")),
    );
    faults.extend(
        expected.difference(&found).map(|arrow| format!("NetworkPolicy: {arrow} is drawn and not open")),
    );
    let denies = |policy: &NetworkPolicy| {
        subject(policy) == Some(LabelSelector::default())
            && policy.spec.as_ref().is_some_and(|spec| {
                spec.policy_types.as_ref().is_some_and(|types| types.len() == 2)
                    && spec.ingress.is_none()
                    && spec.egress.is_none()
            })
    };
    if !rendering.policies.iter().any(denies) {
        faults.push("NetworkPolicy: none denies everything".to_owned());
    }
    faults
}

fn expected(rendering: &Rendering, code: &Code) -> BTreeSet<String> {
    let mut arrows: BTreeSet<String> = ["provision -> nats:client".to_owned()].into();
    for (name, service) in &code.services {
        let blueprint = &service.blueprint;
        let mut to = |target: &str| arrows.extend([format!("{name} -> {target}")]);
        if uses_nats(blueprint) {
            to("nats:client");
        }
        if blueprint.database.is_some() {
            to("postgres:sql");
        }
        for (destination, call) in &blueprint.calls {
            let callee = call.service.as_deref().unwrap_or(destination);
            match call.via {
                Via::Http => to(&format!("{callee}:http")),
                Via::Smtp => to("mail:smtp"),
                Via::Rpc | Via::Jetstream => {}
            }
        }
        match blueprint.kind {
            Kind::FrontEnd => arrows.extend([format!("outside -> {name}:http")]),
            Kind::Outside => arrows.extend([format!("outside -> {name}:tokens")]),
            // Over HTTP such a service is asked by the third party that it calls.
            Kind::Service => arrows.extend(third_parties(blueprint, code).flat_map(|party| {
                service.listeners.iter().map(move |listener| format!("{party} -> {name}:{listener}"))
            })),
            Kind::Logic => {}
        }
    }
    let parts: Vec<&str> = rendering.name.split(" + ").collect();
    for (_, more) in MORE.iter().filter(|(part, _)| parts.contains(part)) {
        for arrow in *more {
            arrows.extend(code.services.keys().map(|name| arrow.replace('*', name)));
        }
    }
    if parts.contains(&"ingress") {
        arrows.remove("outside -> gateway:http");
    }
    for node in nodes(rendering) {
        arrows.insert(format!("{} -> kube-system/kube-dns:53", node.name));
    }
    arrows
}

fn uses_nats(blueprint: &Blueprint) -> bool {
    let asked = |way: &Way| matches!(way, Way::Rpc(_) | Way::Command(_));
    let called = |via: Via| matches!(via, Via::Rpc | Via::Jetstream);
    !blueprint.streams.is_empty()
        || !blueprint.buckets.is_empty()
        || blueprint.offers.values().any(|offer| asked(&offer.by))
        || blueprint.calls.values().any(|call| called(call.via))
}

fn third_parties<'a>(blueprint: &'a Blueprint, code: &'a Code) -> impl Iterator<Item = &'a str> {
    let offers_http = blueprint.offers.values().any(|offer| matches!(offer.by, Way::Http { .. }));
    let callees = blueprint.calls.iter().map(|(name, call)| call.service.as_deref().unwrap_or(name));
    callees.filter(move |name| {
        let kind = code.services.get(*name).map(|service| service.blueprint.kind);
        offers_http && kind == Some(Kind::Outside)
    })
}

/// Every selector of a policy means pods that are there, and every port is one of theirs: a policy with a slip in it
/// allows nothing, and looks as if it did.
pub fn policies_lead_somewhere(rendering: &Rendering, _: &Code) -> Vec<String> {
    let nodes = nodes(rendering);
    let mut faults = Vec::new();
    for policy in &rendering.policies {
        let title = format!("NetworkPolicy/{}", name_of(&policy.metadata));
        let selector = subject(policy).unwrap_or_default();
        if !nodes.iter().any(|node| selects(&selector, &node.labels)) {
            faults.push(format!("{title}, podSelector: it means no pod"));
        }
    }
    for direction in [Direction::In, Direction::Out] {
        for side in sides(rendering, direction) {
            let title = format!("NetworkPolicy/{}, {}", name_of(&side.policy.metadata), direction.as_str());
            for selector in side.peers.iter().filter(|peer| peer.namespace_selector.is_none()) {
                let selector = selector.pod_selector.clone().unwrap_or_default();
                if !nodes.iter().any(|node| selects(&selector, &node.labels)) {
                    faults.push(format!("{title}: {selector:?} means no pod"));
                }
            }
            let targets: Vec<&Node> = match direction {
                Direction::In => nodes.iter().filter(|node| side.is_of(node)).collect(),
                Direction::Out => nodes.iter().filter(|node| side.names(node)).collect(),
            };
            for port in side.ports {
                let wanted = port.port.clone().unwrap_or(IntOrString::Int(0));
                if !targets.is_empty() && !targets.iter().all(|node| node.port(&wanted).is_some()) {
                    faults.push(format!("{title}: {wanted:?} is no port of those pods"));
                }
            }
        }
    }
    faults
}
