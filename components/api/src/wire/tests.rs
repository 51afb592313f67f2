use bytes::Bytes;
use proptest::prelude::*;
use tempo_engine::metrics::{MetricsOptions, MetricsPlan};
use tempo_proto::tempopb::{
    QueryRangeRequest, SearchMetrics, SearchRequest, SearchResponse, SearchTagValuesRequest,
    SearchTagValuesV2Response, SearchTagsRequest, SearchTagsV2Response, SearchTagsV2Scope,
    TagValue, TraceSearchMetadata, backend::v1::BlockMeta,
};

use super::*;

const MAX_SERIES_BYTES: usize = 1 << 20;

fn text() -> impl Strategy<Value = String> {
    "[ -~ü]{0,12}"
}

fn place() -> impl Strategy<Value = DataPlace> {
    let block = (any::<[u8; 16]>(), text(), any::<[u32; 3]>()).prop_map(
        |(block_id, tenant_id, [total_records, first_row_group, row_groups])| DataPlace::Block {
            meta: Arc::new(BlockMeta {
                block_id: block_id.to_vec(),
                tenant_id,
                total_records,
                ..BlockMeta::default()
            }),
            first_row_group,
            row_groups,
        },
    );
    let recent = any::<(u32, u32)>().prop_map(|(start, end)| DataPlace::Recent { start, end });
    prop_oneof![recent, block]
}

fn trace_place() -> impl Strategy<Value = TracePlace> {
    let blocks = any::<([u8; 16], [u8; 16], Option<(i64, i64)>)>()
        .prop_map(|(first, last, range)| TracePlace::Blocks { first, last, range });
    prop_oneof![Just(TracePlace::Recent), blocks]
}

fn job() -> impl Strategy<Value = Job> {
    let find = (any::<([u8; 16], u64)>(), trace_place()).prop_map(|((id, max_bytes), place)| {
        Job::FindTrace {
            trace_id: TraceId::from_bytes(id),
            max_bytes,
            place,
        }
    });
    let search =
        (text(), any::<(u32, u32)>(), place()).prop_map(|(query, (limit, start), place)| {
            Job::Search {
                request: Arc::new(SearchRequest {
                    query,
                    limit,
                    start,
                    skip_ast_transformations: vec!["or_to_in".to_owned()],
                    ..SearchRequest::default()
                }),
                place,
            }
        });
    let names =
        (text(), any::<u64>(), place()).prop_map(|(scope, max_bytes, place)| Job::TagNames {
            request: Arc::new(SearchTagsRequest {
                scope,
                ..SearchTagsRequest::default()
            }),
            max_bytes,
            place,
        });
    let values =
        (text(), any::<u64>(), place()).prop_map(|(tag_name, max_bytes, place)| Job::TagValues {
            request: Arc::new(SearchTagValuesRequest {
                tag_name,
                ..SearchTagValuesRequest::default()
            }),
            max_bytes,
            place,
        });
    let range = (text(), any::<([u64; 3], bool, u32)>(), place()).prop_map(
        |(query, ([start_nano, end_nano, step_nano], is_instant, max_exemplars), place)| {
            let step_nano = step_nano.max(1 << 45);
            Job::QueryRange {
                request: Arc::new(QueryRangeRequest {
                    query,
                    ..QueryRangeRequest::default()
                }),
                window: Window {
                    start_nano,
                    end_nano,
                    step_nano,
                    is_instant,
                },
                max_exemplars,
                place,
            }
        },
    );
    prop_oneof![find, search, names, values, range]
}

fn result() -> impl Strategy<Value = JobResult> {
    let trace = (prop::collection::vec(any::<Vec<u8>>(), 0..3), any::<u64>()).prop_map(
        |(parts, inspected_bytes)| {
            Ok(JobOutput::Trace(TraceParts {
                parts: parts.into_iter().map(Bytes::from).collect(),
                inspected_bytes,
            }))
        },
    );
    let search = (text(), any::<u64>()).prop_map(|(trace_id, inspected_bytes)| {
        Ok(JobOutput::Search(SearchResponse {
            traces: vec![TraceSearchMetadata {
                trace_id,
                ..TraceSearchMetadata::default()
            }],
            metrics: Some(SearchMetrics {
                inspected_bytes,
                ..SearchMetrics::default()
            }),
        }))
    });
    let names = (text(), text()).prop_map(|(name, tag)| {
        Ok(JobOutput::TagNames(SearchTagsV2Response {
            scopes: vec![SearchTagsV2Scope {
                name,
                tags: vec![tag],
            }],
            metrics: None,
        }))
    });
    let values = (text(), text()).prop_map(|(of_type, value)| {
        Ok(JobOutput::TagValues(SearchTagValuesV2Response {
            tag_values: vec![TagValue {
                r#type: of_type,
                value,
            }],
            metrics: None,
        }))
    });
    let counted = any::<u64>().prop_map(|inspected_bytes| {
        let query = tempo_traceql::parse("{ } | rate() by (name)").unwrap();
        let plan = MetricsPlan::new(&query, &MetricsOptions::default()).unwrap();
        let window = Window {
            start_nano: 5,
            end_nano: 95,
            step_nano: 10,
            is_instant: false,
        };
        Ok(JobOutput::QueryRange(CountedSpans {
            series: MetricsPartial::new(&plan, window),
            inspected_bytes,
        }))
    });
    let error = (text(), 0..7_u8).prop_map(|(text, kind)| {
        Err(match kind {
            0 => JobError::TraceTooLarge(text),
            1 => JobError::OverBudget(text),
            2 => JobError::Busy(text),
            3 => JobError::Unavailable(text),
            4 => JobError::Failed(text),
            5 => JobError::TimedOut,
            _ => JobError::Cancelled,
        })
    });
    prop_oneof![trace, search, names, values, counted, error]
}

