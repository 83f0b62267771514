//! Secrets as manifests.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{database_url, environment, migrations, nats_passwords, roles, routes};
use crate::infra::postgres::{SUPERUSER, VERIFIER};
use crate::provision::OPERATOR;
use crate::secrets::Secrets;
use crate::services::SERVICES;

/// The namespace of everything.
pub(crate) const NAMESPACE: &str = "stampede";

/// A Secret of Kubernetes; printed, it is a manifest.
#[derive(Debug)]
pub(crate) struct Secret {
    name: String,
    kind: &'static str,
    pairs: Vec<(&'static str, String)>,
}

/// All that the manifests in `k8s/` name, one a workload: who reads one has what that one workload has.
pub(crate) fn manifests(secrets: &Secrets) -> anyhow::Result<Vec<Secret>> {
    let mut all = Vec::new();
    for service in SERVICES {
        all.push(Secret::opaque(service.name, environment(service, secrets)?));
        if let Some(pairs) = migrations(service, secrets)? {
            all.push(Secret::opaque(&format!("{}-migrate", service.name), pairs));
        }
    }
    let operator = || secrets.nats_password(OPERATOR);
    all.push(Secret::opaque("provision", vec![("NATS_PASSWORD", operator()?)]));
    all.push(Secret::opaque(
        "nats-passwords",
        vec![("passwords.conf", nats_passwords(secrets)?), ("routes.conf", routes(secrets)?)],
    ));
    all.push(Secret::opaque(
        "load",
        vec![
            ("OPERATOR_TOKEN", secrets.operator_token()?),
            ("NATS_PASSWORD", operator()?),
            ("VERIFIER_DATABASE_URL", database_url(VERIFIER, "postgres", secrets)?),
        ],
    ));
    for role in roles() {
        all.push(Secret::account(&format!("postgres-{}", role.replace('_', "-")), &role, secrets)?);
    }
    all.push(Secret::account("postgres-superuser", SUPERUSER, secrets)?);
    Ok(all)
}

impl Secret {
    fn opaque(name: &str, pairs: Vec<(&'static str, String)>) -> Self {
        Self { name: name.to_owned(), kind: "Opaque", pairs }
    }

    fn account(name: &str, role: &str, secrets: &Secrets) -> anyhow::Result<Self> {
        let pairs = vec![("username", role.to_owned()), ("password", secrets.postgres_password(role)?)];
        Ok(Self { name: name.to_owned(), kind: "kubernetes.io/basic-auth", pairs })
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, pairs } = self;
        write!(
            f,
            "---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: {NAMESPACE}\n  labels:\n    \
             app.kubernetes.io/part-of: stampede\ntype: {kind}\ndata:\n"
        )?;
        for (key, value) in pairs {
            writeln!(f, "  {key}: {}", BASE64_STANDARD.encode(value))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::scratch::Scratch;
    use crate::state::StateDir;

    fn made() -> BTreeMap<String, BTreeMap<&'static str, String>> {
        let scratch = Scratch::new("manifests").unwrap();
        let secrets = Secrets::open(&StateDir::create(scratch.path()).unwrap()).unwrap();
        let all = manifests(&secrets).unwrap();
        let again: Vec<_> = manifests(&secrets).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(all.iter().map(ToString::to_string).collect::<Vec<_>>(), again, "made once");
        all.into_iter().map(|secret| (secret.name, secret.pairs.into_iter().collect())).collect()
    }

    #[test]
    fn who_has_to_agree_agrees() {
        let all = made();
        let of = |name: &str, key: &str| all[name][key].clone();
        assert_eq!(of("payments", "PSP_API_KEY"), of("psp-sim", "API_KEY"));
        assert_eq!(of("payments", "WEBHOOK_SECRET"), of("psp-sim", "WEBHOOK_SECRET"));
        assert_eq!(of("gateway", "FINGERPRINT_KEY"), of("orders", "FINGERPRINT_KEY"));
        assert!(!all["gateway"].contains_key("DATABASE_URL"));
        let role = &all["postgres-psp-sim"];
        let url = format!("postgres://psp_sim:{}@postgres:5432/psp_sim?sslmode=disable", role["password"]);
        assert_eq!((role["username"].as_str(), of("psp-sim", "DATABASE_URL")), ("psp_sim", url));
        let owners = format!("postgres://orders_owner:{}@", all["postgres-orders-owner"]["password"]);
        assert!(of("orders-migrate", "DATABASE_URL").starts_with(&owners));
        assert!(
            !of("orders", "DATABASE_URL").contains("owner"),
            "what serves knows no password of what owns"
        );
        let line = format!("PASSWORD_orders: \"{}\"\n", of("orders", "NATS_PASSWORD"));
        assert!(of("nats-passwords", "passwords.conf").contains(&line));
        assert_eq!(of("provision", "NATS_PASSWORD"), of("load", "NATS_PASSWORD"));
        assert_eq!(of("nats-passwords", "routes.conf").matches("nats-peers:6222").count(), 3);
    }

    #[test]
    fn no_two_workloads_share_a_password() {
        let all = made();
        let mut passwords: Vec<_> =
            SERVICES.iter().filter_map(|service| all[service.name].get("NATS_PASSWORD")).collect();
        let before = passwords.len();
        passwords.sort();
        passwords.dedup();
        assert_eq!(passwords.len(), before);
    }

    #[test]
    fn a_value_with_several_lines_stays_one() {
        let secret = Secret::opaque("files", vec![("a.conf", "x: \"1\"\ny: 2\n".to_owned())]);
        assert!(secret.to_string().ends_with("\ndata:\n  a.conf: eDogIjEiCnk6IDIK\n"), "{secret}");
    }
}
