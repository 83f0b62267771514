//! Everything each buyer was told, a JSON line an answer: the clients' own record, which the verifier holds against
//! the databases.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stampede_contracts::Timestamp;
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, BufWriter},
    sync::mpsc,
    task::JoinHandle,
};

use crate::client::Reply;

/// Lines on their way to the file; a buyer waits when there are more.
const LINES_QUEUED_MAX: usize = 8_192;

/// One answer, or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When the answer was there.
    pub at: Timestamp,
    /// Which buyer.
    pub buyer: u64,
    /// What was asked: hold, order, …
    pub step: String,
    /// The `Idempotency-Key`, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The status; absent when there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Milliseconds from sending to the last byte, or to the moment when it was clear that there is no answer.
    pub took_ms: f64,
    /// The body, for the steps whose words are promises: holds, orders, places, cancellations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// SHA-256 of the body's bytes, where two answers must be equal byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Where entries go. Clones write to the same file.
#[derive(Debug, Clone)]
pub struct History {
    lines: mpsc::Sender<String>,
}

impl History {
    /// A new file; the handle ends when every clone is gone and everything is on disk.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub async fn create(path: &Path) -> Result<(Self, JoinHandle<Result<()>>)> {
        if let Some(folder) = path.parent() {
            tokio::fs::create_dir_all(folder)
                .await
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let file = File::create(path).await.with_context(|| format!("cannot write {}", path.display()))?;
        let (lines, mut queue) = mpsc::channel::<String>(LINES_QUEUED_MAX);
        let writer = tokio::spawn(async move {
            let mut file = BufWriter::new(file);
            while let Some(line) = queue.recv().await {
                file.write_all(line.as_bytes()).await?;
                file.write_all(b"\n").await?;
            }
            file.flush().await?;
            Ok(file.get_ref().sync_all().await?)
        });
        Ok((Self { lines }, writer))
    }

    /// Writes down what came back for an attempt at a step, or after how many milliseconds it broke off.
    pub async fn told(&self, buyer: u64, step: &str, key: Option<&str>, reply: Result<&Reply, f64>) {
        // A seat map or a show is no promise, and large; a session's token is nobody's business.
        let promise = matches!(
            step,
            "hold" | "release" | "order" | "order again" | "cancel" | "settle" | "lobby" | "leave"
        );
        let entry = match reply {
            Ok(reply) => Entry {
                at: Timestamp::now(),
                buyer,
                step: step.to_owned(),
                key: key.map(str::to_owned),
                status: Some(reply.status.as_u16()),
                took_ms: reply.took.as_secs_f64() * 1_000.0,
                body: promise.then(|| serde_json::from_slice(&reply.body).ok()).flatten(),
                digest: key.map(|_| digest(&reply.body)),
            },
            Err(took_ms) => Entry {
                at: Timestamp::now(),
                buyer,
                step: step.to_owned(),
                key: key.map(str::to_owned),
                status: None,
                took_ms,
                body: None,
                digest: None,
            },
        };
        if let Ok(line) = serde_json::to_string(&entry) {
            // The writer ended only if the disk is full; the run's end says so.
            let _ = self.lines.send(line).await;
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA256, bytes)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Reads a history.
///
/// # Errors
/// When the file cannot be read or a line is none of ours; the message names it.
pub async fn read(path: &Path) -> Result<Vec<Entry>> {
    let file = File::open(path).await.with_context(|| format!("cannot read {}", path.display()))?;
    let mut file = BufReader::new(file);
    let mut entries = Vec::new();
    let mut line = String::new();
    // A load that was killed may leave half a line, which nobody was promised.
    while file.read_line(&mut line).await? > 0 && line.ends_with('\n') {
        let entry = serde_json::from_str(&line)
            .with_context(|| format!("{}:{}", path.display(), entries.len() + 1))?;
        entries.push(entry);
        line.clear();
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[tokio::test]
    async fn half_a_line_at_the_end_is_left_out_and_a_strange_line_is_named() {
        let scratch = Scratch::new("history").unwrap();
        let path = scratch.path().join("load.jsonl");
        let line = r#"{"at":"2026-01-01T00:00:00Z","buyer":1,"step":"hold","took_ms":1.0}"#;
        std::fs::write(&path, format!("{line}\n{line}\n{}", &line[..40])).unwrap();
        assert_eq!(read(&path).await.unwrap().len(), 2);
        std::fs::write(&path, format!("{line}\n{}\n", &line[..40])).unwrap();
        assert!(read(&path).await.unwrap_err().to_string().ends_with("load.jsonl:2"));
    }
}
