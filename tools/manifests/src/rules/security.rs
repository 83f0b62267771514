//! What a pod may not do.

use crate::pod::{Source, is_without_token, name_of};
use crate::rendering::title;
use crate::{Code, Rendering};

/// The user of our images.
const USER: i64 = 65532;

/// The restricted profile in full, and a root file system that nobody writes to.
pub fn containers_are_restricted(rendering: &Rendering, _: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in &rendering.workloads {
        let pod = workload.pod();
        let of_pod = pod.security_context.unwrap_or_default();
        for one in workload.containers() {
            let own = one.container.security_context.clone().unwrap_or_default();
            let mut want = |field: &str, is: bool| {
                if !is {
                    faults.push(format!("{}, securityContext: {field}", one.title()));
                }
            };
            let user = own.run_as_user.or(of_pod.run_as_user);
            let seccomp = own.seccomp_profile.or(of_pod.seccomp_profile.clone());
            let capabilities = own.capabilities.unwrap_or_default();
            want("runAsNonRoot is not true", own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true));
            want("runAsUser is not said, or root", user.is_some_and(|user| user > 0));
            want("runAsUser is not 65532", one.image_of_ours().is_none() || user == Some(USER));
            want("allowPrivilegeEscalation is not false", own.allow_privilege_escalation == Some(false));
            want("readOnlyRootFilesystem is not true", own.read_only_root_filesystem == Some(true));
            want("privileged", own.privileged != Some(true));
            want("capabilities.drop is not [ALL]", capabilities.drop == Some(vec!["ALL".to_owned()]));
            want("capabilities.add is not empty", capabilities.add.unwrap_or_default().is_empty());
            want(
                "seccompProfile is not RuntimeDefault",
                seccomp.is_some_and(|profile| profile.type_ == "RuntimeDefault"),
            );
        }
        let shares = [pod.host_network, pod.host_pid, pod.host_ipc].contains(&Some(true));
        let host_path = pod.volumes.iter().flatten().any(|volume| volume.host_path.is_some());
        if shares || host_path {
            faults.push(format!("{}/{}: it shares something with its node", workload.kind, workload.name));
        }
    }
    faults
}

/// No pod has a token of the Kubernetes API; rights on it are refused when a rendering is read.
pub fn nobody_has_a_token(rendering: &Rendering, _: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in &rendering.workloads {
        let (title, pod) = (format!("{}/{}", workload.kind, workload.name), workload.pod());
        if pod.automount_service_account_token != Some(false) {
            faults.push(format!("{title}, automountServiceAccountToken: it is not false"));
        }
        if pod.enable_service_links != Some(false) {
            faults.push(format!("{title}, enableServiceLinks: it is not false"));
        }
        let account = pod.service_account_name.unwrap_or_default();
        let known = rendering.accounts.iter().any(|known| name_of(&known.metadata) == account);
        if !known {
            faults.push(format!("{title}, serviceAccountName: there is no ServiceAccount {account:?}"));
        }
    }
    for account in rendering.accounts.iter().filter(|account| !is_without_token(account)) {
        let name = name_of(&account.metadata);
        faults.push(format!("ServiceAccount/{name}, automountServiceAccountToken: it is not false"));
    }
    faults
}

/// What serves connects as a role that owns no table: the owner's password is in a Secret that only what migrates reads.
pub fn only_what_migrates_owns_the_schema(rendering: &Rendering, _: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for one in rendering.workloads.iter().flat_map(|workload| workload.containers()) {
        let variables = one.environment(rendering).unwrap_or_default();
        let Some(Source::Secret(secret, _)) = variables.get("DATABASE_URL") else { continue };
        if secret.ends_with("-migrate") != one.first {
            faults.push(format!("{}, env DATABASE_URL: it is that of the Secret {secret}", one.title()));
        }
    }
    faults
}

/// Where there may be too little room, what sells is not evicted for what looks on: services, NATS and Postgres have one class.
pub fn what_sells_goes_first(rendering: &Rendering, code: &Code) -> Vec<String> {
    let Some(class) = rendering.objects.iter().find(|object| object["kind"] == "PriorityClass") else {
        let is_missing = rendering.name.starts_with("ha");
        return is_missing.then(|| "PriorityClass: there is none".to_owned()).into_iter().collect();
    };
    let class = class["metadata"]["name"].as_str();
    // The provider stands for somebody else.
    let sells = |name: &str| name == "nats" || (code.services.contains_key(name) && name != "psp-sim");
    let workloads = rendering.workloads.iter().filter(|workload| sells(&workload.name));
    let classes = workloads.map(|workload| (workload.name.clone(), workload.pod().priority_class_name));
    let clusters = rendering
        .custom("Cluster")
        .map(|cluster| (title(cluster), cluster["spec"]["priorityClassName"].as_str().map(str::to_owned)));
    let all = classes.chain(clusters).filter(|(_, of)| of.as_deref() != class);
    all.map(|(name, of)| format!("{name}, priorityClassName: {of:?}")).collect()
}
