//! Answers on the wire: long ones are written as they are read, compressed for who asks for it, and nobody
//! holds them up by not reading.
#![cfg(feature = "server")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use support::{Larum, get, now_ms, remote_write, wait_until};

/// Series of the metric `many`; `few` has a hundredth of them.
const SERIES: usize = 300;
/// As many as a series may have in an answer.
const STEPS: i64 = 11_000;
/// How long the answer about `many` is: a point is about `[1790000100,"12345.678901234567"],`.
const ANSWER_BYTES: usize = SERIES * STEPS as usize * 34;
/// What of it is there at a time: 16 bytes a point as they were evaluated, and a little of the text.
const HELD_BYTES: usize = ANSWER_BYTES * 3 / 4;

fn start(dir: &std::path::Path, flags: &[&str]) -> Larum {
    let mut all = vec!["--storage.tsdb.retention.time=100y", "--log.level=warn"];
    all.extend(flags);
    let larum = Larum::start(dir, &all);
    let instances: Vec<String> = (0..SERIES).map(|i| format!("<instance> {i}")).collect();
    let sample = [(now_ms(), 12_345.678_901_234_567)];
    for (name, count) in [("many", SERIES), ("few", SERIES / 100)] {
        let labels: Vec<_> =
            instances[..count].iter().map(|i| [("__name__", name), ("instance", i)]).collect();
        let series: Vec<_> = labels.iter().map(|labels| (&labels[..], &sample[..])).collect();
        assert_eq!(remote_write(&larum.url, &series).status, 204);
    }
    larum
}

/// The path that asks for `STEPS` points for each series of a metric.
fn long_query(metric: &str) -> String {
    let start = now_ms() / 1000 + 1;
    let end = start + STEPS - 1;
    format!("/api/v1/query_range?query=last_over_time({metric}%5B1d%5D)&start={start}&end={end}&step=1")
}

/// Asks, and leaves the answer to be read.
fn ask(larum: &Larum, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", larum.port)).expect("the server accepts");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout is set");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
        .expect("the server reads");
    stream
}

/// What is reserved for queries.
fn reserved_bytes(larum: &Larum) -> f64 {
    metric(larum, "larum_memory_reserved_bytes{part=\"queries\"}")
}

fn metric(larum: &Larum, name: &str) -> f64 {
    let page = get(&format!("{}/metrics", larum.url)).expect("the server answers").body;
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name}"))
}

/// A line of the process's status, in bytes.
fn status_bytes(larum: &Larum, name: &str) -> usize {
    let path = format!("/proc/{}/status", larum.process.id());
    let status = std::fs::read_to_string(path).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the line is there");
    line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// The head of an answer and its body, as they were sent.
fn read_whole(mut stream: TcpStream) -> (String, Vec<u8>) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("the answer is read");
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let body = all.split_off(end);
    let head = String::from_utf8(all).expect("the head is text").to_ascii_lowercase();
    let body = if head.contains("transfer-encoding: chunked") { unchunked(&body) } else { body };
    (head, body)
}

/// Puts chunks together.
///
/// # Panics
/// If the last one is missing.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n").expect("the length of a chunk");
        let length =
            std::str::from_utf8(&rest[..line]).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
        let length = length.expect("a length in hexadecimal");
        rest = &rest[line + 2..];
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&rest[..length]);
        rest = &rest[length + 2..];
    }
}

#[test]
fn a_long_answer_is_never_there_as_a_whole() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let larum = start(dir.path(), &[]);
    let (_, short) = read_whole(ask(&larum, &long_query("few"), ""));
    let before = status_bytes(&larum, "VmHWM");
    let (head, long) = read_whole(ask(&larum, &long_query("many"), ""));
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert!(long.len() > ANSWER_BYTES, "{}", long.len());
    let more = status_bytes(&larum, "VmHWM") - before;
    assert!(more < HELD_BYTES, "{more} bytes for an answer of {}", long.len());
    let points = |body: &[u8]| body.windows(2).filter(|window| window == b"\"]").count();
    assert_eq!(points(&long), SERIES * STEPS as usize);
    assert_eq!(points(&short), SERIES / 100 * STEPS as usize);
    assert!(long.ends_with(b"]]}]}}"));
    assert_eq!(reserved_bytes(&larum), 0.0);
}

