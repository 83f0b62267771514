//! `images`: from binaries to what a cluster runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;

use crate::cargo::Binaries;
use crate::images::engine::Engine;
use crate::images::stamp::Stamp;
use crate::images::{Architecture, Image, all, archive, build, trial};
use crate::scratch::Scratch;
use crate::{cli, progress, state};

pub(crate) async fn run(options: &cli::Images) -> anyhow::Result<ExitCode> {
    let elsewhere = options.archive.is_some() || options.root.is_some() || options.trial;
    // Before a long build: whoever has no engine should not have to wait for that news.
    let engine = match options.engine {
        None if elsewhere => None,
        chosen => Some(Engine::find(chosen).await?),
    };
    let binaries = binaries(options).await?;
    if options.trial {
        trial::run(&binaries).await?;
    }
    if engine.is_some() || options.archive.is_some() || options.root.is_some() {
        make(options, &binaries, engine).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is not asked for is made in a folder that goes away.
async fn make(options: &cli::Images, binaries: &Binaries, engine: Option<Engine>) -> anyhow::Result<()> {
    let scratch = Scratch::new("images")?;
    let folder = |chosen: &Option<PathBuf>, own| chosen.clone().unwrap_or_else(|| scratch.path().join(own));
    let roots = make_roots(binaries, &folder(&options.root, "roots"))?;
    if engine.is_none() && options.archive.is_none() {
        return Ok(());
    }
    let packed = pack(&roots, &folder(&options.archive, "archives"))?;
    if let Some(engine) = engine {
        load(engine, &packed).await?;
    }
    show(&packed);
    if let Some(folder) = &options.archive {
        progress::say(format_args!("\nas archives: {}/*.tar", folder.display()));
    }
    Ok(())
}

async fn binaries(options: &cli::Images) -> anyhow::Result<Binaries> {
    let began = Instant::now();
    let binaries = match (&options.binaries, options.no_build) {
        (Some(folder), _) => Binaries::in_folder(folder)?,
        (None, true) => Binaries::beside_us()?,
        (None, false) => build::build().await?,
    };
    progress::done("programs", binaries.folder().display(), began);
    Ok(binaries)
}

/// The root file system of an image.
struct Root {
    image: Image,
    folder: PathBuf,
    architecture: Architecture,
}

fn make_roots(binaries: &Binaries, folder: &Path) -> anyhow::Result<Vec<Root>> {
    let began = Instant::now();
    let roots = all()
        .map(|image| {
            let folder = folder.join(image.name);
            let architecture = image.make_root(binaries, &folder)?;
            Ok(Root { image, folder, architecture })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    progress::done("roots", format_args!("{}, all linked statically", roots.len()), began);
    Ok(roots)
}

/// An image in its archive.
struct Packed {
    image: Image,
    archive: PathBuf,
    /// Bytes of its files.
    size: u64,
    /// `sha256:…`
    id: String,
}

fn pack(roots: &[Root], folder: &Path) -> anyhow::Result<Vec<Packed>> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let began = Instant::now();
    let stamp = Stamp::of(state::workspace().as_deref());
    let packed = roots
        .iter()
        .map(|Root { image, folder: root, architecture }| {
            let size = image.size(root)?;
            let archive = folder.join(format!("{}.tar", image.name));
            let id = archive::write(&archive, image, root, *architecture, &stamp)?;
            Ok(Packed { image: *image, archive, size, id })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    progress::done("archives", packed.len(), began);
    Ok(packed)
}

async fn load(engine: Engine, packed: &[Packed]) -> anyhow::Result<()> {
    let began = Instant::now();
    for Packed { image, archive, .. } in packed {
        engine.load(archive).await.with_context(|| format!("{image} cannot be loaded"))?;
    }
    progress::done(engine.name(), "has them", began);
    Ok(())
}

fn show(packed: &[Packed]) {
    progress::say(format_args!("\n{:<36} {:>8}  id", "image", "size"));
    for Packed { image, size, id, .. } in packed {
        let megabytes = format!("{}.{} MB", size / 1_000_000, size % 1_000_000 / 100_000);
        progress::say(format_args!("{:<36} {megabytes:>8}  {id}", image.to_string()));
    }
}
