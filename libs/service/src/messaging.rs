//! The connection to NATS, and the heartbeats that go over it.

use std::net::SocketAddr;
use std::sync::PoisonError;

use stampede_bus::Bus;
use stampede_contracts::Heartbeat;

use crate::{Error, Node};

impl Node {
    /// Connects to NATS as this service, and keeps connected until the last task has ended.
    ///
    /// It is no condition of readiness: while NATS is away, what does not need it goes on, and what does says so.
    ///
    /// # Errors
    /// [`Error::Messaging`] when the server lets this user not in, or nobody answered for half a minute.
    pub async fn bus(&self) -> Result<Bus, Error> {
        let nats = &self.settings.nats;
        let settings = stampede_bus::Settings {
            url: nats.url.clone(),
            user: nats.user.clone(),
            password: nats.password.expose().to_owned(),
            service: self.service().to_owned(),
            instance: self.settings.instance.clone(),
        };
        let bus = Bus::connect_with(settings, self.destinations.clone()).await?;
        self.follow_policies(&bus);
        self.buses.lock().unwrap_or_else(PoisonError::into_inner).push(bus.clone());
        Ok(bus)
    }

    /// Says once a second that this node lives, and at `http`, if it has a listener; ready when it serves and its gates
    /// and checks agree. When draining begins it says once more that it takes no new work.
    pub fn say_heartbeats(&self, bus: &Bus, http: Option<SocketAddr>) {
        let (bus, draining, shutdown) = (bus.clone(), self.draining(), self.shutdown());
        let (readiness, heartbeat) = (self.readiness(), self.heartbeat(http));
        self.supervise("heartbeat", move || {
            let (bus, draining, shutdown) = (bus.clone(), draining.clone(), shutdown.clone());
            let (readiness, heartbeat) = (readiness.clone(), heartbeat.clone());
            async move {
                let say = || async { Heartbeat { ready: readiness.is_ready().await, ..heartbeat.clone() } };
                bus.heartbeat(say, draining).await?;
                // A child that ends before shutdown has failed, and this one has only said its last word.
                shutdown.cancelled().await;
                Ok(())
            }
        });
    }
}
