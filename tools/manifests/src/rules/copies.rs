//! How many there are, and what they cost.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::pod::{In, name_of, selects};
use crate::{Code, Rendering, Workload, quantity, rendering::title};

/// Of whatever there are several, one may always be taken away: a drain would never end otherwise.
pub fn budgets_leave_room_to_drain(rendering: &Rendering, _: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in rendering.workloads.iter().filter(|workload| workload.is_long_running()) {
        let replicas = replicas(workload, rendering);
        let budgets = rendering.budgets.iter().filter_map(|budget| Some((budget, budget.spec.as_ref()?)));
        let budgets: Vec<_> = budgets
            .filter(|(_, spec)| selects(&spec.selector.clone().unwrap_or_default(), &workload.labels()))
            .collect();
        if replicas > 1 && budgets.len() != 1 {
            faults.push(format!(
                "{}/{}: {} PodDisruptionBudgets",
                workload.kind,
                workload.name,
                budgets.len()
            ));
        }
        for (budget, spec) in budgets {
            let room = match (&spec.max_unavailable, &spec.min_available) {
                (Some(IntOrString::Int(away)), None) => *away >= 1,
                (None, Some(IntOrString::Int(stay))) => *stay < replicas,
                _ => false,
            };
            if !room {
                let name = name_of(&budget.metadata);
                faults.push(format!("PodDisruptionBudget/{name}: of {replicas} none may go"));
            }
        }
    }
    faults
}

/// The fewest that there will be.
fn replicas(workload: &Workload, rendering: &Rendering) -> i32 {
    let scaled =
        scalers(rendering).into_iter().find(|scaler| scaler.target == (workload.kind, &*workload.name));
    workload.replicas.or(scaled.map(|scaler| scaler.min)).unwrap_or(1)
}

struct Scaler<'a> {
    title: String,
    target: (&'a str, &'a str),
    min: i32,
    max: i32,
}

fn scalers(rendering: &Rendering) -> Vec<Scaler<'_>> {
    let mut all = Vec::new();
    for scaler in &rendering.autoscalers {
        let spec = &scaler.spec;
        all.push(Scaler {
            title: format!("HorizontalPodAutoscaler/{}", name_of(&scaler.metadata)),
            target: (&spec.scale_target_ref.kind, &spec.scale_target_ref.name),
            min: spec.min_replicas.unwrap_or(1),
            max: spec.max_replicas,
        });
    }
    for scaler in rendering.custom("ScaledObject") {
        let spec = &scaler["spec"];
        let number =
            |value: &Value| value.as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(0);
        let text = |key: &str| spec["scaleTargetRef"][key].as_str().unwrap_or_default();
        all.push(Scaler {
            title: title(scaler),
            target: (text("kind"), text("name")),
            min: number(&spec["minReplicaCount"]),
            max: number(&spec["maxReplicaCount"]),
        });
    }
    all
}

/// An autoscaler's target is there, has no number of its own and no second autoscaler; of ours there are never fewer
/// than two. Without an autoscaler there is a number.
pub fn autoscalers_scale_what_is_there(rendering: &Rendering, _: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    let scalers = scalers(rendering);
    for scaler in &scalers {
        let (kind, name) = scaler.target;
        let target = rendering.workloads.iter().find(|one| one.kind == kind && one.name == name);
        match target {
            None => faults.push(format!("{}, scaleTargetRef: there is no {kind}/{name}", scaler.title)),
            Some(target) if target.replicas.is_some() => {
                faults.push(format!("{kind}/{name}, replicas: {} says how many", scaler.title));
            }
            Some(_) => {}
        }
        if scalers.iter().filter(|other| other.target == scaler.target).count() > 1 {
            faults.push(format!("{}: another one pulls at {kind}/{name}", scaler.title));
        }
        if scaler.min < 2 || scaler.max < scaler.min {
            faults.push(format!("{}: from {} to {} replicas", scaler.title, scaler.min, scaler.max));
        }
    }
    for workload in rendering.workloads.iter().filter(|one| one.is_long_running() && one.replicas.is_none()) {
        if !scalers.iter().any(|scaler| scaler.target == (workload.kind, &*workload.name)) {
            faults.push(format!("{}/{}, replicas: nobody says how many", workload.kind, workload.name));
        }
    }
    faults
}

/// Postgres has a connection for every process that there may be, with all its pools full and one more of each Deployment
/// during an update: scaling would otherwise end in refusals, just when it is needed.
pub fn connections_suffice(rendering: &Rendering, code: &Code) -> Vec<String> {
    /// Beside its pools: a relay, a listener, whoever migrates, one to spare.
    const SESSIONS: u32 = 4;
    const PEOPLE: u32 = 10;
    let scalers = scalers(rendering);
    let mut needed = PEOPLE;
    for workload in rendering.workloads.iter().filter(|workload| workload.is_long_running()) {
        let containers = workload.containers();
        let image = containers.iter().filter(|one| !one.first).find_map(In::image_of_ours);
        let database = image.and_then(|image| code.services.get(image)?.blueprint.database.as_ref());
        let Some(database) = database else { continue };
        let scaler = scalers.iter().find(|scaler| scaler.target == (workload.kind, &*workload.name));
        let most = scaler.map(|scaler| scaler.max).or(workload.replicas).unwrap_or(1).unsigned_abs();
        let surge = u32::from(workload.kind == "Deployment" && most > 1);
        needed += (most + surge) * (database.pools.values().sum::<u32>() + SESSIONS);
    }
    match max_connections(rendering) {
        Some(max) if max >= needed => Vec::new(),
        max => vec![format!("max_connections: {max:?}, and there may be {needed}")],
    }
}

