//! What a program's header says of it, as in elf(5).

use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};

/// For which processor a program was compiled, in the words of container images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    Amd64,
    Arm64,
}

/// A program header that names the dynamic linker.
const PT_INTERP: u32 = 3;
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;

/// Reads the header of a program.
///
/// # Errors
/// When it is no program for 64-bit Linux, or needs a dynamic linker, which an image does not have.
pub(crate) fn inspect(program: &Path) -> anyhow::Result<Architecture> {
    let bytes = fs::read(program).with_context(|| {
        format!(
            "{} cannot be read; leave --no-build out, or: cargo build --workspace --bins",
            program.display()
        )
    })?;
    let (architecture, linkage) =
        header(&bytes).with_context(|| format!("{} is no program for Linux", program.display()))?;
    let (shown, target) = (program.display(), architecture.target());
    ensure!(
        linkage == Linkage::Static,
        "{shown} is not linked statically; leave --no-build out, or:\n  RUSTFLAGS=\"-C target-feature=+crt-static\" cargo build --workspace --bins --target {target}\nand --binaries target/{target}/debug"
    );
    Ok(architecture)
}

impl Architecture {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The same in Rust's words, with the C library of GNU.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Linkage {
    Static,
    Dynamic,
}

fn header(bytes: &[u8]) -> anyhow::Result<(Architecture, Linkage)> {
    ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "it is not ELF of 64 bits, least significant byte first");
    let architecture = match u16::from_le_bytes(field(bytes, 18)?) {
        EM_X86_64 => Architecture::Amd64,
        EM_AARCH64 => Architecture::Arm64,
        other => bail!("its processor has the number {other}"),
    };
    let first = usize::try_from(u64::from_le_bytes(field(bytes, 32)?))?;
    let size = usize::from(u16::from_le_bytes(field(bytes, 54)?));
    let count = usize::from(u16::from_le_bytes(field(bytes, 56)?));
    for number in 0..count {
        let at = first.checked_add(number * size).context("its program headers lie nowhere")?;
        if u32::from_le_bytes(field(bytes, at)?) == PT_INTERP {
            return Ok((architecture, Linkage::Dynamic));
        }
    }
    Ok((architecture, Linkage::Static))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> anyhow::Result<[u8; N]> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.copied().context("it is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with program headers of these types.
    fn program(machine: u16, types: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&u16::try_from(types.len()).unwrap().to_le_bytes());
        for kind in types {
            bytes.extend(kind.to_le_bytes());
            bytes.extend([0; 52]);
        }
        bytes
    }

    #[test]
    fn who_needs_a_dynamic_linker_says_so_in_any_of_the_headers() {
        let read = |machine, types: &[u32]| header(&program(machine, types)).unwrap();
        assert_eq!(read(EM_X86_64, &[1, 2, 4]), (Architecture::Amd64, Linkage::Static));
        assert_eq!(read(EM_AARCH64, &[1, 1, PT_INTERP]), (Architecture::Arm64, Linkage::Dynamic));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let good = program(EM_X86_64, &[1, 2]);
        assert!(header(&good).is_ok());
        for bad in [&b"#!/bin/sh"[..], b"", &good[..40], &good[..good.len() - 56], &program(8, &[])] {
            assert!(header(bad).is_err(), "{} bytes", bad.len());
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_message_has_the_line_that_mends_it() {
        // A shell is linked dynamically wherever Rust's own tools run.
        let refused = inspect(Path::new("/bin/sh")).unwrap_err().to_string();
        assert!(refused.contains("/bin/sh") && refused.contains("+crt-static"), "{refused}");
        assert!(refused.contains("--target") && refused.contains("--binaries"), "{refused}");
    }
}
