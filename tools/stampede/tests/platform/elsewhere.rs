//! A platform that `up` does not run, as the commands meet it in a cluster: they know addresses and passwords, and no
//! state folder of its.

use std::process::{Command, Output};

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
            ("NATS_URL", run.urls.nats.clone()),
            ("NATS_PASSWORD", password),
        ]
    };
    let password = secrets.nats_password("operator").unwrap();
    let verified = stampede(&state, &with(password), &["verify"]);
    assert!(verified.status.success() && said(&verified).contains("10 orders"), "{}", said(&verified));
    let refused = stampede(&state, &with("wrong".to_owned()), &["verify"]);
    assert!(!refused.status.success() && said(&refused).contains("cannot connect"), "{}", said(&refused));
}
