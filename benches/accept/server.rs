//! The servers that are measured, and where their programs come from.

use crate::support::{self, Larum, Process};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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

    /// Starts it on a free port over an empty folder; gives it back with its URL once it is ready.
    pub fn start(self, folder: &Path) -> (Process, String) {
        match self {
            Server::Larum => {
                let flags = ["--storage.tsdb.retention.time=100y", "--log.level=warn"];
                let larum = Larum::start(folder, &flags);
                (larum.process, larum.url)
            }
            Server::VictoriaMetrics => {
                let port = support::free_port();
                let mut command = Command::new(self.program());
                command
                    .arg(format!("-storageDataPath={}", folder.join("data").display()))
                    .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
                    .args(["-retentionPeriod=100y", "-search.latencyOffset=0s", "-loggerLevel=WARN"]);
                let process = Process::start("victoria-metrics", &mut command, folder);
                let url = format!("http://127.0.0.1:{port}");
                support::wait_until("VictoriaMetrics is ready", Duration::from_secs(30), || {
                    support::get(&format!("{url}/health")).is_some_and(|answer| answer.status == 200)
                });
                (process, url)
            }
            Server::Prometheus => support::start_prometheus(
                &self.program(),
                folder,
                |_| "global: {}\n".to_owned(),
                &[
                    "--web.enable-remote-write-receiver",
                    "--storage.tsdb.retention.time=100y",
                    "--log.level=warn",
                ],
            ),
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
