//! An overlay, put together with kustomize and read with the types of Kubernetes.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PodTemplateSpec, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Kinds that an operator brings: read as they are.
const CUSTOM: [&str; 3] = ["postgresql.cnpg.io/", "barmancloud.cnpg.io/", "keda.sh/"];

/// Everything that one command would apply.
#[derive(Debug, Default)]
pub struct Rendering {
    /// The overlay and its components: `kind + load`.
    pub name: String,
    /// The objects as they are.
    pub objects: Vec<Value>,
    /// Whatever makes pods.
    pub workloads: Vec<Workload>,
    /// Names for pods.
    pub services: Vec<Service>,
    /// Settings and files.
    pub config_maps: Vec<ConfigMap>,
    /// Identities.
    pub accounts: Vec<ServiceAccount>,
    /// How many pods may be away.
    pub budgets: Vec<PodDisruptionBudget>,
    /// Who may talk to whom.
    pub policies: Vec<NetworkPolicy>,
    /// Who says how many pods there are.
    pub autoscalers: Vec<HorizontalPodAutoscaler>,
    /// Doors to the outside.
    pub ingresses: Vec<Ingress>,
    /// What an operator knows.
    pub custom: Vec<Value>,
}

/// Something that makes pods.
#[derive(Debug)]
pub struct Workload {
    /// `Deployment`, `StatefulSet`, `Job` or `CronJob`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// How many pods; nothing when an autoscaler says so, or for what ends by itself.
    pub replicas: Option<i32>,
    /// How it finds its pods; a Job does that by itself.
    pub selector: Option<LabelSelector>,
    /// The Service that names the pods of a StatefulSet.
    pub service: Option<String>,
    /// Volumes of each pod of its own, by name.
    pub claims: Vec<String>,
    /// What the pods are made of.
    pub template: PodTemplateSpec,
}

impl Rendering {
    /// Reads the text that kustomize writes.
    ///
    /// # Errors
    /// It is not YAML, or see [`from_objects`](Self::from_objects).
    pub fn parse(name: &str, text: &str) -> anyhow::Result<Self> {
        let objects = serde_saphyr::from_multiple(text).with_context(|| format!("{name} is not YAML"))?;
        Self::from_objects(name, objects)
    }

    /// Sorts objects by their kind.
    ///
    /// # Errors
    /// An object has a kind that no rule knows, a field that its kind does not have, or one of another type.
    pub fn from_objects(name: &str, objects: Vec<Value>) -> anyhow::Result<Self> {
        let mut rendering = Self { name: name.to_owned(), ..Self::default() };
        for object in &objects {
            rendering.take(object).with_context(|| format!("{name}: {}", title(object)))?;
        }
        rendering.objects = objects;
        Ok(rendering)
    }

    fn take(&mut self, object: &Value) -> anyhow::Result<()> {
        let version = object["apiVersion"].as_str().unwrap_or_default();
        match object["kind"].as_str().unwrap_or_default() {
            _ if CUSTOM.iter().any(|group| version.starts_with(group)) => self.custom.push(object.clone()),
            "Deployment" => self.workloads.push(strictly::<Deployment>(object)?.try_into()?),
            "StatefulSet" => self.workloads.push(strictly::<StatefulSet>(object)?.try_into()?),
            "Job" => self.workloads.push(strictly::<Job>(object)?.try_into()?),
            "CronJob" => self.workloads.push(strictly::<CronJob>(object)?.try_into()?),
            "Service" => self.services.push(strictly(object)?),
            "ConfigMap" => self.config_maps.push(strictly(object)?),
            "ServiceAccount" => self.accounts.push(strictly(object)?),
            "PodDisruptionBudget" => self.budgets.push(strictly(object)?),
            "NetworkPolicy" => self.policies.push(strictly(object)?),
            "HorizontalPodAutoscaler" => self.autoscalers.push(strictly(object)?),
            "Ingress" => self.ingresses.push(strictly(object)?),
            "Namespace" => drop(strictly::<Namespace>(object)?),
            "PriorityClass" => drop(strictly::<PriorityClass>(object)?),
            // Rights on the Kubernetes API among them: no pod has a token to use them with.
            other => bail!("no rule knows the kind {other:?} of {version}; write one first"),
        }
        Ok(())
    }

