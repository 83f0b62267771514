//! Every rule is seen red: a manifest is broken for it, and it says where.

use serde_json::{Value, json};
use stampede_manifests::{Rendering, Rule, rendering::title, rules};

use crate::stage::{code, rendering};

/// A rendering, an object in it by the beginning of its title, a field, what the field becomes (nothing: it is taken
/// away), and what the rule says then.
type Case = (Rule, &'static str, &'static str, &'static str, Option<Value>, &'static str);

const POD: &str = "/spec/template/spec";
const CONTAINER: &str = "/spec/template/spec/containers/0";

fn change(object: &mut Value, pointer: &str, value: Option<Value>) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("there is no {parent}"));
    let key = key.replace("~1", "/");
    match (parent, value) {
        (Value::Object(map), Some(value)) => drop(map.insert(key, value)),
        (Value::Object(map), None) => assert!(map.remove(&key).is_some(), "there is no {pointer}"),
        (Value::Array(list), Some(value)) if key == "-" => list.push(value),
        (Value::Array(list), Some(value)) => list[key.parse::<usize>().unwrap()] = value,
        (Value::Array(list), None) => drop(list.remove(key.parse().unwrap())),
        _ => panic!("there is no {pointer}"),
    }
}

fn objects(name: &str, which: &str, pointer: &str, value: Option<Value>) -> Vec<Value> {
    let mut objects = rendering(name).objects.clone();
    let mut meant = objects.iter_mut().filter(|object| {
        let title = title(object);
        // Names of ConfigMaps end in a hash.
        title == which || (which.starts_with("ConfigMap/") && title.starts_with(&format!("{which}-")))
    });
    let object = meant.next().unwrap_or_else(|| panic!("{name} has no {which}"));
    change(object, pointer, value);
    objects
}

fn without(name: &str, which: &str) -> Rendering {
    let mut objects = rendering(name).objects.clone();
    let before = objects.len();
    objects.retain(|object| title(object) != which);
    assert_eq!(objects.len() + 1, before, "{name} has no {which}");
    Rendering::from_objects(name, objects).unwrap()
}

fn at(base: &str, rest: &str) -> &'static str {
    Box::leak(format!("{base}/{rest}").into_boxed_str())
}

fn is_red(cases: Vec<Case>) {
    for (rule, name, which, pointer, value, expected) in cases {
        let changed = objects(name, which, pointer, value.clone());
        let broken = Rendering::from_objects(name, changed).unwrap();
        let faults = rule(&broken, code());
        let told = faults.iter().any(|fault| fault.contains(expected));
        assert!(told, "{name}, {which}{pointer} = {value:?}: expected {expected:?}, and it says {faults:?}");
    }
}

#[test]
fn pods() {
    let probes: Rule = rules::probes_ask_three_questions;
    let resources: Rule = rules::resources_are_asked_for_and_bounded;
    let grace: Rule = rules::grace_is_longer_than_the_drain;
    let orders = "Deployment/orders";
    is_red(vec![
        (probes, "kind", orders, at(CONTAINER, "startupProbe"), None, "startupProbe: it is missing"),
        (
            probes,
            "kind",
            "StatefulSet/nats",
            at(CONTAINER, "readinessProbe"),
            None,
            "readinessProbe: it is missing",
        ),
        (
            probes,
            "kind",
            orders,
            at(CONTAINER, "livenessProbe/httpGet/path"),
            Some(json!("/readyz")),
            "the same as readiness",
        ),
        (
            probes,
            "kind",
            orders,
            at(CONTAINER, "startupProbe/httpGet/path"),
            Some(json!("/livez")),
            "the same as liveness",
        ),
        (
            probes,
            "kind",
            orders,
            at(CONTAINER, "livenessProbe/httpGet/path"),
            Some(json!("/healthz")),
            "has no \"/healthz\"",
        ),
        (
            probes,
            "kind",
            orders,
            at(CONTAINER, "livenessProbe/httpGet/port"),
            Some(json!(9091)),
            "no port of the container",
        ),
        (
            probes,
            "kind",
            orders,
            at(CONTAINER, "startupProbe/failureThreshold"),
            Some(json!(30)),
            "not longer than STARTUP",
        ),
        (
            resources,
            "ha",
            orders,
            at(POD, "initContainers/0/resources/limits/memory"),
            None,
            "migrate, resources.limits.memory",
        ),
        (
            resources,
            "ha",
            orders,
            at(CONTAINER, "resources/requests/cpu"),
            Some(json!("2")),
            "above the limit",
        ),
        (
            grace,
            "kind",
            "Deployment/gateway",
            at(POD, "terminationGracePeriodSeconds"),
            Some(json!(59)),
            "not longer than a drain",
        ),
        (
            grace,
            "ha",
            "ConfigMap/orders",
            "/data/DRAIN_TIMEOUT_MS",
            Some(json!("60000")),
            "not longer than a drain",
        ),
        (grace, "ha", "ConfigMap/orders", "/data/DRAIN_TIMEOUT_MS", Some(json!("x")), "no numbers"),
    ]);
}

