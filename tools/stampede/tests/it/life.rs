//! Starting, dying, stopping.

use std::fs;

use stampede::platform::{Extent, Options, Platform};
use stampede::run_file::{Phase, RunFile};
use stampede::scratch::Scratch;
use stampede::state::StateDir;
use stampede_testkit::eventually;

use crate::{SOON, all_ended, entry, identities, infrastructure, kill, said, stampede};

#[tokio::test]
async fn stopping_leaves_no_process_and_no_file() {
    let platform = infrastructure().await;
    let folder = platform.state.root().to_path_buf();
    let processes = identities(&platform.run_file().unwrap());
    assert_eq!(processes.len(), 3);
    platform.stop().await.unwrap();
    assert!(!processes.iter().any(stampede::Identity::is_alive));
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_second_up_says_that_it_is_already_up_and_disturbs_nothing() {
    let platform = infrastructure().await;
    let before = identities(&platform.run_file().unwrap());
    let second = stampede(&["up", "--infra"], &platform).await;
    assert!(second.status.success() && said(&second).contains("already up"), "{}", said(&second));
    let fresh = stampede(&["up", "--infra", "--fresh"], &platform).await;
    assert!(!fresh.status.success() && said(&fresh).contains("cargo stampede down"), "{}", said(&fresh));
    assert_eq!(identities(&platform.run_file().unwrap()), before);
}

#[tokio::test]
async fn status_and_down_do_what_they_say() {
    let platform = infrastructure().await;
    let processes = identities(&platform.run_file().unwrap());
    let status = stampede(&["status"], &platform).await;
    assert!(status.status.success());
    for word in ["postgres", "nats", "smtp", "running", "yes", "MiB"] {
        assert!(said(&status).contains(word), "{}", said(&status));
    }
    assert!(stampede(&["down"], &platform).await.status.success());
    assert!(!processes.iter().any(stampede::Identity::is_alive));
    let status = stampede(&["status"], &platform).await;
    assert_eq!(status.status.code(), Some(3), "{}", said(&status));
    assert!(stampede(&["down"], &platform).await.status.success());
}

#[tokio::test]
async fn what_dies_is_started_again_on_the_same_port() {
    let platform = infrastructure().await;
    let before = entry(&platform, "nats");
    kill(before.identity.as_ref().unwrap());
    eventually(SOON, async || {
        let now = entry(&platform, "nats");
        now.restarts == 1 && now.phase == Phase::Ready && now.identity != before.identity
    })
    .await;
    assert_eq!(entry(&platform, "nats").ports, before.ports);
}

#[tokio::test]
async fn what_dies_too_often_ends_everything() {
    let platform = infrastructure().await;
    let run = platform.run_file().unwrap();
    // It is killed as often as it is seen; at the sixth death within 30 seconds `up` gives up.
    eventually(SOON, async || {
        let Ok(run) = RunFile::running(&platform.state) else { return true };
        if let Some(identity) =
            run.select("smtp").find_map(|entry| entry.identity.as_ref()).filter(|id| id.is_alive())
        {
            kill(identity);
        }
        false
    })
    .await;
    all_ended(&identities(&run)).await;
    // Said last, when everything else has ended.
    let output = || fs::read_to_string(platform.state.output()).unwrap();
    eventually(SOON, async || output().contains("smtp could not be kept running")).await;
    assert!(output().contains("giving up"), "{}", output());
    assert!(platform.stop().await.is_err());
}

#[tokio::test]
async fn a_killed_up_takes_its_processes_along() {
    let platform = infrastructure().await;
    let run = platform.run_file().unwrap();
    kill(&run.up);
    // The system tells them where it can; elsewhere `down` ends what the run file names.
    stampede(&["down"], &platform).await;
    all_ended(&identities(&run)).await;
}

#[tokio::test]
async fn a_process_that_is_wanted_down_and_up_comes_back_ready() {
    let platform = infrastructure().await;
    let before = entry(&platform, "postgres").identity;
    platform.restart("postgres").await.unwrap();
    let after = entry(&platform, "postgres");
    assert_ne!(after.identity, before);
    assert_eq!((after.phase, after.restarts), (Phase::Ready, 0));
    assert!(platform.restart("nobody").await.is_err());
}

#[tokio::test]
async fn up_in_the_background_goes_on_and_keeps_its_data() {
    let scratch = Scratch::new("detach").unwrap();
    let state = StateDir::create(scratch.path()).unwrap();
    let run = async |args: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_stampede"));
        let output = command.args(args).arg("--state").arg(state.root()).output().await.unwrap();
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    for expected in ["7 new databases", "0 new databases"] {
        let told = run(&["up", "--infra", "--detach"]).await;
        assert!(told.contains(expected) && told.contains("ready after"), "{told}");
        assert!(RunFile::running(&state).is_ok());
        run(&["down"]).await;
    }
    let told = run(&["up", "--infra", "--detach", "--fresh"]).await;
    assert!(told.contains("7 new databases"), "{told}");
    run(&["down"]).await;
}

#[tokio::test]
async fn ctrl_c_in_the_middle_of_starting_leaves_nothing_half_done() {
    let scratch = Scratch::new("early").unwrap();
    let state = StateDir::create(scratch.path()).unwrap();
    for _ in 0..2 {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_stampede"));
        command.args(["up", "--infra", "--state"]).arg(state.root()).kill_on_drop(true);
        let mut up = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        // The first time NATS is up long before Postgres has made its data.
        let mut seen = Vec::new();
        eventually(SOON, async || {
            seen = RunFile::read(&state).unwrap().map(|run| identities(&run)).unwrap_or_default();
            !seen.is_empty()
        })
        .await;
        interrupt(&up);
        assert!(up.wait().await.unwrap().success());
        assert!(!seen.iter().any(stampede::Identity::is_alive));
        assert!(RunFile::read(&state).unwrap().is_none());
    }
}

fn interrupt(up: &tokio::process::Child) {
    let pid = up.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}

#[tokio::test]
async fn a_folder_nobody_else_may_enter_is_no_obstacle() {
    use std::os::unix::fs::PermissionsExt;
    // As root, Postgres runs as a user that cannot pass here.
    let closed = Scratch::new("closed").unwrap();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let state = closed.path().join("state");
    let up = |args: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_stampede"));
        command.args(args).arg("--state").arg(&state);
        command
    };
    let output = up(&["up", "--infra", "--detach"]).output().await.unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(up(&["down"]).status().await.unwrap().success());
    let state = StateDir::existing(&state).unwrap();
    let data = state.postgres().canonicalize().unwrap();
    let lock = state.try_lock().unwrap().unwrap();
    state.wipe(&lock).unwrap();
    assert!(!data.exists());
}

#[tokio::test]
async fn a_platform_that_cannot_start_says_why() {
    let options = Options {
        extent: Extent::Infrastructure,
        replicas: Some("nobody=2".to_owned()),
        ..Options::default()
    };
    let error = Platform::start(options).await.unwrap_err().to_string();
    assert!(error.contains("there is no service"), "{error}");
}
