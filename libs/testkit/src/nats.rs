//! A NATS server for one test.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};

const NATS_SERVER: &str = "STAMPEDE_TEST_NATS_SERVER";
const START_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);

/// A `nats-server` process with JetStream; it ends, and its store goes, with this value.
#[derive(Debug)]
pub struct Nats {
    directory: PathBuf,
    /// 0 until the first start chose one; later starts take the same, so that clients find the server again.
    port: u16,
    process: Option<Child>,
}

/// The file in which the server says where it listens.
#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

impl Nats {
    /// Starts a server that lets everybody in.
    ///
    /// # Panics
    /// When there is no `nats-server`, or it does not come up.
    pub async fn start() -> Self {
        Self::start_with_config("").await
    }

    /// Starts a server with more configuration, such as accounts and rights. Address, log and JetStream are set here.
    ///
    /// # Panics
    /// When there is no `nats-server`, or it does not come up, for example because of a mistake in the configuration.
    pub async fn start_with_config(text: &str) -> Self {
        let directory = env::temp_dir().join(format!("stampede-nats-{}", uuid::Uuid::new_v4().simple()));
        let mut nats = Self { directory, port: 0, process: None };
        nats.write("extra.conf", text);
        nats.launch().await;
        nats
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A connection without a name, for servers that let everybody in.
    ///
    /// # Panics
    /// When the server does not take it.
    pub async fn client(&self) -> async_nats::Client {
        match async_nats::connect(self.url()).await {
            Ok(client) => client,
            Err(error) => super::fail(&format!("no connection to {}: {error}", self.url())),
        }
    }

    /// A connection of a user in the configuration.
    ///
    /// # Panics
    /// When the server does not take it.
    pub async fn client_as(&self, user: &str, password: &str) -> async_nats::Client {
        let options = async_nats::ConnectOptions::with_user_and_password(user.into(), password.into())
            .custom_inbox_prefix(format!("_INBOX_{user}"));
        match options.connect(self.url()).await {
            Ok(client) => client,
            Err(error) => super::fail(&format!("no connection to {} for {user}: {error}", self.url())),
        }
    }

    /// Kills the process (SIGKILL), as a crash would. Its store stays.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Like [`restart`](Self::restart), with other configuration than before.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn restart_with_config(&mut self, text: &str) {
        self.stop();
        self.write("extra.conf", text);
        self.launch().await;
    }

    /// Kills the process if it still runs, and starts one on the same port with what is in the store.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn restart(&mut self) {
        self.stop();
        self.launch().await;
    }

    /// Kills the process, deletes everything JetStream kept, and starts one on the same port.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn lose_store(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(self.directory.join("store"));
        self.launch().await;
    }

    /// Freezes the process (SIGSTOP): its connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets a frozen process go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        if let Some(process) = &self.process {
            let _ = Command::new("kill").args([format!("-{name}"), process.id().to_string()]).status();
        }
    }

    async fn launch(&mut self) {
        self.write("server.conf", &self.config());
        let binary = env::var(NATS_SERVER).ok().filter(|path| !path.is_empty());
        let binary = binary.unwrap_or_else(|| "nats-server".to_owned());
        let process = Command::new(&binary)
            .arg("--config")
            .arg(self.directory.join("server.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.create("complaints").map_or_else(Stdio::null, Stdio::from))
            .spawn();
        match process {
            Ok(process) => self.process = Some(process),
            Err(error) => super::fail(&format!(
                "cannot run {binary}: {error}; run the tests with `cargo stampede test`, \
                 or set {NATS_SERVER} to the path of a nats-server binary"
            )),
        }
        self.wait_until_it_greets().await;
    }

    fn config(&self) -> String {
        // -1 is the server's word for a port of the system's choice.
        let port = if self.port == 0 { -1 } else { i32::from(self.port) };
        let directory = self.directory.display();
        format!(
            "listen: \"127.0.0.1:{port}\"\n\
             server_name: test\n\
             log_file: \"{directory}/server.log\"\n\
             ports_file_dir: \"{directory}\"\n\
             jetstream {{ store_dir: \"{directory}/store\", max_mem: 256M, max_file: 1G }}\n\
             include \"extra.conf\"\n"
        )
    }

    async fn wait_until_it_greets(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.greets() {
            let ended = self.process.as_mut().is_none_or(|process| !matches!(process.try_wait(), Ok(None)));
            if ended || Instant::now() >= deadline {
                let read = |name| fs::read_to_string(self.directory.join(name)).unwrap_or_default();
                let (complaints, log) = (read("complaints"), read("server.log"));
                super::fail(&format!("nats-server did not come up:\n{complaints}{log}"));
            }
            sleep(POLL).await;
        }
    }

    /// Whether the server answers a connection with its `INFO` line. Finds its port on the way.
    fn greets(&mut self) -> bool {
        if self.port == 0 {
            self.port = self.chosen_port().unwrap_or(0);
        }
        if self.port == 0 {
            return false;
        }
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut greeting = [0; 4];
        stream.set_read_timeout(Some(GREETING_TIMEOUT)).is_ok()
            && stream.read_exact(&mut greeting).is_ok()
            && &greeting == b"INFO"
    }

    fn chosen_port(&self) -> Option<u16> {
        let pid = self.process.as_ref()?.id();
        let written =
            |entry: &fs::DirEntry| entry.file_name().to_string_lossy().ends_with(&format!("_{pid}.ports"));
        let file = fs::read_dir(&self.directory).ok()?.flatten().find(written)?;
        let ports: Ports = serde_json::from_slice(&fs::read(file.path()).ok()?).ok()?;
        ports.nats.first()?.rsplit(':').next()?.parse().ok()
    }

    /// A file for what the server says before it has read where to log.
    fn create(&self, name: &str) -> Option<File> {
        File::create(self.directory.join(name)).ok()
    }

    fn write(&self, name: &str, text: &str) {
        let path: &Path = &self.directory;
        let written = fs::create_dir_all(path).and_then(|()| fs::write(path.join(name), text));
        if let Err(error) = written {
            super::fail(&format!("cannot write {}/{name}: {error}", path.display()));
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
