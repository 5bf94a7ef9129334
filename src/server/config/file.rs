//! The shape of a Prometheus configuration file, as serde sees it.
//!
//! Every field that Prometheus 3.14 knows is named here, so that a misspelt one is an error at its
//! line; what nothing uses yet is read as [`IgnoredAny`].
#![expect(dead_code, reason = "a field that is only named is still a known field")]

use crate::server::size::Bytes;
use crate::yaml::{PromDuration, Spanned, null_as_default};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    #[serde(deserialize_with = "null_as_default")]
    pub global: Global,
    #[serde(deserialize_with = "null_as_default")]
    pub rule_files: Vec<Spanned<String>>,
    #[serde(deserialize_with = "null_as_default")]
    pub scrape_config_files: Vec<Spanned<String>>,
    #[serde(deserialize_with = "null_as_default")]
    pub scrape_configs: Vec<ScrapeConfig>,
    #[serde(deserialize_with = "null_as_default")]
    pub alerting: Alerting,
    #[serde(deserialize_with = "null_as_default")]
    pub remote_write: Vec<IgnoredAny>,
    #[serde(deserialize_with = "null_as_default")]
    pub remote_read: Vec<IgnoredAny>,
    #[serde(deserialize_with = "null_as_default")]
    pub storage: StorageSection,
    pub otlp: Option<IgnoredAny>,
    pub tracing: Option<IgnoredAny>,
    pub runtime: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Global {
    pub scrape_interval: Option<PromDuration>,
    pub scrape_timeout: Option<Spanned<PromDuration>>,
    pub evaluation_interval: Option<Spanned<PromDuration>>,
    pub rule_query_offset: Option<PromDuration>,
    #[serde(deserialize_with = "null_as_default")]
    pub external_labels: BTreeMap<String, Spanned<String>>,
    pub query_log_file: Option<Spanned<String>>,
    pub scrape_failure_log_file: Option<IgnoredAny>,
    pub scrape_protocols: Option<IgnoredAny>,
    pub scrape_native_histograms: Option<IgnoredAny>,
    pub always_scrape_classic_histograms: Option<IgnoredAny>,
    pub convert_classic_histograms_to_nhcb: Option<IgnoredAny>,
    pub extra_scrape_metrics: Option<IgnoredAny>,
    pub body_size_limit: Option<IgnoredAny>,
    pub sample_limit: Option<IgnoredAny>,
    pub target_limit: Option<IgnoredAny>,
    pub label_limit: Option<IgnoredAny>,
    pub label_name_length_limit: Option<IgnoredAny>,
    pub label_value_length_limit: Option<IgnoredAny>,
    pub keep_dropped_targets: Option<IgnoredAny>,
    pub metric_name_validation_scheme: Option<IgnoredAny>,
    pub metric_name_escaping_scheme: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScrapeConfig {
    pub job_name: Spanned<String>,
    pub scrape_interval: Option<PromDuration>,
    pub scrape_timeout: Option<Spanned<PromDuration>>,
    pub metrics_path: Option<String>,
    pub scheme: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub static_configs: Vec<StaticConfig>,
    pub params: Option<BTreeMap<String, Vec<String>>>,
    pub honor_labels: Option<bool>,
    pub honor_timestamps: Option<bool>,
    pub track_timestamps_staleness: Option<bool>,
    pub scrape_protocols: Option<IgnoredAny>,
    pub fallback_scrape_protocol: Option<IgnoredAny>,
    pub scrape_native_histograms: Option<IgnoredAny>,
    pub always_scrape_classic_histograms: Option<IgnoredAny>,
    pub convert_classic_histograms_to_nhcb: Option<IgnoredAny>,
    pub extra_scrape_metrics: Option<IgnoredAny>,
    pub scrape_failure_log_file: Option<IgnoredAny>,
    pub enable_compression: Option<bool>,
    pub body_size_limit: Option<IgnoredAny>,
    pub sample_limit: Option<IgnoredAny>,
    pub target_limit: Option<IgnoredAny>,
    pub label_limit: Option<IgnoredAny>,
    pub label_name_length_limit: Option<IgnoredAny>,
    pub label_value_length_limit: Option<IgnoredAny>,
    pub keep_dropped_targets: Option<IgnoredAny>,
    pub native_histogram_bucket_limit: Option<IgnoredAny>,
    pub native_histogram_min_bucket_factor: Option<IgnoredAny>,
    pub metric_name_validation_scheme: Option<IgnoredAny>,
    pub metric_name_escaping_scheme: Option<IgnoredAny>,
    pub relabel_configs: Option<IgnoredAny>,
    pub metric_relabel_configs: Option<IgnoredAny>,
    // How targets are asked.
    pub basic_auth: Option<IgnoredAny>,
    pub authorization: Option<IgnoredAny>,
    pub oauth2: Option<IgnoredAny>,
    pub bearer_token: Option<IgnoredAny>,
    pub bearer_token_file: Option<IgnoredAny>,
    pub tls_config: Option<IgnoredAny>,
    pub follow_redirects: Option<IgnoredAny>,
    pub enable_http2: Option<IgnoredAny>,
    pub proxy_url: Option<IgnoredAny>,
    pub no_proxy: Option<IgnoredAny>,
    pub proxy_from_environment: Option<IgnoredAny>,
    pub proxy_connect_header: Option<IgnoredAny>,
    pub http_headers: Option<IgnoredAny>,
    // Where targets are found.
    pub aws_sd_configs: Option<IgnoredAny>,
    pub azure_sd_configs: Option<IgnoredAny>,
    pub consul_sd_configs: Option<IgnoredAny>,
    pub digitalocean_sd_configs: Option<IgnoredAny>,
    pub dns_sd_configs: Option<IgnoredAny>,
    pub docker_sd_configs: Option<IgnoredAny>,
    pub dockerswarm_sd_configs: Option<IgnoredAny>,
    pub ec2_sd_configs: Option<IgnoredAny>,
    pub eureka_sd_configs: Option<IgnoredAny>,
    pub file_sd_configs: Option<IgnoredAny>,
    pub gce_sd_configs: Option<IgnoredAny>,
    pub hetzner_sd_configs: Option<IgnoredAny>,
    pub http_sd_configs: Option<IgnoredAny>,
    pub ionos_sd_configs: Option<IgnoredAny>,
    pub kubernetes_sd_configs: Option<IgnoredAny>,
    pub kuma_sd_configs: Option<IgnoredAny>,
    pub lightsail_sd_configs: Option<IgnoredAny>,
    pub linode_sd_configs: Option<IgnoredAny>,
    pub marathon_sd_configs: Option<IgnoredAny>,
    pub nerve_sd_configs: Option<IgnoredAny>,
    pub nomad_sd_configs: Option<IgnoredAny>,
    pub oci_sd_configs: Option<IgnoredAny>,
    pub openstack_sd_configs: Option<IgnoredAny>,
    pub outscale_sd_configs: Option<IgnoredAny>,
    pub ovhcloud_sd_configs: Option<IgnoredAny>,
    pub puppetdb_sd_configs: Option<IgnoredAny>,
    pub scaleway_sd_configs: Option<IgnoredAny>,
    pub serverset_sd_configs: Option<IgnoredAny>,
    pub stackit_sd_configs: Option<IgnoredAny>,
    pub triton_sd_configs: Option<IgnoredAny>,
    pub uyuni_sd_configs: Option<IgnoredAny>,
    pub vultr_sd_configs: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StaticConfig {
    #[serde(default, deserialize_with = "null_as_default")]
    pub targets: Vec<Spanned<String>>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Alerting {
    #[serde(deserialize_with = "null_as_default")]
    pub alert_relabel_configs: Vec<Spanned<Relabel>>,
    #[serde(deserialize_with = "null_as_default")]
    pub alertmanagers: Vec<Alertmanager>,
}

/// The section of an Alertmanager: what is used of it, and what is refused by its name.
macro_rules! alertmanager {
    ($($refused:ident)*) => {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct Alertmanager {
            pub scheme: Option<Spanned<String>>,
            pub path_prefix: Option<String>,
            pub timeout: Option<Spanned<PromDuration>>,
            pub api_version: Option<Spanned<String>>,
            #[serde(deserialize_with = "null_as_default")]
            pub relabel_configs: Vec<Spanned<Relabel>>,
            #[serde(deserialize_with = "null_as_default")]
            pub alert_relabel_configs: Vec<Spanned<Relabel>>,
            // Where they are.
            #[serde(deserialize_with = "null_as_default")]
            pub static_configs: Vec<StaticConfig>,
            #[serde(deserialize_with = "null_as_default")]
            pub file_sd_configs: Vec<Spanned<FileSd>>,
            // How they are asked.
            pub basic_auth: Option<Spanned<BasicAuth>>,
            pub authorization: Option<Spanned<Authorization>>,
            pub bearer_token: Option<Spanned<String>>,
            pub bearer_token_file: Option<Spanned<String>>,
            pub tls_config: Option<Spanned<Tls>>,
            pub follow_redirects: Option<bool>,
            pub enable_http2: Option<bool>,
            #[serde(deserialize_with = "null_as_default")]
            pub http_headers: BTreeMap<String, Spanned<Header>>,
            $(pub $refused: Option<Spanned<IgnoredAny>>,)*
        }

        impl Alertmanager {
            /// What Prometheus knows and nothing here does.
            pub fn refused(&self) -> impl Iterator<Item = (&'static str, &Spanned<IgnoredAny>)> {
                let all = [$((stringify!($refused), &self.$refused)),*];
                all.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)))
            }
        }
    };
}

