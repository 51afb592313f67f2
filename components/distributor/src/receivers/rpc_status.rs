//! `google.rpc.Status`, in which OTLP explains a refusal: as protobuf and as JSON.

use std::time::Duration;

use prost::Message;

use crate::refusal::Refusal;

const RETRY_INFO_TYPE: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// The status of a refusal, in protobuf.
pub(super) fn to_protobuf(refusal: &Refusal) -> Vec<u8> {
    let details = refusal.retry_after.map(|after| prost_types::Any {
        type_url: RETRY_INFO_TYPE.to_owned(),
        value: RetryInfo {
            retry_delay: prost_types::Duration::try_from(after).ok(),
        }
        .encode_to_vec(),
    });
    Status {
        code: refusal.kind.grpc_code(),
        message: refusal.message.clone(),
        details: details.into_iter().collect(),
    }
    .encode_to_vec()
}

/// The status of a refusal, in protobuf's JSON.
pub(super) fn to_json(refusal: &Refusal) -> Vec<u8> {
    let mut status = serde_json::json!({
        "code": refusal.kind.grpc_code(),
        "message": refusal.message,
    });
    if let Some(after) = refusal.retry_after {
        status["details"] = serde_json::json!([{
            "@type": RETRY_INFO_TYPE,
            "retryDelay": format!("{}s", seconds_text(after)),
        }]);
    }
    status.to_string().into_bytes()
}

/// Seconds with as many decimals as there are: none, or to the nanosecond.
fn seconds_text(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => duration.as_secs().to_string(),
        nanos => format!("{}.{nanos:09}", duration.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::RefusalKind;

    #[test]
    fn both_forms_carry_code_message_and_delay() {
        let mut refusal = Refusal::new(RefusalKind::ResourceExhausted, "slow \"down\"");
        assert_eq!(
            to_json(&refusal),
            br#"{"code":8,"message":"slow \"down\""}"#
        );
        refusal.retry_after = Some(Duration::from_millis(5_500));
        assert_eq!(
            String::from_utf8(to_json(&refusal)).unwrap(),
            r#"{"code":8,"message":"slow \"down\"","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"5.500000000s"}]}"#
        );
        let status = Status::decode(&*to_protobuf(&refusal)).unwrap();
        assert_eq!((status.code, &*status.message), (8, "slow \"down\""));
        let info = RetryInfo::decode(&*status.details[0].value).unwrap();
        assert_eq!(
            info.retry_delay,
            Some(prost_types::Duration {
                seconds: 5,
                nanos: 500_000_000
            })
        );
    }
}
