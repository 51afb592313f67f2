//! Logging and counting of single spans, for finding out who sends what. Off by default: it costs
//! more than all else that the distributor does.

use std::fmt::Write;

use tempo_model::otlp::{AnyValueRef, KeyValueRef, SpanRef, WireError, resource_spans};

use crate::{
    config::{ReceivedSpansMetric, SpanLog},
    metrics::Metrics,
    otlp_json::{SPAN_KINDS, STATUS_CODES},
};

const STATUS_CODE_ERROR: i32 = 2;

/// Logs each span of `request` with `message`, which is `received` or `discarded`.
pub(crate) fn log_spans(request: &[u8], tenant: &str, message: &str, settings: SpanLog) {
    if settings.enabled {
        each_span(request, |span, resource_attributes, _| {
            if settings.filter_by_status_error && span.status_code != STATUS_CODE_ERROR {
                return;
            }
            let (trace_id, span_id) = (hex(span.trace_id), hex(span.span_id));
            if settings.include_all_attributes {
                let nanos = span
                    .end_time_unix_nano
                    .saturating_sub(span.start_time_unix_nano);
                tracing::info!(
                    tenant,
                    traceid = trace_id,
                    spanid = span_id,
                    span_name = %String::from_utf8_lossy(span.name),
                    span_duration_seconds = nanos as f64 / 1e9,
                    span_kind = enum_name(SPAN_KINDS, span.kind),
                    span_status = enum_name(STATUS_CODES, span.status_code),
                    attributes = attributes(resource_attributes, span),
                    "{message}"
                );
            } else {
                tracing::info!(tenant, traceid = trace_id, spanid = span_id, "{message}");
            }
        });
    }
}

/// Counts each span of `request` by name and service.
pub(crate) fn count_spans(
    request: &[u8],
    tenant: &str,
    metrics: &Metrics,
    settings: ReceivedSpansMetric,
) {
    if settings.enabled {
        each_span(request, |span, _, service| {
            if !settings.root_only || span.parent_span_id.is_empty() {
                metrics.debug_span(tenant, &String::from_utf8_lossy(span.name), service);
            }
        });
    }
}

/// Calls `visit` with each span, the attributes of its resource and the name of its service. Spans
/// that cannot be read are passed over: whoever logs has no say in what is accepted.
fn each_span(request: &[u8], mut visit: impl FnMut(&SpanRef<'_>, &[KeyValueRef<'_>], &str)) {
    for resource in resource_spans(request).flatten() {
        let Ok(attributes) = resource.resource_attributes() else {
            continue;
        };
        let attributes: Vec<_> = attributes.flatten().collect();
        let service = attributes.iter().find_map(|attribute| match attribute {
            KeyValueRef {
                key: b"service.name",
                value: AnyValueRef::String(name),
            } => Some(String::from_utf8_lossy(name)),
            _ => None,
        });
        let service = service.unwrap_or_default();
        for scope in resource.scope_spans().flatten() {
            for span in scope.spans().flatten() {
                visit(&span, &attributes, &service);
            }
        }
    }
}

/// `span_<key>=<value>` of the resource, then of the span.
fn attributes(resource_attributes: &[KeyValueRef<'_>], span: &SpanRef<'_>) -> String {
    let mut text = String::new();
    let all = resource_attributes.iter().copied();
    for attribute in all.chain(span.attributes().flatten()) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str("span_");
        let key = String::from_utf8_lossy(attribute.key);
        text.extend(key.chars().map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '_'
            }
        }));
        text.push('=');
        // Writing to a text cannot fail; reading the value can, and then it is left out.
        let _ = push_value(&mut text, attribute.value);
    }
    text
}

fn push_value(text: &mut String, value: AnyValueRef<'_>) -> Result<(), WireError> {
    // `write!` to a `String` has no way to fail.
    let _ = match value {
        AnyValueRef::Empty => Ok(()),
        AnyValueRef::String(value) => write!(text, "{:?}", String::from_utf8_lossy(value)),
        AnyValueRef::Bool(value) => write!(text, "{value}"),
        AnyValueRef::Int(value) => write!(text, "{value}"),
        AnyValueRef::Double(value) => write!(text, "{value}"),
        AnyValueRef::Bytes(value) => write!(text, "{}", hex(value)),
        AnyValueRef::KvList(value) => write!(text, "<{} bytes of key-value list>", value.len()),
        AnyValueRef::Array(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                push_value(text, value?)?;
            }
            text.push(']');
            Ok(())
        }
    };
    Ok(())
}

