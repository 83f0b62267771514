#![doc = include_str!("../README.md")]

mod environment;

use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The program that is built and then takes the place of this one.
const PROGRAM: &str = "stampede";

fn main() -> ExitCode {
    let Err(reason) = launch(&env::args_os().skip(1).collect::<Vec<_>>());
    print(&reason);
    ExitCode::FAILURE
}

/// Unlike eprintln!, without a panic where standard error is closed.
fn print(line: &str) {
    let _ = writeln!(std::io::stderr(), "{PROGRAM}: {line}");
}

/// Builds, then becomes the command line, with the same arguments and the same process ID.
fn launch(arguments: &[OsString]) -> Result<Infallible, String> {
    let build = Build::of(arguments);
    let program = build.program()?;
    if !program.exists() {
        print("building; the first time takes some minutes, then only changes are compiled");
    }
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Queries are checked against the committed `.sqlx`, not against a database that happens to be named.
    cargo.args(build.line()).env_remove("DATABASE_URL");
    let mut command = Command::new(&program);
    command.args(arguments);
    for name in environment::of_a_package() {
        cargo.env_remove(&name);
        command.env_remove(&name);
    }
    let status = cargo.status().map_err(|error| format!("cargo cannot be started: {error}"))?;
    if !status.success() {
        return Err(format!("cargo {} failed ({status})", build.line().join(" ")));
    }
    Err(format!("{} cannot be started: {}", program.display(), command.exec()))
}

/// What has to be compiled before a command can run.
#[derive(Clone, Copy)]
struct Build {
    /// The services too, and not only the command line.
    services: bool,
    release: bool,
}

impl Build {
    fn of(arguments: &[OsString]) -> Self {
        let has =
            |options: &[&str]| arguments.iter().any(|given| options.iter().any(|option| given == option));
        let up = arguments.first().is_some_and(|command| command == "up");
        Self {
            services: up && !has(&["--infra", "--no-build", "--help", "-h"]),
            release: up && has(&["--release"]),
        }
    }

    /// Always the whole workspace, of which the programs are chosen: crates have the features that the whole wants, so that
    /// every command finds what another one has compiled.
    fn line(self) -> Vec<&'static str> {
        let mut line = vec!["build", "--workspace", "--exclude", env!("CARGO_PKG_NAME")];
        line.extend(if self.services { &["--bins"][..] } else { &["--bin", PROGRAM] });
        if self.release {
            line.push("--release");
        }
        line
    }

    /// Where cargo puts it: in the folder of its profile, next to ours.
    fn program(self) -> Result<PathBuf, String> {
        let own = env::current_exe().map_err(|error| format!("this program cannot find itself: {error}"))?;
        let profile = if self.release { "release" } else { "debug" };
        Ok(own.parent().unwrap_or(Path::new("/")).with_file_name(profile).join(PROGRAM))
    }
}
