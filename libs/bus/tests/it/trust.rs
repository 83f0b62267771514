//! By what client and server believe each other: certificates, passwords.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use stampede_bus::{Bus, ConnectError, Settings};
use stampede_testkit::{Nats, eventually};

use crate::support::PATIENCE;

/// Set where this test is its own client: authorities are named in the environment, which a process reads once.
const CLIENT_OF: &str = "STAMPEDE_TEST_TLS_URL";
const ITSELF: &str = "trust::a_server_is_believed_by_its_certificate_and_nothing_is_said_in_the_clear";

fn settings(url: &str) -> Settings {
    let text = |text: &str| text.to_owned();
    Settings {
        url: text(url),
        user: text("test"),
        password: text("pw"),
        service: text("test"),
        instance: text("test-1"),
    }
}

#[tokio::test]
async fn a_server_is_believed_by_its_certificate_and_nothing_is_said_in_the_clear() {
    if let Ok(url) = std::env::var(CLIENT_OF) {
        let bus = Bus::connect(settings(&url)).await.unwrap();
        bus.client().flush().await.unwrap();
        return;
    }
    let folder = std::env::temp_dir().join(format!("stampede-tls-{}", uuid::Uuid::new_v4().simple()));
    fs::create_dir(&folder).unwrap();
    let (ours, theirs) = (certificate(&folder, "ours"), certificate(&folder, "theirs"));
    let tls = format!(
        "tls {{ cert_file: {:?}, key_file: {:?} }}",
        folder.join("ours.pem"),
        folder.join("ours.key")
    );
    let nats = Nats::start_with_config(&tls).await;
    let url = nats.url().replace("nats://", "tls://");

    let known = client(&url, &ours);
    assert!(known.status.success(), "{known:?}");
    let unknown = client(&url, &theirs);
    assert!(!unknown.status.success() && said(&unknown).contains("UnknownIssuer"), "{}", said(&unknown));
    fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn where_one_address_asks_for_tls_none_gets_the_password_without() {
    let plain = Nats::start().await;
    let error = Bus::connect(settings(&format!("tls://127.0.0.1:1,{}", plain.url()))).await.err().unwrap();
    assert!(matches!(error, ConnectError::Unusable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_password_is_replaced_and_nobody_stays_outside() {
    let config =
        |password: &str| format!("authorization {{ users: [ {{ user: test, password: {password} }} ] }}");
    let mut nats = Nats::start_with_config(&config("old")).await;
    let connect = async |password: &str| {
        Bus::connect(Settings { password: password.to_owned(), ..settings(&nats.url()) }).await
    };
    let (old_first, new_first) = (connect("old,new").await.unwrap(), connect("new, old").await.unwrap());
    let wrong = connect("other,new").await.err().unwrap();
    assert!(matches!(wrong, ConnectError::Refused { .. }), "{wrong:?}");
    for password in ["new", "old", "new"] {
        nats.restart_with_config(&config(password)).await;
        for bus in [&old_first, &new_first] {
            eventually(PATIENCE, async || bus.is_connected() && bus.client().flush().await.is_ok()).await;
        }
    }
    assert_eq!(old_first.violations(), 0, "a password that is not taken is no forbidden subject");
}

/// This test again, as a process that trusts only this authority.
fn client(url: &str, authority: &Path) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", ITSELF, "--nocapture"]).env(CLIENT_OF, url).env("SSL_CERT_FILE", authority);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// A key, and a certificate that it signs itself. openssl comes with the machine's list of authorities.
fn certificate(folder: &Path, name: &str) -> std::path::PathBuf {
    let config = folder.join("openssl.cnf");
    fs::write(&config, "[req]\ndistinguished_name = name\n[name]\n").unwrap();
    let (key, certificate) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.pem")));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]);
    openssl.args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1"]);
    let made = openssl
        .arg("-config")
        .arg(&config)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    certificate
}
