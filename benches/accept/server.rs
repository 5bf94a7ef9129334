//! The servers that are measured, and where their programs come from.

use crate::support;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Server {
    /// The build under test.
    Larum,
    /// The peer that ratios are taken to.
    VictoriaMetrics,
    /// The other peer.
    Prometheus,
}

impl Server {
    /// All of them; rounds go through them in this order.
    pub const ALL: [Server; 3] = [Server::Larum, Server::VictoriaMetrics, Server::Prometheus];

    /// Its program.
    pub fn program(self) -> PathBuf {
        match self {
            Server::Larum => PathBuf::from(env!("CARGO_BIN_EXE_larum")),
            Server::VictoriaMetrics => support::servers().join("bin/victoria-metrics"),
            Server::Prometheus => support::servers().join("bin/prometheus"),
        }
    }

    /// How the load generator describes it: the name of the file, without folder and `.toml`.
    pub fn target(self) -> &'static str {
        match self {
            Server::Larum => "larum",
            Server::VictoriaMetrics => "vm-1.79.5",
            Server::Prometheus => "prometheus",
        }
    }
}

/// Brings the peers' programs; gives the servers that can be measured, and says which cannot.
pub fn bring(without: &[Server]) -> Vec<Server> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bring_servers.sh");
    let peers = Server::ALL[1..].iter().filter(|peer| !without.contains(peer));
    let programs = peers.filter_map(|peer| Some(peer.program().file_name()?.to_owned()));
    if let Err(error) = Command::new(&script).args(programs).status() {
        eprintln!("accept: NOTICE: {} does not start: {error}", script.display());
    }
    let there = |server: &Server| {
        let there = server.program().is_file();
        if !there {
            eprintln!("accept: NOTICE: {server:?} is not measured: no {}", server.program().display());
        }
        there
    };
    Server::ALL.into_iter().filter(|server| !without.contains(server)).filter(there).collect()
}
