//! Structured logs on standard error: logfmt, or one JSON object a line.
//!
//! Keys are those of Tempo (`level`, `ts`, `caller`, `msg`), then the event's own fields, then the
//! fields of the spans around it.

use std::{
    fmt::{self, Write as _},
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// `level=info ts=… msg="…" key=value`
    #[default]
    Logfmt,
    /// `{"level":"info","ts":"…","msg":"…","key":"value"}`
    Json,
}

/// Sends log events of `level` and above to standard error, and spans to `own_traces`, if given.
/// Dependencies log from `warn` on. `RUST_LOG`, if set, decides instead.
///
/// # Errors
/// When a subscriber is installed already.
pub fn init(
    format: LogFormat,
    level: Level,
    own_traces: Option<opentelemetry_sdk::trace::SdkTracer>,
) -> Result<(), tracing_subscriber::util::TryInitError> {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,tempo={level}").to_lowercase()));
    let lines = tracing_subscriber::fmt::layer()
        .fmt_fields(FieldText)
        .event_format(LineFormat(format))
        .with_writer(StandardError);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(own_traces.map(|tracer| tracing_opentelemetry::layer().with_tracer(tracer)))
        .try_init()
}

struct StandardError;

impl<'a> MakeWriter<'a> for StandardError {
    type Writer = io::Stderr;
    fn make_writer(&'a self) -> io::Stderr {
        io::stderr()
    }
}

/// Fields of spans, kept as logfmt text; JSON lines carry them under `span`.
struct FieldText;

impl<'writer> FormatFields<'writer> for FieldText {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut line = Line::new(LogFormat::Logfmt);
        fields.record(&mut line);
        writer.write_str(line.text.trim_start())
    }
}

struct LineFormat(LogFormat);

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        let mut line = Line::new(self.0);
        line.pair("level", meta.level().as_str().to_ascii_lowercase());
        line.pair("ts", Timestamp(SystemTime::now()));
        if let (Some(file), Some(number)) = (meta.file(), meta.line()) {
            let file = file.rsplit('/').next().unwrap_or(file);
            line.pair("caller", format_args!("{file}:{number}"));
        }
        event.record(&mut line);
        if let Some(scope) = context.event_scope() {
            let mut spans = String::new();
            for span in scope.from_root() {
                if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                    && !fields.is_empty()
                {
                    if !spans.is_empty() {
                        spans.push(' ');
                    }
                    spans.push_str(fields);
                }
            }
            match self.0 {
                _ if spans.is_empty() => {}
                LogFormat::Json => line.pair("span", spans),
                LogFormat::Logfmt => {
                    line.text.push(' ');
                    line.text.push_str(&spans);
                }
            }
        }
        writeln!(writer, "{}", line.finish())
    }
}

struct Line {
    format: LogFormat,
    text: String,
}

impl Line {
    fn new(format: LogFormat) -> Self {
        Self {
            format,
            text: String::new(),
        }
    }

    fn pair(&mut self, key: &str, value: impl fmt::Display) {
        let key = if key == "message" { "msg" } else { key };
        let separator = match (self.format, self.text.is_empty()) {
            (LogFormat::Logfmt, true) => "",
            (LogFormat::Logfmt, false) => " ",
            (LogFormat::Json, true) => "{",
            (LogFormat::Json, false) => ",",
        };
        self.text.push_str(separator);
        let value = value.to_string();
        match self.format {
            LogFormat::Json => {
                quote(&mut self.text, key);
                self.text.push(':');
                quote(&mut self.text, &value);
            }
            LogFormat::Logfmt => {
                self.text.push_str(key);
                self.text.push('=');
                if value.is_empty() || value.contains(|c: char| c <= ' ' || "\"=\\".contains(c)) {
                    quote(&mut self.text, &value);
                } else {
                    self.text.push_str(&value);
                }
            }
        }
    }

    fn finish(mut self) -> String {
        if self.format == LogFormat::Json {
            self.text.push('}');
        }
        self.text
    }
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.pair(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.pair(field.name(), format_args!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        // The causes are what tells a person what to do.
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.pair(field.name(), text);
    }
}

/// RFC 3339 in UTC with nanoseconds.
struct Timestamp(SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil_date(days as i64);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
            second / 3600,
            second / 60 % 60,
            second % 60,
            since.subsec_nanos()
        )
    }
}

/// The Gregorian date of a day number since 1970-01-01, by counting in 400-year eras that begin
/// on 1 March, so that the leap day is the last of its year.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timestamps_are_rfc3339() {
        let at = |seconds, nanos| Timestamp(UNIX_EPOCH + Duration::new(seconds, nanos)).to_string();
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_399, 1), "2000-02-28T23:59:59.000000001Z");
        assert_eq!(at(951_782_400, 0), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(at(1_709_251_200, 0), "2024-03-01T00:00:00.000000000Z");
        assert_eq!(
            at(4_102_444_799, 999_999_999),
            "2099-12-31T23:59:59.999999999Z"
        );
    }

    #[test]
    fn values_are_quoted_only_when_needed() {
        let mut line = Line::new(LogFormat::Logfmt);
        line.pair("message", "block written");
        line.pair("tenant", "a");
        line.pair("path", "x=\"1\"\n");
        assert_eq!(
            line.finish(),
            r#"msg="block written" tenant=a path="x=\"1\"\n""#
        );
        let mut line = Line::new(LogFormat::Json);
        line.pair("message", "block written");
        line.pair("bytes", 5);
        assert_eq!(line.finish(), r#"{"msg":"block written","bytes":"5"}"#);
    }
}
