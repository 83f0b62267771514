//! `kind` without a cluster: programs that say what they were asked stand in for kind and kubectl.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use base64::{Engine, prelude::BASE64_STANDARD};
use stampede::scratch::Scratch;
use tokio::process::Command;

use crate::said;

/// kind and kubectl, which write down how they were called, and fail when the name of a call says so.
struct Stage {
    folder: Scratch,
}

impl Stage {
    fn set(kind: &str, kubectl: &str) -> Self {
        let stage = Self { folder: Scratch::new("kind").unwrap() };
        stage.program("kind", kind);
        stage.program("kubectl", kubectl);
        stage
    }

    fn program(&self, name: &str, then: &str) {
        let path = self.folder.path().join(name);
        let calls = self.folder.path().join("calls");
        fs::write(&path, format!("#!/bin/sh\necho \"{name} $*\" >> {}\n{then}\n", calls.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    async fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stampede"));
        // Nothing else: a machine may have a real kind.
        command.env("PATH", self.folder.path());
        command.arg("kind").args(args).output().await.unwrap()
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}

/// The kind of today, without a cluster.
const KIND: &str = "test \"$1\" = version && echo 0.31.0; exit 0";

#[tokio::test]
async fn a_cluster_is_made_once_and_only_by_a_kind_that_obeys_policies() {
    let stage = Stage::set(KIND, "");
    let made = stage.run(&["up"]).await;
    assert!(made.status.success(), "{}", said(&made));
    let calls = stage.calls();
    assert_eq!(calls[..2], ["kind version --quiet", "kind get clusters"]);
    assert!(
        calls[2].starts_with("kind create cluster ") && calls[2].ends_with("/deploy/kind/cluster.yaml"),
        "{calls:?}"
    );

    stage.program("kind", "case $1 in version) echo 0.31.0;; get) echo stampede;; *) exit 1;; esac");
    let again = stage.run(&["up"]).await;
    assert!(again.status.success() && said(&again).contains("there already"), "{}", said(&again));
    assert!(
        stage.calls().last().unwrap().contains(" wait --for=condition=Ready nodes "),
        "{:?}",
        stage.calls()
    );

    stage.program("kubectl", "exit 1");
    let stopped = stage.run(&["up"]).await;
    assert!(!stopped.status.success() && said(&stopped).contains("docker start"), "{}", said(&stopped));

    stage.program("kind", "echo 0.23.0");
    let old = stage.run(&["up"]).await;
    assert!(!old.status.success() && said(&old).contains("too old"), "{}", said(&old));
}

#[tokio::test]
async fn nothing_reaches_another_cluster_and_no_secret_is_shown() {
    let stage = Stage::set(
        KIND,
        "case \"$*\" in *'-f -') /bin/cat >&2;; *'-o name') echo deployment.apps/gateway;; esac; exit 0",
    );
    let state = stage.folder.path().join("state");
    let deployed =
        stage.run(&["deploy", "--state", state.to_str().unwrap(), "--url", "http://127.0.0.1:1"]).await;
    // Nobody is there.
    assert!(
        !deployed.status.success() && said(&deployed).contains("cargo stampede seed"),
        "{}",
        said(&deployed)
    );

    let calls = stage.calls();
    assert!(
        calls.iter().all(|call| call.starts_with("kubectl --context=kind-stampede --namespace stampede ")),
        "{calls:?}"
    );
    let verbs: Vec<&str> = calls.iter().filter_map(|call| call.split(' ').nth(4)).collect();
    assert_eq!(verbs, ["apply", "apply", "delete", "apply", "wait", "get", "rollout"]);
    let token = fs::read_to_string(state.join("secrets/operator-token")).unwrap();
    let written = String::from_utf8_lossy(&deployed.stderr);
    assert!(
        written.contains(&format!("OPERATOR_TOKEN: {}", BASE64_STANDARD.encode(token.trim()))),
        "the manifests were handed over"
    );
    assert!(!String::from_utf8_lossy(&deployed.stdout).contains(token.trim()), "and not shown");
}

#[tokio::test]
async fn a_step_that_fails_says_what_mends_it() {
    let stage = Stage::set(KIND, "exit 1");
    let state = stage.folder.path().join("state");
    let failed = stage.run(&["deploy", "--state", state.to_str().unwrap()]).await;
    let said = said(&failed);
    assert!(
        !failed.status.success()
            && said.contains("namespace.yaml failed")
            && said.contains("cargo stampede kind up"),
        "{said}"
    );

    fs::remove_file(stage.folder.path().join("kind")).unwrap();
    let missing = stage.run(&["up"]).await;
    assert!(crate::said(&missing).contains("https://kind.sigs.k8s.io"), "{}", crate::said(&missing));
}
