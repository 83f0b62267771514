//! Without a kubectl that is new enough nothing is checked, and the message says what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use stampede_manifests::Kubectl;

fn folder_with(name: &str, answer: Option<&str>) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    if let Some(answer) = answer {
        let program = folder.join("kubectl");
        fs::write(&program, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

fn refusal(name: &str, answer: Option<&str>) -> String {
    format!("{:#}", Kubectl::on(folder_with(name, answer).as_os_str()).unwrap_err())
}

#[test]
fn without_kubectl_the_message_says_what_is_needed() {
    let said = refusal("no-kubectl", None);
    assert!(said.contains("there is no kubectl") && said.contains("1.21 or newer"), "{said}");
    assert!(said.contains("components") && said.contains("k8s/kubectl.txt"), "{said}");
}

#[test]
fn an_old_kubectl_is_refused() {
    let old = r#"{"clientVersion": {"major": "1", "minor": "20+"}}"#;
    let said = refusal("old-kubectl", Some(old));
    assert!(said.contains("is 1.20") && said.contains("k8s/kubectl.txt"), "{said}");
    assert!(refusal("odd-kubectl", Some("hello")).contains("does not tell its version"));
}
