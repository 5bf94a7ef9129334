//! What the tests from outside share: processes on free loopback ports, HTTP, waiting, remote write.
//!
//! Nothing here sleeps for a fixed time: [`wait_until`] asks again and again until a deadline.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A server under test: killed by its own process id when dropped. Its output goes to a log file,
/// which is printed if the test panics.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `dir/NAME.log`.
    pub fn start(name: &str, command: &mut Command, dir: &Path) -> Process {
        let log = dir.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).expect("the log file opens");
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("the log file clones"))
            .stderr(out)
            .spawn()
            .unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        Process { child, name: name.to_owned(), log }
    }

    /// Ends the process as a crash would.
    pub fn kill_9(mut self) {
        self.child.kill().expect("the process takes the signal");
        self.child.wait().expect("the process ends");
    }

    /// Asks the process to stop (SIGTERM), and waits for its exit code.
    pub fn stop(mut self, within: Duration) -> Option<i32> {
        self.signal("TERM");
        let mut code = None;
        wait_until(&format!("{} ends after SIGTERM", self.name), within, || {
            code = self.child.try_wait().expect("the process can be waited for");
            code.is_some()
        });
        code.and_then(|status| status.code())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, such as `HUP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status();
        assert!(status.is_ok_and(|s| s.success()), "{} takes SIG{name}", self.name);
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the end of {}'s log", self.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A larum of the build under test.
pub struct Larum {
    /// The process.
    pub process: Process,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    /// Its port.
    pub port: u16,
}

impl Larum {
    /// Starts larum on a free port over `dir/data`, with further flags, and waits until it is ready.
    pub fn start(dir: &Path, flags: &[&str]) -> Larum {
        Larum::start_on(free_port(), dir, flags)
    }

    /// Starts larum on `port` over `dir/data`, with further flags, and waits until it is ready. It stores
    /// nothing about itself unless a flag says so, so that tests find what they sent.
    pub fn start_on(port: u16, dir: &Path, flags: &[&str]) -> Larum {
        let larum = Larum::spawn_on(port, dir, flags);
        larum.wait_ready();
        larum
    }

    /// Starts larum on `port` over `dir/data`, with further flags.
    pub fn spawn_on(port: u16, dir: &Path, flags: &[&str]) -> Larum {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larum"));
        command
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(flags)
            .env("LARUM_RULES_SELF_MONITORING", "false");
        let process = Process::start("larum", &mut command, dir);
        Larum { process, url: format!("http://127.0.0.1:{port}"), port }
    }

    /// Waits until it answers, its data open.
    pub fn wait_ready(&self) {
        wait_until("larum is ready", Duration::from_secs(30), || {
            get(&format!("{}/-/ready", self.url)).is_some_and(|r| r.status == 200)
        });
    }
}

/// Starts a real Prometheus on a free port, with the configuration that `config` makes for that port
/// and further flags; gives it back with its URL once it is ready.
pub fn start_prometheus(
    program: &Path,
    dir: &Path,
    config: impl FnOnce(u16) -> String,
    flags: &[&str],
) -> (Process, String) {
    let port = free_port();
    let path = dir.join("prometheus.yml");
    std::fs::write(&path, config(port)).expect("the configuration is written");
    let process = Process::start(
        "prometheus",
        Command::new(program)
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.console.libraries=/nonexistent")
            .arg("--web.console.templates=/nonexistent")
            .args(flags),
        dir,
    );
    let url = format!("http://127.0.0.1:{port}");
    wait_until("prometheus is ready", Duration::from_secs(30), || {
        get(&format!("{url}/-/ready")).is_some_and(|r| r.status == 200)
    });
    (process, url)
}

/// A loopback port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Asks `condition` every 50 ms until it holds.
///
/// # Panics
/// If it does not hold `within` that time.
pub fn wait_until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header names (lower case) and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Response {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.body))
    }

    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// `GET url`; `None` if nobody answers.
pub fn get(url: &str) -> Option<Response> {
    finish(agent().get(url).call())
}

/// `GET url` with parameters, which are encoded here.
pub fn get_with(url: &str, parameters: &[(&str, &str)]) -> Option<Response> {
    finish(agent().get(url).query_pairs(parameters.iter().copied()).call())
}

/// `POST url` with a body and headers; `None` if nobody answers.
pub fn post(url: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Response> {
    let mut request = agent().post(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    finish(request.send(body))
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(60)))
        .http_status_as_error(false)
        .build()
        .into()
}

fn finish(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Option<Response> {
    let mut response = result.ok()?;
    let headers = response.headers().iter();
    let headers =
        headers.map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect();
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(1 << 30).read_to_string().ok()?;
    Some(Response { status, headers, body })
}

/// One series of a remote write request: its labels, and samples as (milliseconds, value).
pub type WriteSeries<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, f64)]);

/// A remote write 1.0 request, before compression. Labels are encoded in the order given.
pub fn write_request(series: &[WriteSeries]) -> Vec<u8> {
    let mut request = Vec::new();
    for (labels, samples) in series {
        let mut message = Vec::new();
        for (name, value) in *labels {
            let mut label = Vec::new();
            put_bytes(&mut label, 1, name.as_bytes());
            put_bytes(&mut label, 2, value.as_bytes());
            put_bytes(&mut message, 1, &label);
        }
        for (t_ms, value) in *samples {
            let mut sample = vec![0x09];
            sample.extend_from_slice(&value.to_le_bytes());
            sample.push(0x10);
            put_varint(&mut sample, *t_ms as u64);
            put_bytes(&mut message, 2, &sample);
        }
        put_bytes(&mut request, 1, &message);
    }
    request
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Sends a remote write 1.0 request, compressed, with the usual headers.
pub fn remote_write(url: &str, series: &[WriteSeries]) -> Response {
    let body = snap::raw::Encoder::new().compress_vec(&write_request(series)).expect("snappy compresses");
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    post(&format!("{url}/api/v1/write"), &headers, &body).expect("the server answers")
}

/// Listens on a free port, answers every POST with 200, and hands out its JSON.
pub fn listen_for_posts() -> (u16, Receiver<serde_json::Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let mut reader = BufReader::new(connection);
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            let mut body = vec![0; length];
            let read = reader.read_exact(&mut body);
            let _ = reader
                .get_mut()
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            if let (Ok(()), Ok(notification)) = (read, serde_json::from_slice(&body))
                && send.send(notification).is_err()
            {
                return;
            }
        }
    });
    (port, receive)
}

/// The present time in milliseconds since the epoch.
pub fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Where `tests/bring_servers.sh` puts what it brings.
pub fn servers() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    target.join("servers")
}

/// A real server brought by `tests/bring_servers.sh`, or `None` with a notice where it is absent.
///
/// # Panics
/// If it is absent and CI=true: CI must not skip.
pub fn real_server(program: &str) -> Option<PathBuf> {
    let path = servers().join("bin").join(program);
    if path.is_file() {
        return Some(path);
    }
    let notice = format!("{program} is not there: run tests/bring_servers.sh");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{notice}");
    eprintln!("SKIPPED: {notice}");
    None
}

/// A file of the material shared between the developers, or `None` with a notice where it is absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is not there", path.display());
    None
}