proptest! {
    #[test]
    fn jobs_arrive_as_they_were_sent(job in job()) {
        let bytes = encode_job(&job).encode_to_vec();
        let received = decode_job(wire::Job::decode(bytes.as_slice()).unwrap()).unwrap();
        prop_assert_eq!(format!("{received:?}"), format!("{job:?}"));
    }

    #[test]
    fn results_arrive_as_they_were_sent(result in result()) {
        let bytes = encode_result(result.clone()).encode_to_vec();
        let message = wire::JobResult::decode(bytes.as_slice()).unwrap();
        let received = decode_result(message, MAX_SERIES_BYTES);
        prop_assert_eq!(format!("{received:?}"), format!("{result:?}"));
    }

    #[test]
    fn the_bytes_of_an_output_are_those_of_its_message(result in result()) {
        if let Ok(output) = result {
            let message = encode_output(output.clone()).encode_to_vec();
            let len = message.len();
            prop_assert_eq!(output_bytes(&output, len), Some(message));
            prop_assert_eq!(output_bytes(&output, len.saturating_sub(1)).is_some(), len == 0);
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_but_never_panic(bytes in any::<Vec<u8>>()) {
        if let Ok(message) = wire::Job::decode(bytes.as_slice()) {
            let _ = decode_job(message);
        }
        if let Ok(message) = wire::JobResult::decode(bytes.as_slice()) {
            let _ = decode_result(message, MAX_SERIES_BYTES);
        }
    }
}

/// A message with one field that this version does not know.
fn from_the_future(number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::bytes::encode(number, &b"something new".to_vec(), &mut bytes);
    bytes
}

#[test]
fn what_a_newer_version_sends_is_refused_for_good_and_tells_what_to_upgrade() {
    let bytes = from_the_future(15);
    let job = decode_job(wire::Job::decode(bytes.as_slice()).unwrap());
    let result = decode_result(
        wire::JobResult::decode(bytes.as_slice()).unwrap(),
        MAX_SERIES_BYTES,
    );
    let output = decode_output(
        wire::JobOutput::decode(bytes.as_slice()).unwrap(),
        MAX_SERIES_BYTES,
    );
    let place = decode_job(wire::Job {
        kind: Some(wire::job::Kind::Search(wire::SearchJob {
            request: Some(SearchRequest::default()),
            place: Some(wire::DataPlace::decode(bytes.as_slice()).unwrap()),
        })),
    });
    for error in [
        job.unwrap_err(),
        result.unwrap_err(),
        output.unwrap_err(),
        place.unwrap_err(),
    ] {
        assert!(!error.is_retryable());
        assert!(error.to_string().contains("upgrade"), "{error}");
    }
    // A kind of error that is not known is one that is not tried again.
    let error = wire::JobError {
        kind: 99,
        text: "no".to_owned(),
    };
    let message = wire::JobResult {
        result: Some(wire::job_result::Result::Error(error)),
    };
    let error = decode_result(message, MAX_SERIES_BYTES).unwrap_err();
    assert_eq!(error, JobError::Failed("no".to_owned()));
}

#[test]
fn fields_that_are_not_known_are_ignored() {
    let job = Job::FindTrace {
        trace_id: TraceId::from_padded(&[7]),
        max_bytes: 0,
        place: TracePlace::Recent,
    };
    let mut bytes = encode_job(&job).encode_to_vec();
    bytes.extend(from_the_future(100));
    let received = decode_job(wire::Job::decode(bytes.as_slice()).unwrap()).unwrap();
    assert_eq!(format!("{received:?}"), format!("{job:?}"));
}

#[test]
fn malformed_jobs_are_named() {
    let of = |kind| decode_job(wire::Job { kind: Some(kind) }).unwrap_err();
    let short = wire::FindTraceJob {
        trace_id: vec![1; 15],
        max_bytes: 0,
        place: None,
    };
    assert_eq!(
        of(wire::job::Kind::FindTrace(short)),
        JobError::Failed("malformed job: an id that is not 16 bytes long".to_owned())
    );
    assert_eq!(
        of(wire::job::Kind::Search(wire::SearchJob::default())),
        JobError::Failed("malformed job: no request".to_owned())
    );
}

#[test]
fn windows_of_too_many_intervals_are_refused() {
    let decode = |start_nano, end_nano, step_nano, is_instant| {
        let job = Job::QueryRange {
            request: Arc::default(),
            window: Window {
                start_nano,
                end_nano,
                step_nano,
                is_instant,
            },
            max_exemplars: 0,
            place: DataPlace::Recent { start: 0, end: 1 },
        };
        decode_job(encode_job(&job)).map(|_| ())
    };
    let (second, milli) = (1_000_000_000, 1_000_000);
    let now = 1_790_000_000 * second;
    assert_eq!(decode(now - 3600 * second, now, second, false), Ok(()));
    assert_eq!(decode(now - 1_000_002 * milli, now, milli, false), Ok(()));
    // However long, an instant is one interval.
    assert_eq!(decode(0, now, now, true), Ok(()));
    assert_eq!(
        decode(0, now, milli, false),
        Err(JobError::Failed(
            "malformed job: a window of more intervals than there may be".to_owned()
        ))
    );
    assert_eq!(
        decode(0, 0, 0, false),
        Err(JobError::Failed("malformed job: a step of 0".to_owned()))
    );
}