#[test]
fn security() {
    let restricted: Rule = rules::containers_are_restricted;
    let token: Rule = rules::nobody_has_a_token;
    let own = |rest: &str| at(CONTAINER, &format!("securityContext/{rest}"));
    let pod = |rest: &str| at(POD, &format!("securityContext/{rest}"));
    is_red(vec![
        (restricted, "kind", "Deployment/lobby", pod("runAsNonRoot"), None, "runAsNonRoot"),
        (restricted, "kind", "Deployment/lobby", pod("runAsUser"), Some(json!(1000)), "not 65532"),
        (restricted, "kind", "StatefulSet/postgres", pod("runAsUser"), Some(json!(0)), "root"),
        (restricted, "kind", "Deployment/lobby", pod("seccompProfile"), None, "seccompProfile"),
        (
            restricted,
            "ha",
            "StatefulSet/nats",
            own("allowPrivilegeEscalation"),
            None,
            "allowPrivilegeEscalation",
        ),
        (
            restricted,
            "ha",
            "StatefulSet/nats",
            own("readOnlyRootFilesystem"),
            Some(json!(false)),
            "readOnlyRoot",
        ),
        (
            restricted,
            "ha",
            "StatefulSet/nats",
            own("capabilities/drop"),
            Some(json!(["KILL"])),
            "drop is not",
        ),
        (restricted, "ha", "StatefulSet/nats", own("capabilities/add"), Some(json!(["KILL"])), "add is not"),
        (restricted, "ha", "StatefulSet/nats", own("privileged"), Some(json!(true)), "privileged"),
        (restricted, "ha", "StatefulSet/nats", at(POD, "hostNetwork"), Some(json!(true)), "its node"),
        (token, "kind", "Deployment/mail", at(POD, "automountServiceAccountToken"), None, "automount"),
        (token, "kind", "Deployment/mail", at(POD, "enableServiceLinks"), None, "enableServiceLinks"),
        (
            token,
            "kind",
            "Deployment/mail",
            at(POD, "serviceAccountName"),
            Some(json!("default")),
            "no ServiceAccount",
        ),
        (token, "kind", "ServiceAccount/mail", "/automountServiceAccountToken", None, "ServiceAccount/mail"),
    ]);
}

#[test]
fn rights_on_the_kubernetes_api_are_refused() {
    let mut objects = rendering("kind").objects.clone();
    objects.push(
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "x"}}),
    );
    let said = format!("{:#}", Rendering::from_objects("kind", objects).unwrap_err());
    assert!(said.contains("Role/x") && said.contains("no rule knows the kind"), "{said}");
}