#[test]
fn who_goes_away_in_the_middle_frees_the_answer() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let larum = start(dir.path(), &[]);
    let mut stream = ask(&larum, &long_query("many"), "");
    stream.read_exact(&mut [0; 100_000]).expect("the answer begins");
    assert!(reserved_bytes(&larum) > ANSWER_BYTES as f64 / 3.0);
    drop(stream);
    wait_until("the memory is free", Duration::from_secs(20), || reserved_bytes(&larum) == 0.0);
    assert_eq!(metric(&larum, "larum_http_slow_clients_total"), 0.0);
}

#[test]
fn who_does_not_read_is_cut_off() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let larum = start(dir.path(), &["--web.write-timeout=500ms"]);
    let mut stream = ask(&larum, &long_query("many"), "");
    stream.read_exact(&mut [0; 100_000]).expect("the answer begins");
    let slow = "larum_http_slow_clients_total";
    wait_until("the client is given up", Duration::from_secs(20), || metric(&larum, slow) == 1.0);
    wait_until("the memory is free", Duration::from_secs(20), || reserved_bytes(&larum) == 0.0);
    // What is left of it ends without the last chunk, or with a reset connection.
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    assert!(end.is_err() || !rest.ends_with(b"0\r\n\r\n"), "the answer seems whole");
}

#[test]
fn long_answers_are_compressed_for_who_asks_for_it_and_say_the_same() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let larum = start(dir.path(), &[]);
    let gunzip = |body: &[u8]| {
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(body).read_to_end(&mut text).expect("gzip");
        text
    };
    let unzstd = |body: &[u8]| zstd::stream::decode_all(body).expect("zstd");
    let paths = [
        long_query("few"),
        format!("/api/v1/query?query=many&time={}", now_ms() / 1000 + 1),
        "/api/v1/series?match%5B%5D=many".to_owned(),
        "/api/v1/label/instance/values".to_owned(),
    ];
    for path in &paths {
        let (head, plain) = read_whole(ask(&larum, path, ""));
        assert!(
            !head.contains("content-encoding") && head.contains("vary: accept-encoding"),
            "{path}: {head}"
        );
        let (head, zipped) = read_whole(ask(&larum, path, "Accept-Encoding: gzip\r\n"));
        assert!(
            head.contains("content-encoding: gzip") && head.contains("vary: accept-encoding"),
            "{path}: {head}"
        );
        assert!(zipped.len() * 2 < plain.len() && gunzip(&zipped) == plain, "{path}");
        let (head, zipped) = read_whole(ask(&larum, path, "Accept-Encoding: gzip, deflate, br, zstd\r\n"));
        assert!(head.contains("content-encoding: zstd"), "{path}: {head}");
        assert!(zipped.len() * 2 < plain.len() && unzstd(&zipped) == plain, "{path}");
    }
    let (head, page) = read_whole(ask(&larum, "/metrics", "Accept-Encoding: gzip\r\n"));
    assert!(head.contains("content-encoding: gzip") && gunzip(&page).starts_with(b"# HELP"), "{head}");

    let short = "/api/v1/query?query=1";
    let (head, plain) = read_whole(ask(&larum, short, "Accept-Encoding: gzip, zstd\r\n"));
    assert!(!head.contains("content-encoding") && plain.starts_with(b"{\"status\":\"success\""), "{head}");
    let (head, zipped) = read_whole(ask(&larum, short, "Accept-Encoding: gzip, identity;q=0\r\n"));
    assert!(head.contains("content-encoding: gzip") && gunzip(&zipped).starts_with(b"{\"status\""), "{head}");
    let (head, _) = read_whole(ask(&larum, short, "Accept-Encoding: br, *;q=0\r\n"));
    assert!(head.starts_with("http/1.1 406"), "{head}");
    // Both who may read it and how it is sent matter to a cache.
    let origin = format!("Accept-Encoding: gzip\r\nOrigin: http://localhost:{}\r\n", larum.port);
    let (head, _) = read_whole(ask(&larum, &paths[1], &origin));
    assert!(head.contains("vary: accept-encoding"), "{head}");
    assert_eq!(reserved_bytes(&larum), 0.0);
}
