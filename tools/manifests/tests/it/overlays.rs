//! One rule a test, over every combination.

use std::collections::BTreeSet;

use serde_json::Value;
use stampede_manifests::{Rendering, rules};

use crate::stage::{OVERLAYS, TOGETHER, holds, read, renderer, renderings, text};

macro_rules! rules_hold {
    ($($rule:ident),+ $(,)?) => {$(
        #[test]
        fn $rule() {
            holds(rules::$rule);
        }
    )+};
}

rules_hold!(
    addresses_are_services,
    arrows_are_those_of_the_blueprints,
    autoscalers_scale_what_is_there,
    budgets_leave_room_to_drain,
    connections_suffice,
    containers_are_restricted,
    everything_is_labelled,
    grace_is_longer_than_the_drain,
    images_are_of_this_version,
    keys_are_read,
    nobody_has_a_token,
    only_two_doors_are_open,
    only_what_migrates_owns_the_schema,
    policies_lead_somewhere,
    ports_are_listeners,
    probes_ask_three_questions,
    requests_fit_on_a_laptop,
    required_keys_are_set,
    resources_are_asked_for_and_bounded,
    selectors_mean_pods,
    services_lead_to_ports,
    what_cannot_change_has_no_version,
    what_sells_goes_first,
    whatever_is_used_is_there,
);

/// A Service may be there for a component alone, so this holds where all of them are.
#[test]
fn whatever_is_there_is_used() {
    let together = TOGETHER.join(" + ");
    for overlay in OVERLAYS {
        let rendering = crate::stage::rendering(&format!("{overlay} + {together}"));
        let idle = rules::whatever_is_there_is_used(rendering, crate::stage::code());
        assert!(idle.is_empty(), "{}:\n{}", rendering.name, idle.join("\n"));
    }
}

#[test]
fn the_two_kinds_of_scaling_exclude_each_other() {
    for overlay in OVERLAYS {
        let both = renderer().render(overlay, &["autoscaling-cpu", "autoscaling-queue"]);
        let refused = both.map_err(|error| format!("{error:#}"));
        assert!(refused.as_ref().is_err_and(|error| error.contains("ID conflict")), "{overlay}: {refused:?}");
    }
}

/// The names in the cells of `k8s/README.md`, beginning at the table of Secrets.
fn documented() -> BTreeSet<(String, String)> {
    let text = read("k8s/README.md");
    let table = text.split("| Secret | keys | |").nth(1).unwrap().split("\n\n").next().unwrap();
    let quoted =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let (mut all, mut secrets) = (BTreeSet::new(), Vec::new());
    for row in table.lines().skip(2) {
        let cells: Vec<&str> = row.split('|').collect();
        let names = quoted(cells[1]);
        if let Some(first) = names.first() {
            let stem = first.split('-').next().unwrap();
            // `postgres-catalog` `-inventory`: the rest of a name.
            let whole = |name: &String| match name.strip_prefix('-') {
                Some(rest) => format!("{stem}-{rest}"),
                None => name.clone(),
            };
            secrets = names.iter().map(whole).collect();
        }
        for secret in &secrets {
            all.extend(quoted(cells[2]).into_iter().map(|key| (secret.clone(), key)));
        }
    }
    all
}

#[test]
fn secrets_are_those_of_the_table() {
    let used: BTreeSet<_> = renderings().iter().flat_map(rules::secrets).collect();
    let documented = documented();
    let unknown: Vec<_> = used.difference(&documented).collect();
    assert!(unknown.is_empty(), "not in the table of k8s/README.md: {unknown:?}");
    // A Secret of the type `kubernetes.io/basic-auth` always has a `username`.
    let idle: Vec<_> = documented.difference(&used).filter(|(_, key)| key != "username").collect();
    assert!(idle.is_empty(), "in the table of k8s/README.md, and nobody reads it: {idle:?}");
}

/// Every name that a backup needs to be written, and to be read again, is that of something there.
#[test]
fn a_backup_is_of_the_cluster_that_a_restore_reads() {
    let text = text("ha", &["../overlays/ha/backup"]);
    let rendering = Rendering::parse("ha + backup", &text).unwrap();
    let one = |kind: &str| rendering.objects.iter().find(|object| object["kind"] == kind).unwrap();
    let (cluster, store, backup) = (one("Cluster"), one("ObjectStore"), one("ScheduledBackup"));
    let plugin = &cluster["spec"]["plugins"][0];
    assert_eq!(plugin["isWALArchiver"], true, "without its log there is no moment but the backup's");
    assert_eq!(plugin["parameters"]["barmanObjectName"], store["metadata"]["name"]);
    assert_eq!(backup["spec"]["cluster"]["name"], cluster["metadata"]["name"]);
    assert_eq!(backup["spec"]["pluginConfiguration"]["name"], plugin["name"]);

    let restore = read("k8s/overlays/ha/backup/restore.yaml");
    let restored: Value = serde_saphyr::from_str(&restore).unwrap();
    let (spec, origin) = (&restored["spec"], &restored["spec"]["externalClusters"][0]);
    assert_eq!(spec["bootstrap"]["recovery"]["source"], origin["name"]);
    assert_eq!(origin["plugin"]["name"], plugin["name"]);
    assert_eq!(origin["plugin"]["parameters"]["barmanObjectName"], store["metadata"]["name"]);
    assert_eq!(origin["plugin"]["parameters"]["serverName"], cluster["metadata"]["name"]);
    assert_ne!(restored["metadata"]["name"], cluster["metadata"]["name"], "what is lost is not overwritten");
    let connections = |spec: &Value| spec["postgresql"]["parameters"]["max_connections"].clone();
    assert_eq!(spec["imageName"], cluster["spec"]["imageName"]);
    assert_eq!(connections(spec), connections(&cluster["spec"]), "a restore needs as many");

    // It gets ready only if it has what the cluster has: the object store, the API server, the operator, its peers.
    let together = Rendering::parse("ha + backup", &format!("{text}\n---\n{restore}")).unwrap();
    let (arrows, halves) = rules::arrows(&together);
    assert!(halves.is_empty(), "{halves:?}");
    let of_the_cluster =
        |arrow: &&String| arrow.starts_with("postgres -> ") || arrow.contains("cloudnative-pg -> postgres:");
    let needed: Vec<_> = arrows
        .iter()
        .filter(of_the_cluster)
        .map(|arrow| arrow.replacen("postgres", "postgres-restored", 1))
        .collect();
    assert!(needed.len() > 5, "{needed:?}");
    let missing: Vec<_> = needed.iter().filter(|arrow| !arrows.contains(*arrow)).collect();
    assert!(missing.is_empty(), "the restored cluster lacks {missing:?}");
}

#[test]
fn the_rendered_files_are_those_of_kustomize() {
    let folder = crate::stage::workspace().join("k8s/rendered");
    let renew = std::env::var_os("RENEW_RENDERED").is_some();
    for overlay in OVERLAYS {
        let (path, rendered) = (folder.join(format!("{overlay}.yaml")), text(overlay, &[]));
        if renew {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, rendered).unwrap();
        } else {
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            let differs = kept.lines().zip(rendered.lines()).position(|(kept, new)| kept != new);
            let line = differs.unwrap_or(kept.lines().count().min(rendered.lines().count())) + 1;
            assert!(kept == rendered, "{} differs from line {line} on: run `just rendered`", path.display());
        }
    }
}
