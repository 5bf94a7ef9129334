//! The section `alerting`: what is done to alerts, who the Alertmanagers are, and how they are asked.

use super::Checks;
use super::file;
use crate::relabel::{Key, Rule, RuleText};
use crate::server::deliver::{TargetRules, alerts_path};
use crate::server::discovery::{TargetGroup, files::FileSdConfig};
use crate::server::http_client::{Credentials, HttpClientConfig};
use crate::server::secret::Secret;
use crate::server::tls::{self, TlsConfig, Versions};
use crate::yaml::{FileError, Spanned};
use axum::http::{HeaderName, HeaderValue};
use rustls::pki_types::ServerName;
use std::time::Duration;

/// Who is told of alerts, and how.
#[derive(Debug, Clone, Default)]
pub struct AlertingConfig {
    /// What is done to the labels of every alert.
    pub alert_relabel: Vec<Rule>,
    /// The Alertmanagers.
    pub alertmanagers: Vec<AlertmanagerConfig>,
}

/// Alertmanagers that are found and asked in the same way.
#[derive(Debug, Clone)]
pub struct AlertmanagerConfig {
    /// How their addresses are made of targets.
    pub rules: TargetRules,
    /// What is done to the labels of alerts that they are told of.
    pub alert_relabel: Vec<Rule>,
    /// How long one request may take.
    pub timeout: Duration,
    /// How they are asked.
    pub http: HttpClientConfig,
    /// Targets that stand in the file.
    pub static_groups: Vec<TargetGroup>,
    /// Targets in files of their own.
    pub file_sd: Vec<FileSdConfig>,
}