#[test]
fn unknown_fields_are_refused() {
    for (which, pointer) in [
        ("Deployment/orders", at(CONTAINER, "readynessProbe")),
        ("NetworkPolicy/orders", "/spec/ingres"),
        ("PodDisruptionBudget/orders", "/spec/maxUnavaliable"),
        ("StatefulSet/postgres", at("/spec/volumeClaimTemplates/0/spec", "storageClas")),
    ] {
        let changed = objects("kind", which, pointer, Some(json!("x")));
        let said = format!("{:#}", Rendering::from_objects("kind", changed).unwrap_err());
        assert!(said.contains("unknown to Kubernetes") && said.contains(which), "{said}");
    }
}

#[test]
fn identity() {
    let labels: Rule = rules::everything_is_labelled;
    let images: Rule = rules::images_are_of_this_version;
    let fixed: Rule = rules::what_cannot_change_has_no_version;
    let label = |base: &str, label: &str| at(base, &format!("app.kubernetes.io~1{label}"));
    is_red(vec![
        (
            labels,
            "kind",
            "Service/nats",
            label("/metadata/labels", "component"),
            None,
            "component is missing",
        ),
        (
            labels,
            "kind",
            "Namespace/stampede",
            label("/metadata/labels", "part-of"),
            None,
            "part-of is missing",
        ),
        (
            labels,
            "kind",
            "CronJob/provision",
            label("/spec/jobTemplate/spec/template/metadata/labels", "name"),
            None,
            "template",
        ),
        (
            images,
            "kind",
            "Deployment/orders",
            at(CONTAINER, "image"),
            Some(json!("localhost/stampede/orders:0.0.9")),
            "is not",
        ),
        (
            images,
            "kind",
            "Deployment/orders",
            at(CONTAINER, "image"),
            Some(json!("localhost/stampede/order:0.1.0")),
            "nobody builds",
        ),
        (
            images,
            "kind",
            "Deployment/mail",
            at(CONTAINER, "image"),
            Some(json!("axllent/mailpit:latest")),
            "has no version",
        ),
        (
            images,
            "kind",
            "StatefulSet/nats",
            label("/spec/template/metadata/labels", "version"),
            Some(json!("0.1.0")),
            "label version",
        ),
        (
            fixed,
            "kind",
            "StatefulSet/nats",
            label("/spec/volumeClaimTemplates/0/metadata/labels", "version"),
            Some(json!("1")),
            "volumeClaimTemplates",
        ),
        (
            fixed,
            "kind",
            "Deployment/orders",
            label("/spec/selector/matchLabels", "version"),
            Some(json!("1")),
            "selector",
        ),
    ]);
}

#[test]
fn selectors_and_services() {
    let selectors: Rule = rules::selectors_mean_pods;
    let services: Rule = rules::services_lead_to_ports;
    let name = "app.kubernetes.io~1name";
    let spread = at(POD, &format!("topologySpreadConstraints/0/labelSelector/matchLabels/{name}"));
    let budget = at("/spec/selector/matchLabels", name);
    is_red(vec![
        (
            selectors,
            "ha",
            "Deployment/lobby",
            at("/spec/selector/matchLabels", name),
            Some(json!("loby")),
            "Deployment/lobby, selector",
        ),
        (selectors, "ha", "Deployment/lobby", spread, Some(json!("orders")), "topologySpreadConstraints"),
        (
            selectors,
            "ha",
            "Deployment/lobby",
            at(POD, "topologySpreadConstraints/0/topologyKey"),
            Some(json!("zone")),
            "no node has",
        ),
        (
            selectors,
            "ha",
            "PodDisruptionBudget/lobby",
            budget,
            Some(json!("loby")),
            "PodDisruptionBudget/lobby",
        ),
        (
            services,
            "kind",
            "Service/gateway",
            at("/spec/selector", name),
            Some(json!("gate")),
            "Service/gateway, selector",
        ),
        (services, "kind", "Service/gateway", "/spec/ports/0/targetPort", Some(json!("web")), "has no port"),
        (services, "ha", "StatefulSet/nats", "/spec/serviceName", Some(json!("nats")), "not headless"),
        (services, "ha", "StatefulSet/nats", "/spec/serviceName", Some(json!("mail")), "does not lead to it"),
    ]);
}

