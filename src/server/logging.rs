//! Log lines on stderr: logfmt or JSON, with the fields `time`, `level` and `msg` first.

use super::args::{LogFormat, LogLevel};
use std::fmt::{self, Write as _};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Sends what this process logs to stderr. Only the first call has an effect.
pub fn init(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Info => Level::INFO,
        LogLevel::Warn => Level::WARN,
        LogLevel::Error => Level::ERROR,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .event_format(Line(format))
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Formats one event as one line.
struct Line(LogFormat);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields { message: String::new(), rest: Vec::new() };
        event.record(&mut fields);
        let mut line = String::new();
        let now = jiff::Timestamp::now();
        let head = [
            ("time", format!("{now:.3}")),
            ("level", event.metadata().level().to_string()),
            ("msg", fields.message),
        ];
        let all = head.into_iter().chain(fields.rest);
        match self.0 {
            LogFormat::Logfmt => {
                for (i, (name, value)) in all.enumerate() {
                    let space = if i > 0 { " " } else { "" };
                    write!(line, "{space}{name}=")?;
                    let plain = !value.is_empty()
                        && value.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'=' | b'\\'));
                    if plain {
                        line.push_str(&value);
                    } else {
                        larum_storage_format::labels::write_quoted(&mut line, &value)?;
                    }
                }
            }
            LogFormat::Json => {
                for (i, (name, value)) in all.enumerate() {
                    let before = if i > 0 { "," } else { "{" };
                    let value = serde_json::Value::String(value);
                    write!(line, "{before}\"{name}\":{value}")?;
                }
                line.push('}');
            }
        }
        writeln!(writer, "{line}")
    }
}

/// The fields of an event as text.
struct Fields {
    message: String,
    rest: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.rest.push((field.name(), value));
        }
    }
}
