//! Ctrl-C and its like.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell says of a process that SIGTERM ended.
pub(crate) const ENDED_BY_SIGTERM: u8 = 128 + 15;

/// Everything that asks a program to end.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// From here on they no longer end the program by themselves.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one. May be dropped and called again; none is lost.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
