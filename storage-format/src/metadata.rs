//! Metric metadata records (type, unit, help).

use crate::cursor::{Cursor, DecodeError};
use crate::varint::put_uvarint;

/// What kind of metric it is; the names are Prometheus'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum MetricType {
    /// The sender did not say.
    #[default]
    Unknown = 0,
    /// Only rises, but for resets.
    Counter = 1,
    /// Rises and falls.
    Gauge = 2,
    /// Observations in buckets, counted up.
    Histogram = 3,
    /// Observations in buckets that come and go.
    GaugeHistogram = 4,
    /// Observations with quantiles.
    Summary = 5,
    /// Always 1; the labels are the information.
    Info = 6,
    /// One series per state, 1 for those that hold.
    StateSet = 7,
}

impl MetricType {
    /// All types, in the order of their numbers.
    pub const ALL: [MetricType; 8] = [
        MetricType::Unknown,
        MetricType::Counter,
        MetricType::Gauge,
        MetricType::Histogram,
        MetricType::GaugeHistogram,
        MetricType::Summary,
        MetricType::Info,
        MetricType::StateSet,
    ];

    /// The name in the exposition format and in the HTTP API.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricType::Unknown => "unknown",
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
            MetricType::GaugeHistogram => "gaugehistogram",
            MetricType::Summary => "summary",
            MetricType::Info => "info",
            MetricType::StateSet => "stateset",
        }
    }

    /// The type of that name; `None` for a name that is none of ours.
    pub fn from_name(name: &str) -> Option<MetricType> {
        Self::ALL.into_iter().find(|t| t.as_str() == name)
    }
}

/// What a sender says about a metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct MetricMetadata {
    /// The name of the metric family.
    pub name: String,
    /// Its type.
    pub metric_type: MetricType,
    /// The unit, empty if the sender did not say.
    pub unit: String,
    /// What it means, for people.
    pub help: String,
}

impl MetricMetadata {
    /// Appends the record: `u8 type`, then name, unit and help, each with its length before it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.metric_type as u8);
        for text in [&self.name, &self.unit, &self.help] {
            put_uvarint(out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// A record that is cut, of an unknown type, or not UTF-8.
    pub fn decode(cursor: &mut Cursor<'_>) -> Result<MetricMetadata, DecodeError> {
        let start = cursor.clone();
        let number = cursor.u8("metric type")?;
        let Some(&metric_type) = MetricType::ALL.get(usize::from(number)) else {
            return Err(start.corrupt("metric type", "unknown"));
        };
        Ok(MetricMetadata {
            metric_type,
            name: cursor.text("metric name")?.to_owned(),
            unit: cursor.text("metric unit")?.to_owned(),
            help: cursor.text("metric help")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_number_and_name() {
        for (number, metric_type) in MetricType::ALL.into_iter().enumerate() {
            assert_eq!(metric_type as usize, number);
            assert_eq!(MetricType::from_name(metric_type.as_str()), Some(metric_type));
        }
        assert_eq!(MetricType::from_name("Counter"), None);
    }

    #[test]
    fn a_record_comes_back_and_every_cut_is_refused() {
        let metadata = MetricMetadata {
            name: "http_requests_total".into(),
            metric_type: MetricType::Counter,
            unit: String::new(),
            help: "Requests, all of them: é.".into(),
        };
        let mut bytes = Vec::new();
        metadata.encode(&mut bytes);
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(MetricMetadata::decode(&mut cursor), Ok(metadata));
        assert!(cursor.is_empty());
        for cut in 0..bytes.len() {
            assert!(MetricMetadata::decode(&mut Cursor::new(&bytes[..cut])).is_err());
        }
        bytes[0] = 8;
        assert!(MetricMetadata::decode(&mut Cursor::new(&bytes)).is_err());
    }
}
