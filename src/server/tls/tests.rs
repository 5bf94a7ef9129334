//! Servers on loopback whose certificates are made here: which are trusted, and which not.

use super::*;
use crate::server::http_client::{HttpClient, HttpClientConfig};
use axum::body::Bytes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

/// A certificate and its key, in PEM.
#[derive(Clone)]
struct Pair {
    cert: String,
    key: String,
}

/// Who vouches for others.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert: String,
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

impl Authority {
    fn new() -> Authority {
        let mut params = params(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), cert }
    }

    /// A certificate for these names.
    fn vouch(&self, names: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let cert = params(names).signed_by(&key, &self.issuer).unwrap().pem();
        Pair { cert, key: key.serialize_pem() }
    }
}

/// One that was made for oneself, as `openssl req -x509` does it: it may vouch for others too.
fn self_made(names: &[&str]) -> Pair {
    let mut params = params(names);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    Pair { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

/// Serves with a certificate, to clients that `clients` vouches for if given; returns the address.
fn serve(pair: &Pair, clients: Option<&Authority>, versions: Versions) -> String {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions.list())
        .unwrap();
    let builder = match clients {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(&authority.cert).unwrap());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let config = Arc::new(builder.with_single_cert(certificates(&pair.cert).unwrap(), key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let session = ServerConnection::new(config.clone()).unwrap();
            let mut stream = BufReader::new(StreamOwned::new(session, connection));
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let stream = stream.get_mut();
            // A client that does not trust this server has gone by now.
            let _ = stream.write_all(answer).and_then(|()| stream.flush());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    url
}

fn text(text: &str) -> Option<Secret> {
    Some(Secret::Text(text.to_owned()))
}

fn client(tls: TlsConfig) -> HttpClient {
    HttpClient::new(HttpClientConfig { tls, ..HttpClientConfig::default() })
}

/// The status of a post, or why there is none.
async fn post(client: &HttpClient, url: &str) -> Result<u16, String> {
    let answer = client.prepare()?.post_json(url, Bytes::from_static(b"[]")).await;
    answer.map(|(status, _)| status.as_u16())
}

fn trusting(ca: &str) -> TlsConfig {
    TlsConfig { ca: text(ca), ..TlsConfig::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_must_be_vouched_for_by_whom_the_configuration_trusts() {
    let authority = Authority::new();
    let url = serve(&authority.vouch(&["127.0.0.1"]), None, Versions::All);
    assert_eq!(post(&client(trusting(&authority.cert)), &url).await, Ok(200));
    let stranger = Authority::new();
    for tls in [trusting(&stranger.cert), TlsConfig::default()] {
        let error = post(&client(tls), &url).await.unwrap_err();
        assert!(
            error.contains("invalid peer certificate") || error.contains("the system trusts no"),
            "{error}"
        );
    }
    let any = TlsConfig { insecure_skip_verify: true, ..TlsConfig::default() };
    assert_eq!(post(&client(any), &url).await, Ok(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_certificate_is_of_the_host_or_of_the_server_name() {
    let authority = Authority::new();
    let url = serve(&authority.vouch(&["am.example"]), None, Versions::All);
    let error = post(&client(trusting(&authority.cert)), &url).await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
    let server_name = Some(ServerName::try_from("am.example").unwrap());
    let named = TlsConfig { server_name, ..trusting(&authority.cert) };
    assert_eq!(post(&client(named), &url).await, Ok(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_certificate_made_for_oneself_is_trusted_if_it_is_the_very_one() {
    let own = self_made(&["127.0.0.1"]);
    let url = serve(&own, None, Versions::All);
    assert_eq!(post(&client(trusting(&own.cert)), &url).await, Ok(200));
    let other = self_made(&["127.0.0.1"]);
    assert!(post(&client(trusting(&other.cert)), &url).await.is_err());
    let elsewhere = self_made(&["am.example"]);
    let url = serve(&elsewhere, None, Versions::All);
    let error = post(&client(trusting(&elsewhere.cert)), &url).await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_shows_its_certificate_to_whom_asks_for_it() {
    let authority = Authority::new();
    let url = serve(&authority.vouch(&["127.0.0.1"]), Some(&authority), Versions::All);
    let tls = trusting(&authority.cert);
    assert!(post(&client(tls.clone()), &url).await.is_err());
    let own = authority.vouch(&["larum"]);
    let tls = TlsConfig { cert: text(&own.cert), key: text(&own.key), ..tls };
    assert_eq!(tls.check(), Ok(()));
    assert_eq!(post(&client(tls), &url).await, Ok(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn versions_are_spoken_as_configured() {
    let authority = Authority::new();
    let url = serve(&authority.vouch(&["127.0.0.1"]), None, Versions::Only12);
    for (versions, works) in [(Versions::All, true), (Versions::Only12, true), (Versions::Only13, false)] {
        let tls = TlsConfig { versions, ..trusting(&authority.cert) };
        assert_eq!(post(&client(tls), &url).await.is_ok(), works, "{versions:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_file_of_certificates_counts_as_it_is_now() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let authority = Authority::new();
    let url = serve(&authority.vouch(&["127.0.0.1"]), None, Versions::All);
    let client = client(TlsConfig { ca: Some(Secret::File(file.clone())), ..TlsConfig::default() });
    for (held, expected) in [
        (None, "ca.pem: No such file"),
        (Some(Authority::new().cert), "invalid peer certificate"),
        (Some("nothing".to_owned()), "holds no certificate in PEM"),
    ] {
        if let Some(held) = held {
            std::fs::write(&file, held).unwrap();
        }
        let error = post(&client, &url).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    std::fs::write(&file, &authority.cert).unwrap();
    assert_eq!(post(&client, &url).await, Ok(200));
}

#[test]
fn what_is_wrong_with_the_files_is_told_of_the_right_one() {
    let (one, two) = (self_made(&["one"]), self_made(&["two"]));
    let identity =
        |cert: &str, key: &str| TlsConfig { cert: text(cert), key: text(key), ..TlsConfig::default() };
    for (tls, key, expected) in [
        (trusting(""), Key::Ca, "holds no certificate in PEM"),
        (trusting("-----BEGIN CERTIFICATE-----\n?"), Key::Ca, "holds"),
        (identity("", &one.key), Key::Cert, "holds no certificate in PEM"),
        (identity(&one.cert, ""), Key::Key, "holds no private key in PEM"),
        (identity(&one.cert, &two.key), Key::Key, ""),
    ] {
        let error = tls.check().unwrap_err();
        assert!(error.key == key && error.message.contains(expected), "{error:?}");
    }
}