alertmanager! {
    oauth2 sigv4 proxy_url no_proxy proxy_from_environment proxy_connect_header
    aws_sd_configs azure_sd_configs consul_sd_configs digitalocean_sd_configs dns_sd_configs docker_sd_configs
    dockerswarm_sd_configs ec2_sd_configs eureka_sd_configs gce_sd_configs hetzner_sd_configs http_sd_configs
    ionos_sd_configs kubernetes_sd_configs kuma_sd_configs lightsail_sd_configs linode_sd_configs
    marathon_sd_configs nerve_sd_configs nomad_sd_configs oci_sd_configs openstack_sd_configs outscale_sd_configs
    ovhcloud_sd_configs puppetdb_sd_configs scaleway_sd_configs serverset_sd_configs stackit_sd_configs
    triton_sd_configs uyuni_sd_configs vultr_sd_configs
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Relabel {
    #[serde(deserialize_with = "null_as_default")]
    pub source_labels: Vec<String>,
    pub separator: Option<String>,
    pub regex: Option<Spanned<String>>,
    pub modulus: Option<u64>,
    pub target_label: Option<Spanned<String>>,
    pub replacement: Option<Spanned<String>>,
    pub action: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileSd {
    #[serde(default, deserialize_with = "null_as_default")]
    pub files: Vec<Spanned<String>>,
    pub refresh_interval: Option<Spanned<PromDuration>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BasicAuth {
    pub username: Option<String>,
    pub username_file: Option<Spanned<String>>,
    pub password: Option<String>,
    pub password_file: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Authorization {
    #[serde(rename = "type")]
    pub kind: Option<Spanned<String>>,
    pub credentials: Option<String>,
    pub credentials_file: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    pub ca: Option<Spanned<String>>,
    pub ca_file: Option<Spanned<String>>,
    pub cert: Option<Spanned<String>>,
    pub cert_file: Option<Spanned<String>>,
    pub key: Option<Spanned<String>>,
    pub key_file: Option<Spanned<String>>,
    pub server_name: Option<Spanned<String>>,
    #[serde(deserialize_with = "null_as_default")]
    pub insecure_skip_verify: bool,
    pub min_version: Option<Spanned<String>>,
    pub max_version: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Header {
    #[serde(deserialize_with = "null_as_default")]
    pub values: Vec<Spanned<String>>,
    #[serde(deserialize_with = "null_as_default")]
    pub secrets: Vec<Spanned<String>>,
    #[serde(deserialize_with = "null_as_default")]
    pub files: Vec<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StorageSection {
    #[serde(deserialize_with = "null_as_default")]
    pub tsdb: TsdbSection,
    /// Not Prometheus': how long the series of selectors are kept.
    #[serde(deserialize_with = "null_as_default")]
    pub retention: Vec<PolicySection>,
    /// Not Prometheus': when what has expired is removed.
    pub cleanup_schedule: Option<Spanned<String>>,
    pub exemplars: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicySection {
    #[serde(rename = "match")]
    pub selector: Spanned<String>,
    pub keep: PromDuration,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TsdbSection {
    pub out_of_order_time_window: Option<IgnoredAny>,
    pub stale_series_compaction_threshold: Option<IgnoredAny>,
    pub chunk_encoding: Option<IgnoredAny>,
    #[serde(deserialize_with = "null_as_default")]
    pub retention: RetentionSection,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RetentionSection {
    pub time: Option<PromDuration>,
    pub size: Option<Bytes>,
    pub percentage: Option<Spanned<f64>>,
}
