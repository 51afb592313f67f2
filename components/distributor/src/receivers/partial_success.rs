//! `ExportTraceServiceResponse`, the answer to a push that was taken: as protobuf and as JSON. Its
//! `partial_success` is always there, as Tempo writes it; empty when no span was left out.

use prost::Message;

use crate::sink::PartialSuccess;

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<ExportTracePartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct ExportTracePartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

pub(super) fn to_protobuf(success: &PartialSuccess) -> Vec<u8> {
    ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: rejected(success),
            error_message: success.error_message.clone(),
        }),
    }
    .encode_to_vec()
}

pub(super) fn to_json(success: &PartialSuccess) -> Vec<u8> {
    let mut fields = serde_json::Map::new();
    if success.rejected_spans > 0 {
        // Protobuf's JSON has whole numbers of 64 bits in quotes.
        fields.insert(
            "rejectedSpans".to_owned(),
            rejected(success).to_string().into(),
        );
    }
    if !success.error_message.is_empty() {
        let message = success.error_message.as_str();
        fields.insert("errorMessage".to_owned(), message.into());
    }
    serde_json::json!({ "partialSuccess": fields })
        .to_string()
        .into_bytes()
}

fn rejected(success: &PartialSuccess) -> i64 {
    i64::try_from(success.rejected_spans).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_even_when_nothing_was_left_out() {
        let all = PartialSuccess::default();
        assert_eq!(to_protobuf(&all), b"\x0a\x00");
        assert_eq!(to_json(&all), br#"{"partialSuccess":{}}"#);
    }

    #[test]
    fn both_forms_tell_how_many_and_why() {
        let some = PartialSuccess {
            rejected_spans: 3,
            error_message: "too large".to_owned(),
        };
        assert_eq!(
            to_json(&some),
            br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too large"}}"#
        );
        let read = ExportTraceServiceResponse::decode(&*to_protobuf(&some)).unwrap();
        let read = read.partial_success.unwrap();
        assert_eq!(
            (read.rejected_spans, &*read.error_message),
            (3, "too large")
        );
    }
}
