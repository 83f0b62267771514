//! What processes are told.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::address::{addresses, service_of};
use crate::pod::{In, Source, name_of};
use crate::{Code, Rendering};

/// The image of the command line.
const COMMAND_LINE: &str = "stampede";

/// Every variable is one that the program reads.
pub fn keys_are_read(rendering: &Rendering, code: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for one in ours(rendering) {
        let Some(image) = one.image_of_ours() else { continue };
        let variables = match one.environment(rendering) {
            Ok(variables) => variables,
            Err(missing) => {
                faults.extend(missing);
                continue;
            }
        };
        let reads = |key: &str| match code.services.get(image) {
            Some(service) => service.keys.contains_key(key),
            None => image == COMMAND_LINE && code.command_line.contains(key),
        };
        let unknown = variables.keys().filter(|key| !reads(key));
        faults.extend(unknown.map(|key| format!("{}, env {key}: {image} does not read it", one.title())));
    }
    faults
}

/// A process of ours has every setting without which it does not start; and every service has a process.
pub fn required_keys_are_set(rendering: &Rendering, code: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    let mut running = BTreeSet::new();
    for one in ours(rendering) {
        let Some((name, service)) = one.image_of_ours().and_then(|image| code.services.get_key_value(image))
        else {
            continue;
        };
        let variables = one.environment(rendering).unwrap_or_default();
        let database = BTreeSet::from(["DATABASE_URL".to_owned()]);
        // A migration talks to its database and needs no other secret.
        let required = if one.first { &database } else { &service.required };
        running.extend((!one.first).then_some(name));
        for key in required {
            let empty = matches!(variables.get(key), Some(Source::Text(text)) if text.is_empty());
            if empty || !variables.contains_key(key) {
                faults.push(format!("{}, env {key}: it is not set", one.title()));
            }
        }
    }
    let missing = code.services.keys().filter(|name| !running.contains(name));
    faults.extend(missing.map(|name| format!("{name}: nothing runs it")));
    faults
}

/// The ports of a container are its listeners, by name and number, open to other pods; what it says of itself is one of
/// them. Of foreign programs whose configuration names addresses, the ports are those.
pub fn ports_are_listeners(rendering: &Rendering, code: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in rendering.workloads.iter().filter(|workload| workload.is_long_running()) {
        for one in workload.containers().into_iter().filter(|one| !one.first) {
            match one.image_of_ours().and_then(|image| code.services.get(image)) {
                Some(service) => faults.extend(of_ours(one, rendering, service)),
                None => faults.extend(of_others(one, rendering)),
            }
        }
    }
    faults
}

fn of_ours(one: In<'_>, rendering: &Rendering, service: &crate::code::Service) -> Vec<String> {
    let (title, variables) = (one.title(), one.environment(rendering).unwrap_or_default());
    let mut faults = Vec::new();
    let ports: BTreeSet<(String, i32)> = one.workload.ports().into_iter().collect();
    let mut listeners = BTreeSet::new();
    for name in service.listeners.iter().map(String::as_str).chain(["admin"]) {
        let key = format!("{}_LISTEN", name.to_uppercase());
        let address = match variables.get(&key) {
            Some(Source::Text(text)) if service.keys.contains_key(&key) => text.parse::<SocketAddr>().ok(),
            _ => None,
        };
        match address {
            Some(address) if address.ip().is_unspecified() => {
                listeners.insert((name.to_owned(), i32::from(address.port())));
            }
            _ => faults.push(format!("{title}, env {key}: it is no address that others reach")),
        }
    }
    if ports != listeners {
        faults.push(format!("{title}, ports: {ports:?}, and its listeners are {listeners:?}"));
    }
    // Who says heartbeats tells others where it is: only the cluster knows.
    if service.required.contains("NATS_PASSWORD") {
        let told = matches!(variables.get("ADVERTISE"), Some(Source::Field));
        if !told {
            faults.push(format!("{title}, env ADVERTISE: it is not the pod's own address"));
        }
    }
    faults
}

