//! A mail server that does what its script says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// What it does with one mail.
#[derive(Debug, Clone, Copy)]
pub enum Turn {
    Take,
    /// Says this about the recipient and repeats the address, as many mail servers do.
    Refuse(&'static str),
    /// Reads the mail and then says nothing more.
    Hang,
    /// Has the mail and is gone before it says so.
    LoseAnswer,
}

/// A mail as it arrived, whatever was answered.
#[derive(Debug, Clone)]
pub struct Mail {
    pub to: String,
    raw: String,
}

impl Mail {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.raw.lines().take_while(|line| !line.is_empty());
        let mut headers = lines.filter_map(|line| line.split_once(": "));
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The parts after each `Content-Type` that begins so, without the quoted-printable line ends.
    pub fn part(&self, media_type: &str) -> String {
        let text = self.raw.replace("=\r\n", "").replace("=3D", "=");
        let (_, part) = text.split_once(&format!("Content-Type: {media_type}")).unwrap();
        part.split("\r\n--").next().unwrap().to_owned()
    }
}

pub struct MailServer {
    pub url: String,
    stage: Arc<Stage>,
    _serving: AbortOnDropHandle<()>,
}

struct Stage {
    script: Mutex<(VecDeque<Turn>, Turn)>,
    arrived: Mutex<Vec<Mail>>,
}

impl MailServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let script = Mutex::new((VecDeque::new(), Turn::Take));
        let stage = Arc::new(Stage { script, arrived: Mutex::default() });
        let serving = AbortOnDropHandle::new(tokio::spawn(serve(listener, Arc::clone(&stage))));
        Self { url, stage, _serving: serving }
    }

    /// What it does with the next mails, and with all after them.
    pub fn play(&self, next: &[Turn], then: Turn) {
        *self.stage.script.lock().unwrap() = (next.iter().copied().collect(), then);
    }

    pub fn arrived(&self) -> Vec<Mail> {
        self.stage.arrived.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, stage: Arc<Stage>) {
    let mut conversations = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let stage = Arc::clone(&stage);
        // A client that is gone is part of the play.
        conversations.spawn(async move { converse(BufReader::new(stream), &stage).await.is_ok() });
    }
}

async fn converse(mut stream: BufReader<TcpStream>, stage: &Stage) -> Result<()> {
    stream.write_all(b"220 mail.test\r\n").await?;
    let (mut to, mut turn, mut line) = (String::new(), Turn::Take, String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let mut answer = "250 fine".to_owned();
        match line.get(..4).unwrap_or_default() {
            "RCPT" => {
                to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                turn = stage.turn();
                if let Turn::Refuse(words) = turn {
                    answer = format!("{words} <{to}>: said the mail server");
                }
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                let raw = read_mail(&mut stream).await?;
                stage.arrived.lock().unwrap().push(Mail { to: to.clone(), raw });
                match turn {
                    Turn::Hang => std::future::pending().await,
                    Turn::LoseAnswer => return Ok(()),
                    Turn::Take | Turn::Refuse(_) => {}
                }
            }
            _ => {}
        }
        stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
}

/// Up to the line with nothing but a dot.
async fn read_mail(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut raw = String::new();
    while !raw.ends_with("\r\n.\r\n") {
        if stream.read_line(&mut raw).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(raw)
}

impl Stage {
    fn turn(&self) -> Turn {
        let (next, then) = &mut *self.script.lock().unwrap();
        next.pop_front().unwrap_or(*then)
    }
}