    /// The ConfigMap of this name.
    pub fn config_map(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        let map = self.config_maps.iter().find(|map| map.metadata.name.as_deref() == Some(name))?;
        map.data.as_ref()
    }

    /// Custom resources of a kind.
    pub fn custom<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.custom.iter().filter(move |object| object["kind"] == kind)
    }
}

/// `Deployment/gateway`.
pub fn title(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// Reads an object, and refuses what its type does not know: it would be dropped in silence here, and refused by a
/// server.
fn strictly<T: DeserializeOwned + Serialize>(object: &Value) -> anyhow::Result<T> {
    let typed: T = serde_json::from_value(object.clone())?;
    let known = serde_json::to_value(&typed)?;
    let mut lost = Vec::new();
    compare(object, &known, "", &mut lost);
    ensure!(lost.is_empty(), "unknown to Kubernetes: {}", lost.join(", "));
    Ok(typed)
}

fn compare(said: &Value, known: &Value, path: &str, lost: &mut Vec<String>) {
    match (said, known) {
        (Value::Object(said), known) => {
            for (key, value) in said {
                match known.get(key) {
                    Some(known) => compare(value, known, &format!("{path}.{key}"), lost),
                    None => lost.push(format!("{path}.{key}")),
                }
            }
        }
        (Value::Array(said), Value::Array(known)) => {
            for (index, (value, known)) in said.iter().zip(known).enumerate() {
                compare(value, known, &format!("{path}[{index}]"), lost);
            }
        }
        _ => {}
    }
}

fn name(metadata: ObjectMeta) -> anyhow::Result<String> {
    metadata.name.context("it has no name")
}

impl TryFrom<Deployment> for Workload {
    type Error = anyhow::Error;

    fn try_from(object: Deployment) -> anyhow::Result<Self> {
        let spec = object.spec;
        Ok(Self {
            kind: "Deployment",
            name: name(object.metadata)?,
            replicas: spec.replicas,
            selector: Some(spec.selector),
            service: None,
            claims: Vec::new(),
            template: spec.template,
        })
    }
}

impl TryFrom<StatefulSet> for Workload {
    type Error = anyhow::Error;

    fn try_from(object: StatefulSet) -> anyhow::Result<Self> {
        let spec = object.spec;
        let claims = spec.volume_claim_templates.unwrap_or_default();
        Ok(Self {
            kind: "StatefulSet",
            name: name(object.metadata)?,
            replicas: spec.replicas,
            selector: Some(spec.selector),
            service: spec.service_name,
            claims: claims.into_iter().filter_map(|claim| claim.metadata.name).collect(),
            template: spec.template,
        })
    }
}

impl TryFrom<Job> for Workload {
    type Error = anyhow::Error;

    fn try_from(object: Job) -> anyhow::Result<Self> {
        let template = object.spec.context("it has no spec")?.template;
        Ok(Self::that_ends("Job", name(object.metadata)?, template))
    }
}

impl TryFrom<CronJob> for Workload {
    type Error = anyhow::Error;

    fn try_from(object: CronJob) -> anyhow::Result<Self> {
        let job = object.spec.job_template;
        let template = job.spec.context("its job has no spec")?.template;
        Ok(Self::that_ends("CronJob", name(object.metadata)?, template))
    }
}

impl Workload {
    fn that_ends(kind: &'static str, name: String, template: PodTemplateSpec) -> Self {
        Self { kind, name, replicas: None, selector: None, service: None, claims: Vec::new(), template }
    }
}