const TIMEOUT: Duration = Duration::from_secs(10);
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// Headers that users cannot set, as in Prometheus.
const RESERVED_HEADERS: [&str; 18] = [
    "authorization",
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
    "x-prometheus-scrape-timeout-seconds",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

impl Checks<'_> {
    pub(super) fn alerting(&self, section: file::Alerting) -> Result<AlertingConfig, FileError> {
        let alertmanagers = section.alertmanagers.into_iter().map(|section| self.alertmanager(section));
        Ok(AlertingConfig {
            alert_relabel: self.relabel(section.alert_relabel_configs)?,
            alertmanagers: alertmanagers.collect::<Result<_, _>>()?,
        })
    }

    fn alertmanager(&self, mut section: file::Alertmanager) -> Result<AlertmanagerConfig, FileError> {
        if let Some((name, value)) = section.refused().next() {
            let instead = if name.ends_with("_sd_configs") {
                "use static_configs or file_sd_configs"
            } else if name.contains("proxy") {
                "Alertmanagers are asked without a proxy"
            } else {
                "use basic_auth, authorization or tls_config"
            };
            let message = format!("{name} of an Alertmanager is not supported: {instead}");
            return Err(FileError::at(self.path, value, message));
        }
        self.scheme(&section.scheme)?;
        if let Some(version) = &section.api_version
            && version.value != "v2"
        {
            let message = format!("expected Alertmanager api version to be v2 but got {}", version.value);
            return Err(FileError::at(self.path, version, message));
        }
        if let Some(timeout) = &section.timeout
            && timeout.value.0.is_zero()
        {
            return Err(FileError::at(self.path, timeout, "timeout must be longer than 0"));
        }
        let rules = TargetRules {
            scheme: section.scheme.take().map_or_else(|| "http".to_owned(), |scheme| scheme.value),
            path: alerts_path(section.path_prefix.as_deref().unwrap_or("")),
            relabel: self.relabel(std::mem::take(&mut section.relabel_configs))?,
        };
        let mut static_groups = Vec::new();
        for config in std::mem::take(&mut section.static_configs) {
            let of_labels = TargetGroup { targets: Vec::new(), labels: config.labels };
            for target in &config.targets {
                let found = rules.apply(&of_labels, &target.value);
                found.map_err(|error| FileError::at(self.path, target, error))?;
            }
            let targets = config.targets.into_iter().map(|target| target.value).collect();
            static_groups.push(TargetGroup { targets, ..of_labels });
        }
        let file_sd = std::mem::take(&mut section.file_sd_configs).into_iter();
        Ok(AlertmanagerConfig {
            rules,
            alert_relabel: self.relabel(std::mem::take(&mut section.alert_relabel_configs))?,
            timeout: section.timeout.as_ref().map_or(TIMEOUT, |timeout| timeout.value.0),
            static_groups,
            file_sd: file_sd.map(|config| self.file_sd(config)).collect::<Result<_, _>>()?,
            http: self.http_client(section)?,
        })
    }

    /// Rules of relabelling.
    fn relabel(&self, sections: Vec<Spanned<file::Relabel>>) -> Result<Vec<Rule>, FileError> {
        let rule = |section: Spanned<file::Relabel>| {
            let text = |value: &Option<Spanned<String>>| value.as_ref().map(|value| value.value.clone());
            let file::Relabel { source_labels, separator, regex, modulus, target_label, replacement, action } =
                &section.value;
            let written = RuleText {
                source_labels: source_labels.clone(),
                separator: separator.clone(),
                regex: text(regex),
                modulus: *modulus,
                target_label: text(target_label),
                replacement: text(replacement),
                action: text(action),
            };
            Rule::new(written).map_err(|error| {
                let place = match error.key {
                    Key::Action => action,
                    Key::Regex => regex,
                    Key::TargetLabel => target_label,
                    Key::Replacement => replacement,
                };
                match place {
                    Some(place) => FileError::at(self.path, place, error),
                    None => FileError::at(self.path, &section, error),
                }
            })
        };
        sections.into_iter().map(rule).collect()
    }

    fn file_sd(&self, section: Spanned<file::FileSd>) -> Result<FileSdConfig, FileError> {
        if section.value.files.is_empty() {
            let message = "file service discovery config must contain at least one path name";
            return Err(FileError::at(self.path, &section, message));
        }
        let refresh_interval = match &section.value.refresh_interval {
            Some(interval) if interval.value.0.is_zero() => {
                return Err(FileError::at(self.path, interval, "refresh_interval must be longer than 0"));
            }
            interval => interval.as_ref().map_or(REFRESH_INTERVAL, |interval| interval.value.0),
        };
        let mut files = Vec::new();
        for name in &section.value.files {
            if !is_target_file(&name.value) {
                let message = format!(
                    "path name {:?} is not valid for file discovery: it must end with .json, .yml or .yaml, and \
                     wildcards may stand in its last part only",
                    name.value
                );
                return Err(FileError::at(self.path, name, message));
            }
            files.push(self.beside(&name.value));
        }
        Ok(FileSdConfig { files, refresh_interval })
    }

    fn http_client(&self, section: file::Alertmanager) -> Result<HttpClientConfig, FileError> {
        let mut headers = Vec::new();
        for (name, header) in &section.http_headers {
            let fault = |message: String| Err(FileError::at(self.path, header, message));
            let known = name.to_ascii_lowercase();
            if RESERVED_HEADERS.contains(&known.as_str()) {
                return fault(format!("setting header {name:?} is not allowed"));
            }
            let Ok(known) = known.parse::<HeaderName>() else {
                return fault(format!("{name:?} is no name of a header"));
            };
            let file::Header { values, secrets, files } = &header.value;
            for text in values.iter().chain(secrets) {
                headers.push((known.clone(), Secret::Text(text.value.clone())));
                if HeaderValue::from_str(&text.value).is_err() {
                    let message = format!("the value of the header {name} holds a line break or a control");
                    return Err(FileError::at(self.path, text, message));
                }
            }
            for file in files {
                headers.push((known.clone(), self.secret_file(file)?));
            }
        }
        let tls = section.tls_config.as_ref().map(|section| self.tls(section)).transpose()?;
        Ok(HttpClientConfig {
            follow_redirects: section.follow_redirects.unwrap_or(true),
            credentials: self.credentials(section)?,
            tls: tls.unwrap_or_default(),
            headers,
        })
    }

    /// At most one way to say who asks.
    fn credentials(&self, section: file::Alertmanager) -> Result<Credentials, FileError> {
        let file::Alertmanager { basic_auth, authorization, bearer_token, bearer_token_file, .. } = section;
        let bearer = bearer_token.as_ref().or(bearer_token_file.as_ref());
        if let (Some(_), Some(second)) = (&bearer_token, &bearer_token_file) {
            let message = "at most one of bearer_token & bearer_token_file must be configured";
            return Err(FileError::at(self.path, second, message));
        }
        if let (Some(_), Some(second)) = (&basic_auth, bearer) {
            let message =
                "at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured";
            return Err(FileError::at(self.path, second, message));
        }
        if let (Some(_), Some(second)) = (&authorization, bearer) {
            let message = "authorization is not compatible with bearer_token & bearer_token_file";
            return Err(FileError::at(self.path, second, message));
        }
        if let (Some(_), Some(second)) = (&basic_auth, &authorization) {
            let message = "at most one of basic_auth, oauth2 & authorization must be configured";
            return Err(FileError::at(self.path, second, message));
        }
        if let Some(basic) = basic_auth {
            let file::BasicAuth { username, username_file, password, password_file } = &basic.value;
            let user = self.secret("basic_auth username & username_file", username, username_file)?;
            let password = self.secret("basic_auth password & password_file", password, password_file)?;
            self.usable(&basic, Credentials::Basic(user, password))
        } else if let Some(authorization) = authorization {
            let file::Authorization { kind, credentials, credentials_file } = &authorization.value;
            let name = kind.as_ref().map_or("", |kind| kind.value.trim());
            if let (true, Some(kind)) = (name.eq_ignore_ascii_case("basic"), kind) {
                let message = "authorization type cannot be set to \"basic\", use \"basic_auth\" instead";
                return Err(FileError::at(self.path, kind, message));
            }
            let keys = "authorization credentials & credentials_file";
            let name = if name.is_empty() { "Bearer" } else { name }.to_owned();
            let secret = self.secret(keys, credentials, credentials_file)?;
            self.usable(&authorization, Credentials::Scheme(name, secret))
        } else if let Some(token) = bearer_token {
            let secret = Secret::Text(token.value.clone());
            self.usable(&token, Credentials::Scheme("Bearer".to_owned(), secret))
        } else if let Some(file) = bearer_token_file {
            let secret = self.secret_file(&file)?;
            self.usable(&file, Credentials::Scheme("Bearer".to_owned(), secret))
        } else {
            Ok(Credentials::None)
        }
    }

    /// The credentials, if they make a header.
    fn usable<T>(&self, place: &Spanned<T>, credentials: Credentials) -> Result<Credentials, FileError> {
        let config = HttpClientConfig { credentials, ..HttpClientConfig::default() };
        config.private_headers().map_err(|error| FileError::at(self.path, place, error))?;
        Ok(config.credentials)
    }

    /// A text or the file it is in; `keys` names the two.
    fn secret(
        &self,
        keys: &str,
        text: &Option<String>,
        file: &Option<Spanned<String>>,
    ) -> Result<Secret, FileError> {
        match (text, file) {
            (Some(_), Some(file)) => {
                let message = format!("at most one of {keys} must be configured");
                Err(FileError::at(self.path, file, message))
            }
            (_, Some(file)) => self.secret_file(file),
            (text, None) => Ok(Secret::Text(text.clone().unwrap_or_default())),
        }
    }

    /// A file that is there.
    fn secret_file(&self, file: &Spanned<String>) -> Result<Secret, FileError> {
        let secret = Secret::File(self.beside(&file.value));
        secret.read().map_err(|error| FileError::at(self.path, file, error))?;
        Ok(secret)
    }

    fn tls(&self, section: &Spanned<file::Tls>) -> Result<TlsConfig, FileError> {
        let file::Tls { ca, ca_file, cert, cert_file, key, key_file, server_name, .. } = &section.value;
        let either =
            |keys: &str, text: &Option<Spanned<String>>, file: &Option<Spanned<String>>| match (text, file) {
                (Some(_), Some(file)) => {
                    Err(FileError::at(self.path, file, format!("at most one of {keys} must be configured")))
                }
                (Some(text), None) => Ok(Some(Secret::Text(text.value.clone()))),
                (None, Some(file)) => Ok(Some(Secret::File(self.beside(&file.value)))),
                (None, None) => Ok(None),
            };
        let config = TlsConfig {
            ca: either("ca & ca_file", ca, ca_file)?,
            cert: either("cert & cert_file", cert, cert_file)?,
            key: either("key & key_file", key, key_file)?,
            server_name: server_name.as_ref().map(|name| self.server_name(name)).transpose()?,
            insecure_skip_verify: section.value.insecure_skip_verify,
            versions: self.versions(&section.value.min_version, &section.value.max_version)?,
        };
        let (cert, key) = (cert.as_ref().or(cert_file.as_ref()), key.as_ref().or(key_file.as_ref()));
        if let (Some(cert), None) = (cert, key) {
            let message =
                "exactly one of key or key_file must be configured when a client certificate is configured";
            return Err(FileError::at(self.path, cert, message));
        }
        if let (None, Some(key)) = (cert, key) {
            let message =
                "exactly one of cert or cert_file must be configured when a client key is configured";
            return Err(FileError::at(self.path, key, message));
        }
        config.check().map_err(|error| {
            let place = match error.key {
                tls::Key::Ca => ca.as_ref().or(ca_file.as_ref()),
                tls::Key::Cert => cert,
                tls::Key::Key => key,
            };
            let message = format!("tls_config: {error}");
            place.map_or_else(
                || FileError::at(self.path, section, &message),
                |place| FileError::at(self.path, place, &message),
            )
        })?;
        Ok(config)
    }

    fn server_name(&self, name: &Spanned<String>) -> Result<ServerName<'static>, FileError> {
        ServerName::try_from(name.value.clone()).map_err(|_| {
            FileError::at(self.path, name, format!("server_name {:?} is no name of a host", name.value))
        })
    }

    /// What lies between two versions. Those before 1.2 are broken, and not spoken.
    fn versions(
        &self,
        min: &Option<Spanned<String>>,
        max: &Option<Spanned<String>>,
    ) -> Result<Versions, FileError> {
        let number = |version: &Spanned<String>| match version.value.as_str() {
            "TLS10" => Ok(10),
            "TLS11" => Ok(11),
            "TLS12" => Ok(12),
            "TLS13" => Ok(13),
            other => Err(FileError::at(self.path, version, format!("unknown TLS version: {other}"))),
        };
        let least = min.as_ref().map_or(Ok(12), number)?;
        let most = max.as_ref().map_or(Ok(13), number)?;
        match (least <= 12, most, max) {
            (true, 12, _) => Ok(Versions::Only12),
            (_, 10..=12, Some(max)) => {
                let message = "max_version leaves nothing: TLS12 and TLS13 are spoken";
                Err(FileError::at(self.path, max, message))
            }
            (true, ..) => Ok(Versions::All),
            (false, ..) => Ok(Versions::Only13),
        }
    }
}

/// Whether a name fits `^[^*]*(\*[^/]*)?\.(json|yml|yaml|JSON|YML|YAML)$`, as Prometheus asks for.
fn is_target_file(name: &str) -> bool {
    let known = ["json", "yml", "yaml", "JSON", "YML", "YAML"];
    let has_extension = name.rsplit_once('.').is_some_and(|(_, extension)| known.contains(&extension));
    has_extension && name.split_once('*').is_none_or(|(_, rest)| !rest.contains('/'))
}
