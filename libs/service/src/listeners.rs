//! Listeners besides the main one, for services with two kinds of callers.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;

use crate::http::server::{Limits, Server};
use crate::{Error, Node};

impl Node {
    /// Binds an address. Nothing is accepted before it is served.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub async fn listen_on(&self, address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        Ok((listener, bound))
    }

    /// The server of the service's own listener, for [`serve_with`](Self::serve_with).
    pub fn server(&self, listener: TcpListener, router: Router) -> Server {
        Server::new("main", listener, router, Limits::of(&self.settings))
    }

    /// Serves `router` on a listener of its own from now on. It ends as the main one does: it takes requests until
    /// `DRAIN_DELAY_MS` is over, and those that are then open have `DRAIN_TIMEOUT_MS` to finish.
    pub fn serve_beside(&self, listener: TcpListener, router: Router) {
        let server = Server::new("second", listener, router, Limits::of(&self.settings));
        let cut_off = self.shutdown.clone();
        self.beside.spawn(cut_off.run_until_cancelled_owned(server.run(self.stop.clone())));
    }

    /// Serves `router` on the admin listener too, for operators only: what it does not know itself goes there. Only
    /// the first router counts.
    pub fn serve_on_admin(&self, router: Router) {
        if self.admin_more.set(router).is_err() {
            tracing::error!("the admin listener has more routes already; these are not served");
        }
    }
}