#[test]
fn settings() {
    let read: Rule = rules::keys_are_read;
    let required: Rule = rules::required_keys_are_set;
    let ports: Rule = rules::ports_are_listeners;
    let addresses: Rule = rules::addresses_are_services;
    is_red(vec![
        (
            read,
            "kind",
            "ConfigMap/orders",
            "/data/SWEEP_EVRY_MS",
            Some(json!("1")),
            "orders does not read it",
        ),
        (read, "kind", "ConfigMap/orders", "/data/SESSION_KEY", Some(json!("1")), "orders does not read it"),
        (
            read,
            "kind",
            "ConfigMap/provision",
            "/data/NATS_URI",
            Some(json!("1")),
            "stampede does not read it",
        ),
        (
            read,
            "kind",
            "Deployment/orders",
            at(CONTAINER, "envFrom/0/configMapRef/name"),
            Some(json!("order")),
            "no ConfigMap here",
        ),
        (
            read,
            "kind",
            "Deployment/orders",
            at(CONTAINER, "env/1/name"),
            Some(json!("POD_IP")),
            "env POD_IP: orders does not read it",
        ),
        (required, "kind", "ConfigMap/payments", "/data/PSP_URL", None, "env PSP_URL: it is not set"),
        (
            required,
            "kind",
            "ConfigMap/payments",
            "/data/PSP_URL",
            Some(json!("")),
            "env PSP_URL: it is not set",
        ),
        (
            required,
            "kind",
            "StatefulSet/payments",
            at(CONTAINER, "env/3"),
            None,
            "NATS_PASSWORD: it is not set",
        ),
        (
            required,
            "kind",
            "StatefulSet/payments",
            at(POD, "initContainers/0/env/0"),
            None,
            "migrate, env DATABASE_URL",
        ),
        (
            required,
            "kind",
            "Deployment/orders",
            at(CONTAINER, "image"),
            Some(json!("x/orders:0.1.0")),
            "orders: nothing runs it",
        ),
        (ports, "kind", "ConfigMap/orders", "/data/HTTP_LISTEN", Some(json!("0.0.0.0:8088")), "ports:"),
        (
            ports,
            "kind",
            "ConfigMap/orders",
            "/data/ADMIN_LISTEN",
            Some(json!("127.0.0.1:9090")),
            "no address that others reach",
        ),
        (
            ports,
            "kind",
            "Deployment/notify",
            at(CONTAINER, "ports/-"),
            Some(json!({"name": "http", "containerPort": 8080})),
            "ports:",
        ),
        (
            ports,
            "kind",
            "Deployment/orders",
            at(CONTAINER, "env/1"),
            Some(json!({"name": "ADVERTISE", "value": "0.0.0.0"})),
            "env ADVERTISE",
        ),
        (
            ports,
            "ha",
            "StatefulSet/nats",
            at(CONTAINER, "ports/1/containerPort"),
            Some(json!(8223)),
            "its configuration says",
        ),
        (
            addresses,
            "kind",
            "ConfigMap/orders",
            "/data/NATS_URL",
            Some(json!("nats://nats:4223")),
            "no Service nats",
        ),
        (
            addresses,
            "kind",
            "ConfigMap/notify",
            "/data/SMTP_URL",
            Some(json!("smtp://post:1025")),
            "no Service post",
        ),
    ]);
}

