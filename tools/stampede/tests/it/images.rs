//! `stampede images`, of programs that take no time to build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use stampede::scratch::Scratch;

/// Nobody runs it.
const SOURCE: &str = "void _start(void) { for (;;) ; }";
const PROGRAMS: [&str; 9] = [
    "stampede",
    "stampede-catalog",
    "stampede-gateway",
    "stampede-inventory",
    "stampede-lobby",
    "stampede-notify",
    "stampede-orders",
    "stampede-payments",
    "stampede-psp-sim",
];

#[test]
fn the_same_programs_make_the_same_archives() {
    let scratch = Scratch::new("images").unwrap();
    let folder = programs(&scratch);
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let (first, second, roots) = (path("first"), path("second"), path("roots"));
    let output = images(&folder, &["--archive", &first, "--root", &roots]);
    assert!(output.status.success(), "{}", super::said(&output));
    assert!(images(&folder, &["--archive", &second]).status.success());

    for program in PROGRAMS {
        let name = program.strip_prefix("stampede-").unwrap_or(program);
        let read = |folder: &str| fs::read(Path::new(folder).join(format!("{name}.tar"))).unwrap();
        assert!(read(&first) == read(&second), "{name}");
        let line = format!("localhost/stampede/{name}:{} ", env!("CARGO_PKG_VERSION"));
        assert!(super::said(&output).contains(&line), "{}", super::said(&output));
        let program = Path::new(&roots).join(name).join("app");
        assert_eq!(fs::read(program).unwrap(), fs::read(folder.join("stampede")).unwrap());
    }
}

#[test]
fn a_program_that_needs_a_dynamic_linker_is_refused_by_name() {
    let scratch = Scratch::new("images").unwrap();
    let folder = programs(&scratch);
    link(&folder.join("stampede-orders"), &["-pie", "-fPIE"]);
    let archives = scratch.path().join("archives");
    let output = images(&folder, &["--archive", &archives.display().to_string()]);
    let said = super::said(&output);
    assert!(!output.status.success() && !archives.exists(), "{said}");
    assert!(said.contains("stampede-orders is not linked statically"), "{said}");
    assert!(said.contains("+crt-static"), "{said}");
}

#[test]
fn without_an_engine_it_says_what_needs_none() {
    let scratch = Scratch::new("images").unwrap();
    let folder = programs(&scratch);
    let output = command(&folder).env("PATH", scratch.path()).output().unwrap();
    let said = super::said(&output);
    assert!(!output.status.success(), "{said}");
    for part in ["docker: it is not on the PATH", "buildah: it is not", "--archive"] {
        assert!(said.contains(part), "{said}");
    }
}

fn programs(scratch: &Scratch) -> PathBuf {
    let folder = scratch.path().join("programs");
    fs::create_dir(&folder).unwrap();
    let (first, others) = PROGRAMS.split_first().unwrap();
    link(&folder.join(first), &["-static"]);
    for other in others {
        fs::copy(folder.join(first), folder.join(other)).unwrap();
    }
    folder
}

fn link(program: &Path, linkage: &[&str]) {
    let source = program.with_extension("c");
    fs::write(&source, SOURCE).unwrap();
    let mut command = Command::new("cc");
    command.arg("-nostdlib").args(linkage).arg("-o").args([program, &source]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", super::said(&output));
}

fn images(programs: &Path, args: &[&str]) -> Output {
    command(programs).args(args).output().unwrap()
}

fn command(programs: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stampede"));
    command.args(["images", "--no-build", "--binaries"]).arg(programs);
    command
}