/// Of the configuration file, or of the operator's Cluster.
fn max_connections(rendering: &Rendering) -> Option<u32> {
    const KEY: &str = "max_connections";
    let of_file = || {
        let texts = rendering.config_maps.iter().filter_map(|map| map.data.as_ref()?.get("postgresql.conf"));
        let mut lines = texts.flat_map(|text| text.lines()).filter_map(|line| line.split_once('='));
        lines.find(|(key, _)| key.trim() == KEY).map(|(_, value)| value.trim().to_owned())
    };
    let of_cluster = rendering
        .custom("Cluster")
        .find_map(|one| Some(one["spec"]["postgresql"]["parameters"][KEY].as_str()?.to_owned()));
    of_cluster.or_else(of_file)?.parse().ok()
}

/// On a laptop, the ports of nodes are those that `deploy/kind/cluster.yaml` maps to buyers and their card tokens;
/// elsewhere there are none.
pub fn only_two_doors_are_open(rendering: &Rendering, code: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    let mut doors = Vec::new();
    for service in &rendering.services {
        let Some(spec) = &service.spec else { continue };
        let name = name_of(&service.metadata);
        match spec.type_.as_deref() {
            None | Some("ClusterIP") => {}
            Some("NodePort") => {
                let ports = spec.ports.iter().flatten();
                doors.extend(ports.map(|port| (name, port.port, port.node_port.unwrap_or(0))));
            }
            // A component's, for where a cloud brings the address. Limits go by the client's, which another policy loses.
            Some("LoadBalancer") if name == "gateway" && rendering.name.contains("loadbalancer") => {
                if spec.external_traffic_policy.as_deref() != Some("Local") {
                    faults
                        .push(format!("Service/{name}, externalTrafficPolicy: clients lose their addresses"));
                }
            }
            Some(other) => faults.push(format!("Service/{name}, type: {other}")),
        }
    }
    let host_ports = rendering.workloads.iter().flat_map(|workload| workload.containers());
    for one in host_ports {
        if one.container.ports.iter().flatten().any(|port| port.host_port.is_some()) {
            faults.push(format!("{}, ports: a hostPort", one.title()));
        }
    }
    doors.sort_unstable();
    let expected = if rendering.name.starts_with("kind") {
        mapped(code).map(|ports| {
            let names = ["gateway", "psp-sim-tokens"].into_iter();
            let doors = names.zip(ports).map(|(name, (node, host))| (name, host, node));
            let is_elsewhere = |name| name == "gateway" && rendering.name.contains("loadbalancer");
            doors.filter(|(name, ..)| !is_elsewhere(*name)).collect::<Vec<_>>()
        })
    } else {
        Ok(Vec::new())
    };
    match expected {
        Ok(expected) if expected == doors => {}
        Ok(expected) => faults.push(format!("Services: the ports of nodes are {doors:?}, not {expected:?}")),
        Err(error) => faults.push(format!("deploy/kind/cluster.yaml: {error:#}")),
    }
    faults
}

/// Ports of a node and of the laptop, in this order.
fn mapped(code: &Code) -> anyhow::Result<Vec<(i32, i32)>> {
    let text = std::fs::read_to_string(code.workspace.join("deploy/kind/cluster.yaml"))?;
    let cluster: Value = serde_saphyr::from_str(&text)?;
    let nodes = cluster["nodes"].as_array().into_iter().flatten();
    let mappings = nodes.flat_map(|node| node["extraPortMappings"].as_array().into_iter().flatten());
    let number = |value: &Value| value.as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(0);
    Ok(mappings.map(|one| (number(&one["containerPort"]), number(&one["hostPort"]))).collect())
}

/// All requests of the laptop's overlay together: at most 1 CPU and 1 GiB.
pub fn requests_fit_on_a_laptop(rendering: &Rendering, _: &Code) -> Vec<String> {
    const BUDGET: [(&str, u64); 2] = [("cpu", 1_000), ("memory", 1_000 << 30)];
    if rendering.name != "kind" {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (what, budget) in BUDGET {
        let total: u64 = rendering.workloads.iter().map(|workload| wanted(workload, what)).sum();
        if total > budget {
            faults.push(format!("requests.{what}: {total} thousandths, more than {budget}"));
        }
    }
    faults
}

/// Of all pods: replicas times the larger of the containers together and each that comes first.
fn wanted(workload: &Workload, what: &str) -> u64 {
    let (mut together, mut first) = (0, 0);
    for one in workload.containers() {
        let resources = one.container.resources.as_ref();
        let request = resources.and_then(|resources| quantity(resources.requests.as_ref()?.get(what)?));
        match request.unwrap_or(0) {
            request if one.first => first = request.max(first),
            request => together += request,
        }
    }
    together.max(first) * u64::try_from(workload.replicas.unwrap_or(1)).unwrap_or(0)
}
