//! Connections: accepted up to a limit, served, and ended in good order. Where the limit is reached,
//! those that ask for nothing make room, the one that was idle the longest first.

use super::pace::Paced;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

/// How long a request's head may take to arrive, and a connection may wait for its next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection that was asked to make room is waited for before another is asked.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

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
    idle_timeout: Duration,
    write_timeout: Duration,
    idle: Arc<IdleConnections>,
    given_up: Arc<AtomicU64>,
}

/// The connections without a request in flight, by the order in which they became idle.
#[derive(Default)]
struct IdleConnections {
    state: Mutex<IdleState>,
    added: Notify,
}

#[derive(Default)]
struct IdleState {
    next: u64,
    close: BTreeMap<u64, Arc<Notify>>,
}

impl IdleConnections {
    fn lock(&self) -> MutexGuard<'_, IdleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up a connection, which is told by `close` to make room.
    fn enter(self: &Arc<Self>, close: &Arc<Notify>) -> Idle {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.close.insert(number, close.clone());
        drop(state);
        self.added.notify_waiters();
        Idle { all: self.clone(), number }
    }

    /// Tells the one that was idle the longest to close, once there is one.
    async fn close_oldest(&self) {
        loop {
            let added = self.added.notified();
            tokio::pin!(added);
            added.as_mut().enable();
            if let Some((_, close)) = self.lock().close.pop_first() {
                return close.notify_one();
            }
            added.await;
        }
    }
}

/// Keeps a connection among the idle ones.
struct Idle {
    all: Arc<IdleConnections>,
    number: u64,
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.all.lock().close.remove(&self.number);
    }
}

impl Connections {
    /// At most `max` connections; one that sends no request for `idle_timeout` is closed, and one whose
    /// client does not read its answer, after `write_timeout`.
    pub fn new(max: u32, idle_timeout: Duration, write_timeout: Duration) -> Connections {
        Connections {
            slots: Arc::new(Semaphore::new(max as usize)),
            max,
            idle_timeout,
            write_timeout,
            idle: Arc::default(),
            given_up: Arc::default(),
        }
    }

    /// How many connections were closed because their clients did not read.
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
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
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut stop) => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, say: whoever ends a connection helps.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let slot = tokio::select! {
                slot = self.slot() => slot,
                () = stopped(&mut stop) => return,
            };
            let Some(slot) = slot else { return };
            let (stop, timeout) = (stop.clone(), self.idle_timeout.min(HEAD_TIMEOUT));
            let stream = Paced::new(stream, self.write_timeout, self.given_up.clone());
            let connection = serve_one(stream, peer, router.clone(), stop, timeout, self.idle.clone());
            tokio::spawn(async move {
                connection.await;
                drop(slot);
            });
        }
    }

    /// The place of one more connection; where all are taken, an idle one has to leave. Beyond that,
    /// connections wait in the kernel's queue. `None` when there are no more places for good.
    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            return Some(slot);
        }
        let mut acquire = std::pin::pin!(self.slots.clone().acquire_owned());
        loop {
            tokio::select! {
                slot = acquire.as_mut() => return slot.ok(),
                () = self.idle.close_oldest() => {}
            }
            if let Ok(slot) = tokio::time::timeout(CLOSE_TIMEOUT, acquire.as_mut()).await {
                return slot.ok();
            }
        }
    }

    /// Waits until every connection is closed, for as long as `within`; says whether they are.
    pub async fn closed(&self, within: Duration) -> bool {
        tokio::time::timeout(within, self.slots.acquire_many(self.max)).await.is_ok()
    }
}

/// Whence a request came, among its extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Serves one connection to its end.
async fn serve_one(
    stream: Paced,
    peer: SocketAddr,
    router: Router,
    mut stop: watch::Receiver<bool>,
    head_timeout: Duration,
    all_idle: Arc<IdleConnections>,
) {
    let close = Arc::new(Notify::new());
    // Idle until the first request.
    let idle = Mutex::new(Some(all_idle.enter(&close)));
    let set_idle = |now: Option<Idle>| *idle.lock().unwrap_or_else(PoisonError::into_inner) = now;
    let asked = AtomicBool::new(false);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: Request<Incoming>| {
        set_idle(None);
        request.extensions_mut().insert(Peer(peer));
        asked.store(true, Ordering::Relaxed);
        let answer = router.call(request);
        async {
            let answer = answer.await;
            set_idle(Some(all_idle.enter(&close)));
            answer
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head_timeout);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // A client that goes away is no news.
        _ = connection.as_mut() => return,
        () = stopped(&mut stop) => {}
        () = close.notified() => {
            // Whoever never asked for anything may be sending a head byte by byte.
            if !asked.load(Ordering::Relaxed) {
                return;
            }
        }
    }
    // What is being answered is answered.
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
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