fn of_others(one: In<'_>, rendering: &Rendering) -> Option<String> {
    let pod = one.workload.pod();
    let projected = pod.volumes.iter().flatten().flat_map(|volume| volume.projected.iter());
    let projected = projected.flat_map(|all| all.sources.iter().flatten());
    let projected = projected.filter_map(|source| Some(source.config_map.as_ref()?.name.as_str()));
    let direct =
        pod.volumes.iter().flatten().filter_map(|volume| Some(volume.config_map.as_ref()?.name.as_str()));
    let files = projected.chain(direct).filter_map(|name| rendering.config_map(name));
    let texts = files.flat_map(|files| files.values());
    let number = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<i32>().ok();
    let listens: BTreeSet<i32> =
        texts.flat_map(|text| text.split("0.0.0.0:").skip(1).filter_map(number)).collect();
    let ports: BTreeSet<i32> = one.workload.ports().into_iter().map(|(_, port)| port).collect();
    (!listens.is_empty() && listens != ports)
        .then(|| format!("{}, ports: {ports:?}, and its configuration says {listens:?}", one.title()))
}

/// Whatever is called by an address within the cluster is a Service here, with that port.
pub fn addresses_are_services(rendering: &Rendering, _: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for (place, text) in texts(rendering) {
        for (host, port) in addresses(&text) {
            let Some(name) = service_of(&host) else { continue };
            if !has_port(rendering, name, port) {
                faults.push(format!("{place}: there is no Service {name} with port {port:?}"));
            }
        }
    }
    faults
}

/// Every text in which an address may stand, and where it stands.
pub(super) fn texts(rendering: &Rendering) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for one in rendering.workloads.iter().flat_map(|workload| workload.containers()) {
        let words = [&one.container.command, &one.container.args].into_iter().flatten().flatten();
        all.extend(words.map(|word| (format!("{}, args", one.title()), word.clone())));
        for variable in one.container.env.iter().flatten() {
            let text = variable.value.clone().unwrap_or_default();
            all.push((format!("{}, env {}", one.title(), variable.name), text));
        }
    }
    for map in &rendering.config_maps {
        for (key, text) in map.data.iter().flatten() {
            all.push((format!("ConfigMap/{}, {key}", name_of(&map.metadata)), text.clone()));
        }
    }
    for object in rendering.custom("ScaledObject") {
        for trigger in object["spec"]["triggers"].as_array().into_iter().flatten() {
            let endpoint = trigger["metadata"]["natsServerMonitoringEndpoint"].as_str().unwrap_or_default();
            all.push((crate::rendering::title(object), format!("http://{endpoint}")));
        }
    }
    all
}

fn has_port(rendering: &Rendering, name: &str, port: Option<i32>) -> bool {
    let service = rendering.services.iter().find(|service| name_of(&service.metadata) == name);
    let mut ports =
        service.iter().flat_map(|service| &service.spec).flat_map(|spec| spec.ports.iter().flatten());
    let given = ports.any(|known| Some(known.port) == port);
    given
        || port.is_some_and(|port| operators(rendering).any(|known| known == (name, IntOrString::Int(port))))
}

/// Services that the operator of Postgres makes.
fn operators(rendering: &Rendering) -> impl Iterator<Item = (&str, IntOrString)> {
    let services = rendering
        .custom("Cluster")
        .filter_map(|cluster| cluster["spec"]["managed"]["services"]["additional"].as_array());
    services.flatten().filter_map(|service| {
        let name = service["serviceTemplate"]["metadata"]["name"].as_str()?;
        Some((name, IntOrString::Int(5432)))
    })
}

fn ours(rendering: &Rendering) -> Vec<In<'_>> {
    let all = rendering.workloads.iter().flat_map(|workload| workload.containers());
    all.filter(|one| one.image_of_ours().is_some()).collect()
}
