//! Connections: accepted up to a limit, served, and ended in good order.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// How long a request's head may take to arrive, and a connection may wait for its next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Binds `address`: `host:port`, `[ipv6]:port`, or `:port` for all interfaces.
pub fn bind(address: &str) -> io::Result<StdListener> {
    let full = if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() };
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no host:port");
    for address in full.to_socket_addrs()? {
        match StdListener::bind(address) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                return Ok(listener);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The connections of all listeners.
pub struct Connections {
    slots: Arc<Semaphore>,
    max: u32,
    idle: Duration,
}

impl Connections {
    /// At most `max` connections; one that sends no request for `idle` is closed.
    pub fn new(max: u32, idle: Duration) -> Connections {
        Connections { slots: Arc::new(Semaphore::new(max as usize)), max, idle }
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        (self.max as usize).saturating_sub(self.slots.available_permits())
    }

    /// Accepts and serves connections until `stop` says true; those that are open then finish
    /// the request they are at.
    pub async fn serve(&self, listener: StdListener, router: Router, mut stop: watch::Receiver<bool>) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!("cannot listen: {error}"),
        };
        loop {
            // Beyond the limit, connections wait in the kernel's queue.
            let slot = tokio::select! {
                slot = self.slots.clone().acquire_owned() => slot,
                () = stopped(&mut stop) => return,
            };
            let Ok(slot) = slot else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut stop) => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, say: whoever ends a connection helps.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let service = TowerToHyperService::new(router.clone());
            let mut stop = stop.clone();
            let idle = self.idle;
            tokio::spawn(async move {
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(idle.min(HEAD_TIMEOUT));
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                tokio::pin!(connection);
                tokio::select! {
                    // A client that goes away is no news.
                    _ = connection.as_mut() => {}
                    () = stopped(&mut stop) => {
                        connection.as_mut().graceful_shutdown();
                        let _ = connection.await;
                    }
                }
                drop(slot);
            });
        }
    }

    /// Waits until every connection is closed, for as long as `within`; says whether they are.
    pub async fn closed(&self, within: Duration) -> bool {
        tokio::time::timeout(within, self.slots.acquire_many(self.max)).await.is_ok()
    }
}

/// Waits until it is time to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to tell: then, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The addresses the listeners are bound to.
pub fn addresses(listeners: &[StdListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}
