//! Pods and their containers, as rules look at them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, Service, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{Rendering, Workload};

/// What images that we build begin with.
const OURS: &str = "localhost/stampede/";

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Where a variable of a container comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It stands in the manifest or a ConfigMap.
    Text(String),
    /// A Secret and its key.
    Secret(String, String),
    /// Something that only the cluster knows.
    Field,
}

/// A container in its pod.
#[derive(Clone, Copy, Debug)]
pub struct In<'a> {
    /// The workload.
    pub workload: &'a Workload,
    /// The container.
    pub container: &'a Container,
    /// Whether it ends before the others begin.
    pub first: bool,
}

impl Workload {
    /// What the pods run.
    ///
    /// A template without one is refused by every server; here it is an empty one, which breaks the rules.
    pub fn pod(&self) -> PodSpec {
        self.template.spec.clone().unwrap_or_default()
    }

    /// The labels of its pods.
    pub fn labels(&self) -> Labels {
        self.template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default()
    }

    /// Whether it runs until somebody ends it.
    pub fn is_long_running(&self) -> bool {
        matches!(self.kind, "Deployment" | "StatefulSet")
    }

    /// Every container, those that come first included.
    pub fn containers(&self) -> Vec<In<'_>> {
        let Some(pod) = &self.template.spec else { return Vec::new() };
        let of = |first| move |container| In { workload: self, container, first };
        let init = pod.init_containers.iter().flatten().map(of(true));
        init.chain(pod.containers.iter().map(of(false))).collect()
    }

    /// The port of a pod that a name or a number means.
    pub fn port(&self, wanted: &IntOrString) -> Option<i32> {
        let mut ports = self.ports().into_iter();
        ports
            .find(|(name, number)| match wanted {
                IntOrString::Int(wanted) => number == wanted,
                IntOrString::String(wanted) => name == wanted,
            })
            .map(|(_, number)| number)
    }

    /// Names and numbers of the pods' ports.
    pub fn ports(&self) -> Vec<(String, i32)> {
        let ports = self.containers().into_iter().flat_map(|one| one.container.ports.iter().flatten());
        ports.map(|port| (port.name.clone().unwrap_or_default(), port.container_port)).collect()
    }
}

impl In<'_> {
    /// The service whose image this is, if it is one of ours.
    pub fn image_of_ours(&self) -> Option<&str> {
        let image = self.container.image.as_deref()?.strip_prefix(OURS)?;
        Some(image.split(':').next().unwrap_or(image))
    }

    /// `Deployment/gateway, container gateway`.
    pub fn title(&self) -> String {
        let Workload { kind, name, .. } = self.workload;
        format!("{kind}/{name}, container {}", self.container.name)
    }

    /// The variables, later sources stronger.
    ///
    /// # Errors
    /// A sentence for every source that is not there, or of a kind whose keys cannot be known.
    pub fn environment(&self, rendering: &Rendering) -> Result<BTreeMap<String, Source>, Vec<String>> {
        let (mut variables, mut faults) = (BTreeMap::new(), Vec::new());
        for from in self.container.env_from.iter().flatten() {
            let name = from.config_map_ref.as_ref().map(|map| map.name.as_str());
            match name.and_then(|name| rendering.config_map(name)) {
                Some(map) => variables
                    .extend(map.iter().map(|(key, value)| (key.clone(), Source::Text(value.clone())))),
                None => faults.push(format!("{}, envFrom: {name:?} is no ConfigMap here", self.title())),
            }
        }
        for variable in self.container.env.iter().flatten() {
            let from = variable.value_from.as_ref();
            let secret = from.and_then(|from| from.secret_key_ref.as_ref());
            let source = match (&variable.value, secret) {
                (Some(text), _) => Source::Text(text.clone()),
                (None, Some(secret)) => Source::Secret(secret.name.clone(), secret.key.clone()),
                (None, None) if from.is_some_and(|from| from.field_ref.is_some()) => Source::Field,
                (None, None) => {
                    faults.push(format!("{}, env {}: it has no value", self.title(), variable.name));
                    continue;
                }
            };
            variables.insert(variable.name.clone(), source);
        }
        if faults.is_empty() { Ok(variables) } else { Err(faults) }
    }
}

/// Whether a selector means pods with these labels.
pub fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = |(key, value): (&String, &String)| labels.get(key) == Some(value);
    let expressions = selector.match_expressions.iter().flatten().all(|expression| {
        let value = labels.get(&expression.key);
        let listed = value.is_some_and(|value| expression.values.iter().flatten().any(|one| one == value));
        match expression.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            _ => value.is_none(),
        }
    });
    expressions && selector.match_labels.iter().flatten().all(equal)
}

/// Whether a Service leads to pods with these labels.
pub fn leads_to(service: &Service, labels: &Labels) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    })
}

/// The name of an object, or nothing.
pub fn name_of(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// Whether nobody gets this account's token by accident.
pub fn is_without_token(account: &ServiceAccount) -> bool {
    account.automount_service_account_token == Some(false)
}
