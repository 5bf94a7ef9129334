//! A made-up Alertmanager on loopback.

use super::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Answers one request per connection with `status`, and hands out head and body.
fn alertmanager(status: &'static str) -> (Target, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/am/api/v2/alerts", listener.local_addr().unwrap());
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
    (Target { url, timeout: Duration::from_secs(20) }, receive)
}

/// Sends from a thread of its own, as the notifier does.
fn send(transport: &Arc<HttpTransport>, target: &Target) -> Result<(), SendError> {
    let (transport, target) = (transport.clone(), target.clone());
    std::thread::spawn(move || transport.send(&target, b"[]")).join().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn alerts_are_posted_with_credentials_and_refusals_are_told_apart() {
    let transport = Arc::new(HttpTransport::new(Handle::current()));
    let (target, seen) = alertmanager("200 OK");
    transport.configure(&[AlertmanagerConfig {
        url: target.url.clone(),
        timeout: target.timeout,
        authorization: Some("Basic abc".to_owned()),
    }]);
    assert_eq!(send(&transport, &target), Ok(()));
    let (head, body) = seen.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(head.starts_with("post /am/api/v2/alerts http/1.1"), "{head}");
    assert!(head.contains("authorization: basic abc") && head.contains("content-type: application/json"));
    assert_eq!(body, "[]");

    let (target, _seen) = alertmanager("400 Bad Request");
    let refused = SendError { retry: false, what: "400 Bad Request: why?".to_owned() };
    assert_eq!(send(&transport, &target), Err(refused));
    let (target, _seen) = alertmanager("503 Service Unavailable");
    assert!(send(&transport, &target).unwrap_err().retry);
    let nobody = Target { url: "http://127.0.0.1:1/".to_owned(), timeout: Duration::from_secs(20) };
    let error = send(&transport, &nobody).unwrap_err();
    assert!(error.retry && error.what.to_lowercase().contains("refused"), "{}", error.what);
}