#[test]
fn network() {
    let arrows: Rule = rules::arrows_are_those_of_the_blueprints;
    let somewhere: Rule = rules::policies_lead_somewhere;
    let postgres = json!({
        "to": [{"podSelector": {"matchLabels": {"app.kubernetes.io/component": "database"}}}],
        "ports": [{"protocol": "TCP", "port": 5432}],
    });
    let names = "/spec/ingress/0/from/0/podSelector/matchExpressions/0/values/-";
    let name = "podSelector/matchLabels/app.kubernetes.io~1name";
    is_red(vec![
        (
            arrows,
            "kind",
            "NetworkPolicy/gateway",
            "/spec/egress/-",
            Some(postgres),
            "gateway -> postgres:sql: postgres does not let",
        ),
        (
            arrows,
            "kind",
            "NetworkPolicy/postgres",
            names,
            Some(json!("gateway")),
            "gateway -> postgres:sql: gateway is not let out",
        ),
        (
            arrows,
            "kind",
            "NetworkPolicy/notify",
            "/spec/egress/0",
            None,
            "notify -> mail:smtp is drawn and not open",
        ),
        (
            arrows,
            "kind",
            "NetworkPolicy/orders",
            "/spec/ingress/0/from",
            None,
            "outside -> orders:http is open",
        ),
        (
            arrows,
            "kind",
            "NetworkPolicy/gateway",
            "/spec/ingress/0/ports",
            None,
            "outside -> gateway:admin is open",
        ),
        (
            arrows,
            "ha",
            "NetworkPolicy/postgres-peers",
            "/spec/egress/1/ports/0/port",
            Some(json!(22)),
            "anywhere:22 is open",
        ),
        (arrows, "ha", "NetworkPolicy/nats-peers", "/spec/egress", None, "nats -> nats:peers"),
        (
            arrows,
            "kind",
            "NetworkPolicy/default-deny",
            "/spec/policyTypes",
            Some(json!(["Ingress"])),
            "none denies everything",
        ),
        (
            arrows,
            "kind",
            "NetworkPolicy/dns",
            "/spec/egress/0/ports/0/port",
            Some(json!(54)),
            "kube-dns:54 is open",
        ),
        (
            arrows,
            "kind + observability",
            "NetworkPolicy/observed",
            "/spec/ingress",
            None,
            "prometheus -> catalog:admin",
        ),
        (somewhere, "kind", "NetworkPolicy/mail", at("/spec", name), Some(json!("post")), "it means no pod"),
        (
            somewhere,
            "kind",
            "NetworkPolicy/mail",
            at("/spec/ingress/0/from/0", name),
            Some(json!("x")),
            "means no pod",
        ),
        (
            somewhere,
            "kind",
            "NetworkPolicy/mail",
            "/spec/ingress/0/ports/0/port",
            Some(json!("mails")),
            "no port of those",
        ),
    ]);
}