/// The name of an enum's value, or its number if it has none.
fn enum_name(names: &[&str], number: i32) -> String {
    usize::try_from(number)
        .ok()
        .and_then(|index| names.get(index))
        .map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Seek},
        sync::Arc,
    };

    use tempo_model::otlp::{write_len_prefixed, write_varint};

    use super::*;

    #[test]
    fn attributes_are_sanitised_and_values_are_readable() {
        let key_value = |key: &str, value: &[u8]| {
            let mut message = Vec::new();
            write_len_prefixed(&mut message, 1, key.as_bytes());
            write_len_prefixed(&mut message, 2, value);
            message
        };
        let mut text = Vec::new();
        write_len_prefixed(&mut text, 1, b"a \"b\"");
        let mut number = Vec::new();
        write_varint(&mut number, 3 << 3);
        write_varint(&mut number, 7);
        let mut array = Vec::new();
        write_len_prefixed(&mut array, 1, &number);
        write_len_prefixed(&mut array, 1, &number);
        let mut list = Vec::new();
        write_len_prefixed(&mut list, 5, &array);

        let resource = key_value("service.name", &text);
        let mut span = Vec::new();
        write_len_prefixed(&mut span, 9, &key_value("n", &number));
        write_len_prefixed(&mut span, 9, &key_value("a/b", &list));
        assert_eq!(
            attributes(
                &[KeyValueRef::parse(&resource).unwrap()],
                &SpanRef::parse(&span).unwrap()
            ),
            r#"span_service_name="a \"b\"" span_n=7 span_a_b=[7,7]"#
        );
    }

    /// A request of one span, whose status is `code`.
    fn request(code: u8) -> Vec<u8> {
        let mut status = Vec::new();
        write_varint(&mut status, 3 << 3);
        status.push(code);
        let mut span = Vec::new();
        write_len_prefixed(&mut span, 1, &[0xab; 16]);
        write_len_prefixed(&mut span, 2, &[0xcd; 8]);
        write_len_prefixed(&mut span, 5, b"get");
        write_varint(&mut span, 6 << 3);
        span.push(2);
        for (number, nanos) in [(7, 1_000_000_000_u64), (8, 2_500_000_000)] {
            write_varint(&mut span, number << 3 | 1);
            span.extend(nanos.to_le_bytes());
        }
        write_len_prefixed(&mut span, 15, &status);
        [2, 2, 1].into_iter().fold(span, |inside, number| {
            let mut outside = Vec::new();
            write_len_prefixed(&mut outside, number, &inside);
            outside
        })
    }

    fn logged(request: &[u8], settings: SpanLog) -> String {
        let mut log = tempfile::tempfile().unwrap();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(Arc::new(log.try_clone().unwrap()))
            .with_ansi(false)
            .without_time()
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            log_spans(request, "a", "received", settings);
        });
        let mut lines = String::new();
        log.rewind().unwrap();
        log.read_to_string(&mut lines).unwrap();
        lines
    }

    #[test]
    fn spans_are_logged_as_asked_for() {
        let mut settings = SpanLog::default();
        assert_eq!(logged(&request(2), settings), "");
        settings.enabled = true;
        let ids = format!(
            "tenant=\"a\" traceid=\"{}\" spanid=\"{}\"",
            "ab".repeat(16),
            "cd".repeat(8)
        );
        let line = logged(&request(0), settings);
        assert!(line.contains("received") && line.contains(&ids), "{line}");
        assert!(!line.contains("span_name"), "{line}");

        settings.include_all_attributes = true;
        settings.filter_by_status_error = true;
        assert_eq!(logged(&request(0), settings), "");
        let line = logged(&request(2), settings);
        let all = "span_name=get span_duration_seconds=1.5 span_kind=\"SPAN_KIND_SERVER\" \
                   span_status=\"STATUS_CODE_ERROR\"";
        assert!(line.contains(&ids) && line.contains(all), "{line}");
    }
}
