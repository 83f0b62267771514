//! Postgres is lost with its disk, and restored to a moment from a base backup and the log archived since: what
//! docs/guides/restore.md says, done.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use stampede::run_file::RunFile;
use stampede::scratch::Scratch;
use stampede::secrets::Secrets;
use stampede::state::StateDir;
use stampede_testkit::eventually;

use crate::stage::PATIENCE;

const BUYERS: usize = 10;
/// Those who come after the moment, and are lost to us.
const LATE: usize = 4;

/// A platform that keeps its log, driven by the command line alone.
struct Operated {
    state: StateDir,
    scratch: Scratch,
}

impl Operated {
    fn up() -> Self {
        let scratch = Scratch::new("restore").unwrap();
        let operated = Self { state: StateDir::create(&scratch.path().join("state")).unwrap(), scratch };
        operated.start();
        operated
    }

    fn start(&self) {
        let binaries = Path::new(env!("CARGO_BIN_EXE_stampede")).parent().unwrap().to_str().unwrap();
        self.succeeds(&[
            "up",
            "--detach",
            "--archive",
            "--throw-away",
            "--random-ports",
            "--no-build",
            "--binaries",
            binaries,
        ]);
    }

    fn stampede(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stampede"));
        // What is young is not left out: nothing is on its way here.
        command.env("RECONCILE_MIN_AGE_MS", "0").stdin(Stdio::null());
        command.args(args).arg("--state").arg(self.state.root()).output().unwrap()
    }

    fn succeeds(&self, args: &[&str]) -> String {
        let output = self.stampede(args);
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        said(&output)
    }

    /// Buyers who buy all at once and keep it, and what they were told.
    fn sell(&self, buyers: usize, name: &str) -> String {
        let history = self.scratch.path().join(name).to_str().unwrap().to_owned();
        let show = ["--show", "club-night", "--only-buy", "--seed", &buyers.to_string()];
        let load = ["load", "--buyers", &buyers.to_string(), "--rate", "20", "--history", &history];
        self.succeeds(&[&load[..], &show].concat());
        history
    }

    fn url(&self, database: &str) -> String {
        let run = RunFile::running(&self.state).unwrap();
        let password = Secrets::open(&self.state).unwrap().postgres_password("postgres").unwrap();
        format!("postgres://postgres:{password}@{}/{database}", run.urls.postgres)
    }

    async fn sql(&self, database: &str) -> PgConnection {
        PgConnection::connect(&self.url(database)).await.unwrap()
    }

    /// Where the data are, with the archive beside them.
    fn home(&self) -> PathBuf {
        self.state.root().join("postgres").canonicalize().unwrap()
    }
}

impl Drop for Operated {
    fn drop(&mut self) {
        let _ = self.stampede(&["down"]);
        if let Ok(Some(lock)) = self.state.try_lock() {
            let _ = self.state.wipe(&lock);
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// A program of Postgres, which on Debian is not on the PATH.
fn postgres(program: &str) -> Command {
    let version = |path: &PathBuf| path.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = installed.map(|entry| entry.path().join("bin")).filter(|path| path.is_dir());
    let newest = folders.max_by_key(version);
    Command::new(newest.map_or_else(|| PathBuf::from(program), |folder| folder.join(program)))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sold_before_the_moment_is_there_and_the_provider_names_what_came_after_it() {
    let platform = Operated::up();
    let before_backup = platform.sell(BUYERS, "before.jsonl");
    let (data, base) = (platform.home().join("data"), platform.home().join("base"));
    // The log from its beginning on is in the archive.
    run(postgres("pg_basebackup")
        .args(["--wal-method=none", "--checkpoint=fast", "--dbname", &platform.url("postgres"), "--pgdata"])
        .arg(&base));
    let since_backup = platform.sell(BUYERS + 1, "since.jsonl");
    let held = ["verify", "--history", &before_backup, "--history", &since_backup];
    platform.succeeds(&held);

    let mut sql = platform.sql("postgres").await;
    let moment: String = sqlx::query_scalar("SELECT now()::text").fetch_one(&mut sql).await.unwrap();
    platform.sell(LATE, "late.jsonl");
    platform.succeeds(&["verify", "--history", &before_backup]);
    // The provider is somebody else: its books are not lost.
    let provider = platform.scratch.path().join("provider.sql");
    run(postgres("pg_dump").args(["--clean", "--dbname", &platform.url("psp_sim"), "--file"]).arg(&provider));
    let segment: String =
        sqlx::query_scalar("SELECT pg_walfile_name(pg_switch_wal())").fetch_one(&mut sql).await.unwrap();
    let archived = platform.home().join("archive").join(segment);
    eventually(PATIENCE, async || archived.is_file()).await;
    sql.close().await.unwrap();
    platform.succeeds(&["down"]);

    // The disk is gone. Of JetStream too: it knows of what came after the moment.
    run(Command::new("chown").arg("-R").arg("--reference").arg(&data).arg(&base));
    fs::remove_dir_all(&data).unwrap();
    fs::remove_dir_all(platform.state.root().join("nats")).unwrap();
    fs::rename(&base, &data).unwrap();
    let settings = data.join("postgresql.auto.conf");
    let recovery = format!(
        "restore_command = 'cp ../archive/%f %p'\nrecovery_target_time = '{moment}'\n\
         recovery_target_action = 'promote'\nhot_standby = off\n"
    );
    fs::write(&settings, fs::read_to_string(&settings).unwrap() + &recovery).unwrap();
    fs::write(data.join("recovery.signal"), "").unwrap();
    platform.start();

    // All that anybody was told before the moment is true, nothing that came after it is known, and tickets are sold.
    platform.succeeds(&held);
    let paid = "SELECT count(*) FROM operation WHERE action = 'capture'";
    let mut payments = platform.sql("payments").await;
    let kept: i64 = sqlx::query_scalar(paid).fetch_one(&mut payments).await.unwrap();
    assert_eq!(usize::try_from(kept).unwrap(), 2 * BUYERS + 1);
    platform.succeeds(&["reconcile"]);
    platform.succeeds(&["buy", "--show", "summer-festival"]);
    platform.succeeds(&held);

    // With the provider's own books, each payment that came after the moment is named, and no other.
    run(postgres("psql")
        .args(["--quiet", "--single-transaction", "--set", "ON_ERROR_STOP=1", "--dbname"])
        .arg(platform.url("psp_sim"))
        .arg("--file")
        .arg(&provider));
    let differ = platform.stampede(&["reconcile"]);
    assert!(!differ.status.success(), "{}", said(&differ));
    let unknown = |line: &&str| line.split_whitespace().skip(1).take(2).eq(["nothing", "capture"]);
    assert_eq!(said(&differ).lines().filter(unknown).count(), LATE, "{}", said(&differ));
}
