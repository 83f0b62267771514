//! What manifests say of each other.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::KeyToPath;
use serde_json::Value;

use super::settings::texts;
use crate::address::{addresses, service_of};
use crate::pod::name_of;
use crate::{Code, Rendering, Workload};

/// Secrets and keys that pods, an operator or a door need.
pub fn secrets(rendering: &Rendering) -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    for workload in &rendering.workloads {
        for one in workload.containers() {
            for variable in one.container.env.iter().flatten() {
                let from = variable.value_from.as_ref().and_then(|from| from.secret_key_ref.as_ref());
                all.extend(from.map(|secret| (secret.name.clone(), secret.key.clone())));
            }
        }
        for (name, items) in mounted(workload, Kind::Secret) {
            all.extend(items.iter().flatten().map(|item| (name.clone(), item.key.clone())));
        }
    }
    for cluster in rendering.custom("Cluster") {
        let roles = cluster["spec"]["managed"]["roles"].as_array().into_iter().flatten();
        let roles = roles.map(|role| &role["passwordSecret"]["name"]);
        let owner = &cluster["spec"]["bootstrap"]["initdb"]["secret"]["name"];
        for secret in roles.chain([owner]).filter_map(Value::as_str) {
            all.extend(["username", "password"].map(|key| (secret.to_owned(), key.to_owned())));
        }
    }
    let tls = rendering.ingresses.iter().filter_map(|ingress| ingress.spec.as_ref()?.tls.as_ref()).flatten();
    for secret in tls.filter_map(|tls| tls.secret_name.clone()) {
        all.extend(["tls.crt", "tls.key"].map(|key| (secret.clone(), key.to_owned())));
    }
    all
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    ConfigMap,
    Secret,
}

type Mounted = Vec<(String, Option<Vec<KeyToPath>>)>;

/// Names and chosen keys of what lies in volumes.
fn mounted(workload: &Workload, kind: Kind) -> Mounted {
    let mut all = Vec::new();
    for volume in workload.pod().volumes.into_iter().flatten() {
        let sources = volume.projected.and_then(|projected| projected.sources).unwrap_or_default();
        match kind {
            Kind::ConfigMap => {
                all.extend(volume.config_map.map(|map| (map.name, map.items)));
                all.extend(
                    sources.into_iter().filter_map(|one| one.config_map.map(|map| (map.name, map.items))),
                );
            }
            Kind::Secret => {
                let secret =
                    volume.secret.map(|secret| (secret.secret_name.unwrap_or_default(), secret.items));
                all.extend(secret);
                all.extend(sources.into_iter().filter_map(|one| one.secret.map(|map| (map.name, map.items))));
            }
        }
    }
    all
}

/// Volumes, ConfigMaps and the keys in them that pods name are there.
pub fn whatever_is_used_is_there(rendering: &Rendering, _: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in &rendering.workloads {
        let title = format!("{}/{}", workload.kind, workload.name);
        for (name, items) in mounted(workload, Kind::ConfigMap) {
            let Some(map) = rendering.config_map(&name) else {
                faults.push(format!("{title}, volumes: there is no ConfigMap {name:?}"));
                continue;
            };
            let missing = items.iter().flatten().filter(|item| !map.contains_key(&item.key));
            faults.extend(missing.map(|item| format!("{title}, volumes: {name} has no {:?}", item.key)));
        }
        let volumes: Vec<String> =
            workload.pod().volumes.into_iter().flatten().map(|volume| volume.name).collect();
        let known = |name: &String| volumes.contains(name) || workload.claims.contains(name);
        let mut mounts = BTreeSet::new();
        for one in workload.containers() {
            for mount in one.container.volume_mounts.iter().flatten() {
                mounts.insert(mount.name.clone());
                if !known(&mount.name) {
                    faults.push(format!(
                        "{}, volumeMounts: there is no volume {:?}",
                        one.title(),
                        mount.name
                    ));
                }
            }
        }
        let idle = volumes.iter().chain(&workload.claims).filter(|name| !mounts.contains(*name));
        faults.extend(idle.map(|name| format!("{title}, volumes: nobody mounts {name:?}")));
    }
    faults
}

/// No ConfigMap, ServiceAccount or Service that nobody needs.
pub fn whatever_is_there_is_used(rendering: &Rendering, _: &Code) -> Vec<String> {
    let mut used: BTreeSet<(&str, String)> = BTreeSet::new();
    for workload in &rendering.workloads {
        used.extend(mounted(workload, Kind::ConfigMap).into_iter().map(|(name, _)| ("ConfigMap", name)));
        used.extend(workload.pod().service_account_name.map(|name| ("ServiceAccount", name)));
        used.extend(workload.service.clone().map(|name| ("Service", name)));
        for one in workload.containers() {
            let maps =
                one.container.env_from.iter().flatten().filter_map(|from| from.config_map_ref.as_ref());
            used.extend(maps.map(|map| ("ConfigMap", map.name.clone())));
        }
    }
    for (_, text) in texts(rendering) {
        let hosts = addresses(&text);
        let hosts = hosts.iter().filter_map(|(host, _)| service_of(host));
        used.extend(hosts.map(|name| ("Service", name.to_owned())));
        // Who collects metrics finds pods by the names of their Services.
        let names =
            text.split("- names: [").nth(1).and_then(|rest| rest.split(']').next()).unwrap_or_default();
        used.extend(names.split(',').map(|name| ("Service", name.trim().to_owned())));
    }
    // The Job that makes databases knows its server by this variable.
    for one in rendering.workloads.iter().flat_map(|workload| workload.containers()) {
        let host = one.container.env.iter().flatten().find(|variable| variable.name == "PGHOST");
        used.extend(host.and_then(|host| host.value.clone()).map(|name| ("Service", name)));
    }
    for service in &rendering.services {
        let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
        if kind.is_some_and(|kind| kind != "ClusterIP") {
            used.insert(("Service", name_of(&service.metadata).to_owned()));
        }
    }
    let targets = |text: &str| text.split("targets: [").skip(1).map(str::to_owned).collect::<Vec<_>>();
    for (_, text) in texts(rendering) {
        for rest in targets(&text) {
            let hosts = rest.split(']').next().unwrap_or_default().split(',');
            used.extend(
                hosts.filter_map(|host| Some(("Service", host.trim().split_once(':')?.0.to_owned()))),
            );
        }
        let endpoint = text.split("endpoint: ").skip(1).filter_map(|rest| rest.split_once(':'));
        used.extend(endpoint.map(|(host, _)| ("Service", host.to_owned())));
    }
    let there = rendering.objects.iter().filter_map(|object| {
        let kind = object["kind"].as_str()?;
        let kind = ["ConfigMap", "ServiceAccount", "Service"].into_iter().find(|known| *known == kind)?;
        Some((kind, object["metadata"]["name"].as_str()?.to_owned()))
    });
    there
        .filter(|one| !used.contains(one))
        .map(|(kind, name)| format!("{kind}/{name}: nobody needs it"))
        .collect()
}
