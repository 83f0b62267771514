//! Secrets as files that `deploy/compose.yaml` mounts or reads.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::{environment, migrations, nats_passwords, roles};
use crate::infra::postgres::SUPERUSER;
use crate::provision::OPERATOR;
use crate::secrets::Secrets;
use crate::services::SERVICES;

/// Read by compose itself, as whoever calls it.
const OURS: u32 = 0o600;
/// Read by other users within their containers; the folder around it is ours alone.
const MOUNTED: u32 = 0o644;

/// Writes `<service>.env`, `passwords.conf` of NATS and `passwords/<role>` of Postgres.
pub(crate) fn write(folder: &Path, secrets: &Secrets) -> Result<()> {
    let passwords = folder.join("passwords");
    make(folder, 0o700)?;
    make(&passwords, 0o755)?;
    for service in SERVICES {
        put(&folder.join(format!("{}.env", service.name)), OURS, &lines(environment(service, secrets)?))?;
        if let Some(pairs) = migrations(service, secrets)? {
            put(&folder.join(format!("{}-migrate.env", service.name)), OURS, &lines(pairs))?;
        }
    }
    let operator = lines(vec![("NATS_PASSWORD", secrets.nats_password(OPERATOR)?)]);
    put(&folder.join("provision.env"), OURS, &operator)?;
    let superuser = lines(vec![("POSTGRES_PASSWORD", secrets.postgres_password(SUPERUSER)?)]);
    put(&folder.join("postgres.env"), OURS, &superuser)?;
    put(&folder.join("passwords.conf"), MOUNTED, &nats_passwords(secrets)?)?;
    for role in roles() {
        put(&passwords.join(&role), MOUNTED, &secrets.postgres_password(&role)?)?;
    }
    Ok(())
}

fn lines(pairs: Vec<(&'static str, String)>) -> String {
    pairs.into_iter().map(|(key, value)| format!("{key}={value}\n")).collect()
}

fn make(folder: &Path, mode: u32) -> Result<()> {
    let made = fs::create_dir_all(folder).and_then(|()| set(folder, mode));
    made.with_context(|| format!("cannot make {}", folder.display()))
}

fn put(path: &Path, mode: u32, text: &str) -> Result<()> {
    // Nobody may read it before its mode is set: its folder is ours alone.
    let written = fs::write(path, text).and_then(|()| set(path, mode));
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn set(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use crate::services::databases;
    use crate::state::StateDir;

    #[test]
    fn only_what_is_mounted_can_be_read_by_others() {
        let scratch = Scratch::new("compose").unwrap();
        let secrets = Secrets::open(&StateDir::create(&scratch.path().join("state")).unwrap()).unwrap();
        let folder = scratch.path().join("secrets");
        write(&folder, &secrets).unwrap();
        write(&folder, &secrets).unwrap();
        let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("orders.env"), mode("postgres.env")), (0o700, 0o600, 0o600));
        assert_eq!(
            (mode("passwords"), mode("passwords/psp_sim"), mode("passwords.conf")),
            (0o755, 0o644, 0o644)
        );

        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert!(read("orders.env").contains("\nDATABASE_URL=postgres://orders:"), "{}", read("orders.env"));
        assert_eq!(read("passwords/verifier"), secrets.postgres_password("verifier").unwrap());
        let files = fs::read_dir(&folder).unwrap().count();
        assert_eq!(
            files,
            SERVICES.len() + databases().len() + 4,
            "a file a service and one for its migrations, provision, postgres, passwords of NATS and Postgres"
        );
    }
}
