//! An image as a file that every engine reads: `docker save`'s format, with one layer.
//!
//! It is described in <https://github.com/moby/docker-image-spec>; docker, podman, buildah, containerd and kind read it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::stamp::Stamp;
use super::{Architecture, Image, USER, VERSION, root};

/// Writes the image with that root file system; returns its id, `sha256:…`.
pub(crate) fn write(
    archive: &Path,
    image: &Image,
    root: &Path,
    architecture: Architecture,
    stamp: &Stamp,
) -> anyhow::Result<String> {
    let layer = layer(root)?;
    let layer_id = sha256(&layer);
    let config = serde_json::to_vec(&config(image, architecture, stamp, &layer_id))?;
    let id = sha256(&config);
    let (layer_file, config_file) = (format!("{layer_id}.tar"), format!("{id}.json"));
    let manifest =
        json!([{ "Config": config_file, "RepoTags": [image.to_string()], "Layers": [layer_file] }]);

    let file = File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    let mut tar = Builder::new(file);
    add_file(&mut tar, &config_file, 0o644, &config)?;
    add_file(&mut tar, &layer_file, 0o644, &layer)?;
    add_file(&mut tar, "manifest.json", 0o644, &serde_json::to_vec(&manifest)?)?;
    tar.finish()?;
    Ok(format!("sha256:{id}"))
}

/// The root file system as a tar archive. All is root's and as old as 1970, so that the same files are the same layer.
fn layer(root: &Path) -> anyhow::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for path in root::entries(root)? {
        let name = path.strip_prefix(root)?.to_str().context("a name is not UTF-8")?;
        if path.is_dir() {
            let mut header = header(EntryType::Directory, 0o755, 0);
            tar.append_data(&mut header, format!("{name}/"), std::io::empty())?;
        } else {
            let mode = if name == root::PROGRAM { 0o755 } else { 0o644 };
            add_file(&mut tar, name, mode, &fs::read(&path)?)?;
        }
    }
    Ok(tar.into_inner()?)
}

/// How the image is run, and what it says of itself.
fn config(image: &Image, architecture: Architecture, stamp: &Stamp, layer: &str) -> Value {
    let mut labels = json!({
        "org.opencontainers.image.title": format!("stampede/{}", image.name),
        "org.opencontainers.image.description": format!("Stampede, a reference platform for reactive systems: {}", image.name),
        "org.opencontainers.image.version": VERSION,
        "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
        "org.opencontainers.image.created": stamp.created,
    });
    if let Some(revision) = &stamp.revision {
        labels["org.opencontainers.image.revision"] = json!(revision);
    }
    json!({
        "architecture": architecture.name(),
        "os": "linux",
        "created": stamp.created,
        "config": {
            "User": format!("{USER}:{USER}"),
            "Entrypoint": [format!("/{}", root::PROGRAM)],
            "WorkingDir": "/",
            "Labels": labels,
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{ "created": stamp.created, "created_by": "cargo stampede images" }],
    })
}

fn add_file(tar: &mut Builder<impl Write>, name: &str, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    let mut header = header(EntryType::Regular, mode, u64::try_from(bytes.len())?);
    Ok(tar.append_data(&mut header, name, bytes)?)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// In hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use tar::Archive;

    use super::*;
    use crate::scratch::Scratch;

    const IMAGE: Image = Image { name: "orders", package: "stampede-orders" };

    fn stamp() -> Stamp {
        Stamp { created: "2030-01-31T20:00:00Z".to_owned(), revision: Some("c0ffee".to_owned()) }
    }

    fn written(scratch: &Scratch, name: &str, program: &str) -> (String, Vec<u8>) {
        let root = scratch.path().join(format!("root-{name}"));
        let archive = scratch.path().join(format!("{name}.tar"));
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("app"), program).unwrap();
        fs::write(root.join("etc/file"), "text").unwrap();
        // Whatever the folder's modes and times are.
        fs::set_permissions(root.join("app"), fs::Permissions::from_mode(0o700)).unwrap();
        let id = write(&archive, &IMAGE, &root, Architecture::Arm64, &stamp()).unwrap();
        (id, fs::read(archive).unwrap())
    }

    fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = Archive::new(tar);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        });
        entries.collect()
    }

    #[test]
    fn the_same_files_are_the_same_archive_and_others_are_not() {
        let scratch = Scratch::new("archive").unwrap();
        let one = written(&scratch, "one", "program");
        assert!(one == written(&scratch, "two", "program"));
        assert_ne!(one.0, written(&scratch, "three", "another").0);
    }

    #[test]
    fn each_part_is_named_by_the_one_that_needs_it() {
        let scratch = Scratch::new("archive").unwrap();
        let (id, archive) = written(&scratch, "one", "program");
        let files = files(&archive);
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"], json!([format!("localhost/stampede/orders:{VERSION}")]));
        let config = &files[manifest[0]["Config"].as_str().unwrap()];
        assert_eq!(format!("sha256:{}", sha256(config)), id);
        let layer = &files[manifest[0]["Layers"][0].as_str().unwrap()];
        let config: Value = serde_json::from_slice(config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!([format!("sha256:{}", sha256(layer))]));
        assert_eq!(files.len(), 3);
    }

    #[test]
    fn it_says_how_it_is_run_and_what_it_is() {
        let config = config(&IMAGE, Architecture::Arm64, &stamp(), "0123");
        assert_eq!((&config["os"], &config["architecture"]), (&json!("linux"), &json!("arm64")));
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"], json!(["/app"]));
        let labels = &config["config"]["Labels"];
        for (key, value) in [
            ("title", "stampede/orders"),
            ("version", VERSION),
            ("revision", "c0ffee"),
            ("licenses", "Apache-2.0"),
            ("created", "2030-01-31T20:00:00Z"),
        ] {
            assert_eq!(labels[format!("org.opencontainers.image.{key}")], value, "{key}");
        }
        let unknown = Stamp { revision: None, ..stamp() };
        let labels = super::config(&IMAGE, Architecture::Arm64, &unknown, "0123");
        assert!(labels["config"]["Labels"].get("org.opencontainers.image.revision").is_none());
    }

    #[test]
    fn a_layer_belongs_to_root_and_everybody_may_run_its_program() {
        let scratch = Scratch::new("archive").unwrap();
        let (_, archive) = written(&scratch, "one", "program");
        let layer = files(&archive).into_iter().find(|(name, _)| name.ends_with(".tar")).unwrap().1;
        let mut archive = Archive::new(&layer[..]);
        let shown: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!(
                    (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()),
                    (0, 0, 0)
                );
                (entry.path().unwrap().display().to_string(), header.mode().unwrap())
            })
            .collect();
        let expected = [("app", 0o755), ("etc/", 0o755), ("etc/file", 0o644)];
        assert_eq!(shown, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }
}
