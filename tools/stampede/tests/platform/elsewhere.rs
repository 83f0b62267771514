//! A platform that `up` does not run, as the commands meet it in a cluster: they know addresses and passwords, and no
//! state folder of its.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use base64::{Engine, prelude::BASE64_STANDARD};
use stampede::scratch::Scratch;

use crate::stage::Stage;

/// The command line, with a state folder of its own.
fn stampede(state: &Scratch, env: &[(&str, String)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stampede"));
    command.args(args).arg("--state").arg(state.path());
    command.envs(env.iter().map(|(key, value)| (*key, value))).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_are_made_tickets_bought_and_everything_verified_from_outside() {
    // Where it counts, the gateway names no test cards.
    let stage = Stage::start(&["gateway.ENVIRONMENT=production"]).await;
    let (state, secrets) = (Scratch::new("elsewhere").unwrap(), stage.platform.secrets().unwrap());
    let (gateway, tokens) = (&stage.platform.gateway_url, format!("{}/tokens", stage.platform.tokens_url));
    let operator = ("OPERATOR_TOKEN", secrets.operator_token().unwrap());

    let seeded = stampede(&state, std::slice::from_ref(&operator), &["seed", "--url", gateway]);
    assert!(seeded.status.success() && said(&seeded).contains("0 new"), "{}", said(&seeded));
    let lost = stampede(&state, &[], &["buy", "--url", gateway, "--show", "club-night"]);
    assert!(!lost.status.success() && said(&lost).contains("--tokens-url"), "{}", said(&lost));

    let load = ["load", "--url", gateway, "--tokens-url", &tokens, "--only-buy", "--show", "club-night"];
    let load = stampede(&state, &[operator], &[&load[..], &["--buyers", "10", "--rate", "10"]].concat());
    assert!(load.status.success(), "{}", said(&load));

    let run = stage.platform.run_file().unwrap();
    let database = run.verifier_url("postgres", &secrets).unwrap();
    let with = |password: String| {
        [
            ("VERIFIER_DATABASE_URL", database.clone()),
            ("STAMPEDE_NATS_URL", run.urls.nats.clone()),
            ("NATS_PASSWORD", password),
        ]
    };
    let password = secrets.nats_password("operator").unwrap();
    let verified = stampede(&state, &with(password.clone()), &["verify"]);
    assert!(verified.status.success() && said(&verified).contains("10 orders"), "{}", said(&verified));
    let refused = stampede(&state, &with("wrong".to_owned()), &["verify"]);
    assert!(!refused.status.success() && said(&refused).contains("cannot connect"), "{}", said(&refused));

    // The commands of an operator, in a cluster whose kubectl leads to this platform, and at its address.
    let nats_port = run.urls.nats.rsplit(':').next().unwrap();
    let database_port = run.urls.postgres.rsplit(':').next().unwrap();
    let path = kubectl(
        &state,
        &[
            (
                "get secret provision --output=jsonpath={.data.NATS_PASSWORD}",
                &BASE64_STANDARD.encode(&password),
            ),
            (
                "get secret postgres-verifier --output=jsonpath={.data.password}",
                &BASE64_STANDARD.encode(secrets.postgres_password("verifier").unwrap()),
            ),
            ("port-forward service/nats :4222", &format!("Forwarding from 127.0.0.1:{nats_port} -> 4222")),
            (
                "port-forward service/postgres :5432",
                &format!("Forwarding from 127.0.0.1:{database_port} -> 5432"),
            ),
            ("exec statefulset/payments --container=payments -- /app reconcile", "the books agree"),
        ],
    );
    let in_cluster = [("PATH", path)];
    let at_its_address = [("NATS_PASSWORD", password)];
    let operate = |args: &[&str], says: &str| {
        for (env, place) in
            [(&in_cluster, ["--context", "there"]), (&at_its_address, ["--nats-url", &run.urls.nats])]
        {
            let done = stampede(&state, env, &[args, &place].concat());
            assert!(
                done.status.success() && said(&done).contains(says),
                "{args:?} {place:?}: {}",
                said(&done)
            );
        }
    };
    operate(&["dead-letters", "list"], "There are no dead letters.");
    operate(&["policies", "set", "gateway.catalog", "attempt_ms=500"], "\"attempt_ms\":500");
    operate(&["policies", "list"], "replaced: gateway.catalog");
    operate(&["policies", "reset", "gateway.catalog"], "as in the blueprint");
    for (command, says) in [("verify", "10 orders"), ("reconcile", "the books agree")] {
        let done = stampede(&state, &in_cluster, &[command, "--context", "there"]);
        assert!(done.status.success() && said(&done).contains(says), "{}", said(&done));
    }
    let lost = stampede(&state, &in_cluster, &["dead-letters", "list", "--context", "elsewhere"]);
    assert!(!lost.status.success() && said(&lost).contains("a context of kubectl's"), "{}", said(&lost));
}

/// A kubectl for the cluster `there`, by what it answers to each call; it forwards a port until it is ended. What PATH has
/// to be for it.
fn kubectl(folder: &Scratch, answers: &[(&str, &str)]) -> String {
    let cases: String = answers
        .iter()
        .map(|(call, answer)| format!("'--context=there --namespace stampede {call}') echo '{answer}';;\n"))
        .collect();
    let path = folder.path().join("kubectl");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n{cases}*) exit 1;;\nesac\ncase \"$*\" in *port-forward*) exec tail -f /dev/null;; esac\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap())
}
