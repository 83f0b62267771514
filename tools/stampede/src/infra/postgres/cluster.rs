//! The data of a private Postgres: where they lie, whose they are, and how they are made.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use super::Durability;
use super::program::Programs;
use crate::process::Account;

/// Where data go when the state folder is out of reach for the user that Postgres runs as.
const ELSEWHERE: &str = "/var/lib/stampede";

/// How a new cluster is made.
pub(crate) struct Make {
    /// Of the superuser.
    pub(crate) password: String,
    pub(crate) durability: Durability,
}

/// A cluster that exists.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    data: PathBuf,
    account: Option<Account>,
}

impl Cluster {
    /// The cluster in `home`, made if there is none.
    pub(crate) async fn open(
        programs: &Programs,
        account: Option<Account>,
        home: &Path,
        make: &Make,
    ) -> anyhow::Result<Self> {
        let home = place(home, account).with_context(|| format!("cannot make {}", home.display()))?;
        let cluster = Self { data: home.join("data"), account };
        if cluster.data.is_dir() {
            cluster.check_version(programs)?;
        } else {
            cluster.make(programs, &home, make).await?;
        }
        Ok(cluster)
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn account(&self) -> Option<Account> {
        self.account
    }

    fn check_version(&self, programs: &Programs) -> anyhow::Result<()> {
        let made_by = fs::read_to_string(self.data.join("PG_VERSION"))?;
        if made_by.trim() != programs.major().to_string() {
            bail!(
                "the data in {} were made by Postgres {}, and this machine has {}; start with --fresh, or install the old one",
                self.data.display(),
                made_by.trim(),
                programs.version()
            );
        }
        Ok(())
    }

    /// Makes the data beside their place and moves them there when complete: half a cluster is never used.
    async fn make(&self, programs: &Programs, home: &Path, make: &Make) -> anyhow::Result<()> {
        let unfinished = home.join("data.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        let password_file = home.join("superuser-password");
        write_for(&password_file, &make.password, self.account)?;
        let mut initdb = Command::new(programs.initdb());
        initdb
            .args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"])
            .arg(format!("--username={}", super::SUPERUSER))
            .arg("--pwfile")
            .arg(&password_file)
            .arg("-D")
            .arg(&unfinished)
            .current_dir("/")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if make.durability == Durability::None {
            initdb.arg("--no-sync");
        }
        if let Some(account) = self.account {
            initdb.uid(account.uid).gid(account.gid);
        }
        let output = initdb.output().await.context("initdb cannot be started")?;
        fs::remove_file(&password_file)?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "initdb failed:\n{}", String::from_utf8_lossy(&said));
        fs::rename(&unfinished, &self.data)?;
        Ok(())
    }
}

/// The folder that holds the data, made if missing and owned by `account`.
fn place(home: &Path, account: Option<Account>) -> std::io::Result<PathBuf> {
    if home.exists() {
        return home.canonicalize();
    }
    let parent = home.parent().unwrap_or(Path::new("/"));
    let Some(account) = account.filter(|account| !account.reaches(parent)) else {
        make_for(home, account)?;
        return Ok(home.to_path_buf());
    };
    fs::DirBuilder::new().recursive(true).mode(0o711).create(ELSEWHERE)?;
    let elsewhere = Path::new(ELSEWHERE).join(format!("{:016x}", rand::random::<u64>()));
    make_for(&elsewhere, Some(account))?;
    // A link may be left over whose target somebody has deleted.
    if home.is_symlink() {
        fs::remove_file(home)?;
    }
    symlink(&elsewhere, home)?;
    Ok(elsewhere)
}

fn make_for(folder: &Path, account: Option<Account>) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    give(folder, account)
}

fn write_for(path: &Path, text: &str, account: Option<Account>) -> std::io::Result<()> {
    let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    give(path, account)
}

fn give(path: &Path, account: Option<Account>) -> std::io::Result<()> {
    account.map_or(Ok(()), |account| chown(path, Some(account.uid), Some(account.gid)))
}