#[test]
fn copies() {
    let budgets: Rule = rules::budgets_leave_room_to_drain;
    let scaled: Rule = rules::autoscalers_scale_what_is_there;
    let connections: Rule = rules::connections_suffice;
    let doors: Rule = rules::only_two_doors_are_open;
    let fit: Rule = rules::requests_fit_on_a_laptop;
    let queue = "kind + autoscaling-queue";
    is_red(vec![
        (
            connections,
            "kind + autoscaling-cpu",
            "HorizontalPodAutoscaler/lobby",
            "/spec/maxReplicas",
            Some(json!(6)),
            "there may be 424",
        ),
        (
            connections,
            "ha",
            "Cluster/postgres",
            "/spec/postgresql/parameters/max_connections",
            Some(json!("200")),
            "max_connections: Some(200)",
        ),
        (
            doors,
            "ha + loadbalancer",
            "Service/gateway",
            "/spec/externalTrafficPolicy",
            Some(json!("Cluster")),
            "clients lose their addresses",
        ),
        (
            rules::only_what_migrates_owns_the_schema,
            "kind",
            "Deployment/orders",
            at(CONTAINER, "env/2/valueFrom/secretKeyRef/name"),
            Some(json!("orders-migrate")),
            "it is that of the Secret orders-migrate",
        ),
        (
            rules::only_what_migrates_owns_the_schema,
            "ha",
            "StatefulSet/payments",
            at(POD, "initContainers/0/env/0/valueFrom/secretKeyRef/name"),
            Some(json!("payments")),
            "it is that of the Secret payments",
        ),
        (
            rules::what_sells_goes_first,
            "ha",
            "StatefulSet/nats",
            at(POD, "priorityClassName"),
            None,
            "nats, priorityClassName: None",
        ),
        (
            rules::what_sells_goes_first,
            "ha",
            "Cluster/postgres",
            "/spec/priorityClassName",
            Some(json!("other")),
            "Cluster/postgres, priorityClassName",
        ),
        (
            budgets,
            "kind",
            "PodDisruptionBudget/orders",
            "/spec/maxUnavailable",
            Some(json!(0)),
            "none may go",
        ),
        (
            scaled,
            "kind + autoscaling-cpu",
            "HorizontalPodAutoscaler/orders",
            "/spec/scaleTargetRef/name",
            Some(json!("x")),
            "no Deployment/x",
        ),
        (
            scaled,
            "kind + autoscaling-cpu",
            "HorizontalPodAutoscaler/orders",
            "/spec/maxReplicas",
            Some(json!(1)),
            "from 2 to 1",
        ),
        (
            scaled,
            "kind + autoscaling-cpu",
            "Deployment/orders",
            "/spec/replicas",
            Some(json!(2)),
            "says how many",
        ),
        (
            scaled,
            queue,
            "ScaledObject/payments",
            "/spec/scaleTargetRef/kind",
            Some(json!("Deployment")),
            "no Deployment/payments",
        ),
        (
            scaled,
            queue,
            "HorizontalPodAutoscaler/lobby",
            "/spec/scaleTargetRef/name",
            Some(json!("orders")),
            "another one pulls",
        ),
        (scaled, "kind", "Deployment/orders", "/spec/replicas", None, "nobody says how many"),
        (doors, "kind", "Service/mail", "/spec/type", Some(json!("NodePort")), "ports of nodes"),
        (doors, "ha", "Service/mail", "/spec/type", Some(json!("LoadBalancer")), "LoadBalancer"),
        (doors, "kind", "Service/gateway", "/spec/ports/0/nodePort", Some(json!(30082)), "ports of nodes"),
        (doors, "ha", "Deployment/mail", at(CONTAINER, "ports/0/hostPort"), Some(json!(25)), "hostPort"),
        (fit, "kind", "Deployment/orders", "/spec/replicas", Some(json!(40)), "requests.cpu"),
        (
            fit,
            "kind",
            "StatefulSet/postgres",
            at(CONTAINER, "resources/requests/memory"),
            Some(json!("512Mi")),
            "requests.memory",
        ),
    ]);
    let alone = rules::budgets_leave_room_to_drain(&without("kind", "PodDisruptionBudget/orders"), code());
    assert_eq!(alone, ["Deployment/orders: 0 PodDisruptionBudgets"]);
}

#[test]
fn references() {
    let there: Rule = rules::whatever_is_used_is_there;
    let used: Rule = rules::whatever_is_there_is_used;
    let together = "ha + observability + autoscaling-cpu + ingress + load";
    is_red(vec![
        (
            there,
            "kind",
            "StatefulSet/postgres",
            at(POD, "volumes/0/configMap/name"),
            Some(json!("x")),
            "no ConfigMap",
        ),
        (
            there,
            "kind",
            "StatefulSet/postgres",
            at(POD, "volumes/0/configMap/items/0/key"),
            Some(json!("x")),
            "postgres has no",
        ),
        (
            there,
            "kind",
            "Deployment/mail",
            at(CONTAINER, "volumeMounts/0/name"),
            Some(json!("x")),
            "there is no volume",
        ),
        (there, "kind", "Deployment/mail", at(CONTAINER, "volumeMounts/0"), None, "nobody mounts"),
        (
            used,
            together,
            "ServiceAccount/mail",
            "/metadata/name",
            Some(json!("post")),
            "ServiceAccount/post: nobody",
        ),
        (used, together, "ConfigMap/orders", "/metadata/name", Some(json!("idle")), "ConfigMap/idle: nobody"),
        (used, together, "Service/mail", "/metadata/name", Some(json!("post")), "Service/post: nobody"),
        (used, together, "Service/jaeger", "/metadata/name", Some(json!("post")), "Service/post: nobody"),
    ]);
}
