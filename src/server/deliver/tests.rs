//! A made-up Alertmanager on loopback.

use super::*;
use crate::server::http_client::{Credentials, HttpClientConfig};
use crate::server::secret::Secret;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

const WAIT: Duration = Duration::from_secs(20);

/// Answers one request per connection with `status`, which may have header lines behind it, and
/// hands out head and body.
fn alertmanager(status: &str) -> (String, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/am/api/v2/alerts", listener.local_addr().unwrap());
    let status = status.to_owned();
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let mut reader = BufReader::new(connection);
            let (mut head, mut line) = (String::new(), String::new());
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                head.push_str(&line.to_ascii_lowercase());
                line.clear();
            }
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body).unwrap();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwhy?");
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
            if send.send((head, String::from_utf8(body).unwrap())).is_err() {
                return;
            }
        }
    });
    (url, receive)
}

fn transport(config: HttpClientConfig) -> HttpTransport {
    HttpTransport { runtime: Handle::current(), client: HttpClient::new(config), timeout: WAIT }
}

/// Sends from a thread of its own, as the notifier does.
fn send(config: &HttpClientConfig, url: &str) -> Result<(), SendError> {
    let (transport, url) = (transport(config.clone()), url.to_owned());
    std::thread::spawn(move || transport.send(&url, b"[]".to_vec())).join().unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::Text(text.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn alerts_are_posted_with_credentials_and_refusals_are_told_apart() {
    let config = HttpClientConfig {
        credentials: Credentials::Basic(secret("me"), secret("pass")),
        headers: vec![("x-scope-orgid".parse().unwrap(), secret("one"))],
        ..HttpClientConfig::default()
    };
    let (url, seen) = alertmanager("200 OK");
    assert_eq!(send(&config, &url), Ok(()));
    let (head, body) = seen.recv_timeout(WAIT).unwrap();
    assert!(head.starts_with("post /am/api/v2/alerts http/1.1"), "{head}");
    for line in ["authorization: basic bwu6cgfzcw==", "x-scope-orgid: one", "content-type: application/json"]
    {
        assert!(head.contains(line), "{line} in {head}");
    }
    assert_eq!(body, "[]");

    for (status, retry) in
        [("400 Bad Request", false), ("401 Unauthorized", true), ("404 Not Found", true), ("503 Busy", true)]
    {
        let (url, _seen) = alertmanager(status);
        let error = send(&config, &url).unwrap_err();
        assert_eq!(error.retry, retry, "{status}");
        assert!(error.what.ends_with(": why?"), "{}", error.what);
    }
    let error = send(&config, "http://127.0.0.1:1/").unwrap_err();
    assert!(error.retry && error.what.to_lowercase().contains("refused"), "{}", error.what);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn redirects_that_keep_the_alerts_are_followed_but_credentials_stay_at_home() {
    let config = HttpClientConfig {
        credentials: Credentials::Scheme("Bearer".to_owned(), secret("abc")),
        ..HttpClientConfig::default()
    };
    let (there, seen) = alertmanager("200 OK");
    let (url, _seen) = alertmanager(&format!("307 Temporary Redirect\r\nLocation: {there}"));
    assert_eq!(send(&config, &url), Ok(()));
    let (head, body) = seen.recv_timeout(WAIT).unwrap();
    assert!(head.starts_with("post ") && !head.contains("authorization"), "{head}");
    assert_eq!(body, "[]");

    let (around, _seen) = alertmanager("308 Permanent Redirect\r\nLocation: /again");
    let error = send(&config, &around).unwrap_err();
    assert!(error.retry && error.what.starts_with("more than 10 redirects"), "{}", error.what);

    let (lossy, _seen) = alertmanager("302 Found\r\nLocation: http://elsewhere/");
    let error = send(&config, &lossy).unwrap_err();
    assert!(
        error.what.contains("to http://elsewhere/: this redirect would lose what is sent"),
        "{}",
        error.what
    );

    let (stay, _seen) = alertmanager(&format!("307 Temporary Redirect\r\nLocation: {there}"));
    let error = send(&HttpClientConfig { follow_redirects: false, ..config }, &stay).unwrap_err();
    assert!(error.what.starts_with("307 "), "{}", error.what);
    assert!(seen.try_recv().is_err(), "nobody followed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_secret_file_that_is_gone_is_named_and_counts_once_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let credentials = Credentials::Scheme("Bearer".to_owned(), Secret::File(file.clone()));
    let config = HttpClientConfig { credentials, ..HttpClientConfig::default() };
    let (url, seen) = alertmanager("200 OK");
    let error = send(&config, &url).unwrap_err();
    assert!(error.retry && error.what.contains(&file.display().to_string()), "{}", error.what);
    std::fs::write(&file, "abc\n").unwrap();
    assert_eq!(send(&config, &url), Ok(()));
    assert!(seen.recv_timeout(WAIT).unwrap().0.contains("authorization: bearer abc\r\n"));
}
