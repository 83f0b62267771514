//! What a command meets outside: pipes that close, disks that are full, variables of other programs, names of folders.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use stampede::scratch::Scratch;

/// Commands that need no platform and print something.
const PRINTING: [&[&str]; 6] =
    [&["--help"], &["up", "--help"], &["--version"], &["secrets"], &["blueprint"], &["check"]];

fn command(args: &[&str], scratch: &Scratch) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stampede"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if args == ["secrets"] {
        command.arg("--state").arg(scratch.path());
    }
    command
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let scratch = Scratch::new("full").unwrap();
    for args in PRINTING {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = command(args, &scratch).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("standard output could not be written: No space left"), "{args:?}: {said}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error_and_no_panic() {
    let scratch = Scratch::new("pipe").unwrap();
    for args in PRINTING {
        let mut child = command(args, &scratch).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""), "{args:?}");
    }
    // An error whose reader has left, too.
    for args in [&["no-such-command"][..], &["status", "--state", "/nowhere"]] {
        let mut child = command(args, &scratch).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert!(matches!(child.wait().unwrap().code(), Some(1 | 2)), "{args:?}");
    }
}

#[test]
fn variables_of_other_programs_change_nothing() {
    let scratch = Scratch::new("ambient").unwrap();
    let root = scratch.path().join("a b: \"e\u{301}\" $x #1 'q' \\n");
    let up = |args: &[&str]| {
        let mut command = command(args, &scratch);
        command.arg("--state").arg(&root);
        command.envs([
            ("PGOPTIONS", "-c no_such_setting=1"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/nowhere"),
            ("PGPORT", "1"),
            ("PGDATA", "/nowhere"),
            ("PIP_USER", "1"),
            ("PIP_TARGET", "/nowhere"),
            ("PYTHONHOME", "/nowhere"),
            ("PYTHONPATH", "/nowhere"),
            ("GIT_DIR", "/nowhere"),
            ("NATS_URL", "nats://127.0.0.1:9"),
            ("NATS_USER", "nobody"),
            ("NATS_PASSWORD", "nothing"),
            ("http_proxy", "http://127.0.0.1:9"),
            ("ALL_PROXY", "http://127.0.0.1:9"),
            ("HTTP_PROXY", "http://127.0.0.1:9"),
        ]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        said
    };
    up(&["up", "--infra", "--random-ports", "--throw-away", "--detach"]);
    let status = up(&["status"]);
    up(&["provision"]);
    up(&["down"]);
    for process in ["postgres", "nats", "smtp"] {
        let line = status.lines().find(|line| line.contains(process)).unwrap();
        assert!(line.contains("running") && line.contains("yes"), "{status}");
    }
    // Both wrote into the folder with that name.
    assert!(fs::read_dir(root.join("mail")).unwrap().count() == 3);
    assert!(root.join("nats/jetstream").is_dir());
}

#[test]
fn more_files_may_be_open_than_a_shell_grants() {
    let scratch = Scratch::new("files").unwrap();
    let (kind, granted) = (scratch.path().join("kind"), scratch.path().join("granted"));
    // What it starts has its limit.
    fs::write(&kind, format!("#!/bin/sh\nulimit -Sn >{}\n", granted.display())).unwrap();
    fs::set_permissions(&kind, fs::Permissions::from_mode(0o755)).unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "ulimit -Sn 256; exec \"$0\" kind up", env!("CARGO_BIN_EXE_stampede")]);
    shell.env("PATH", scratch.path()).output().unwrap();
    let granted = fs::read_to_string(granted).unwrap();
    assert!(granted.trim().parse::<u64>().unwrap() > 256, "{granted}");
}
