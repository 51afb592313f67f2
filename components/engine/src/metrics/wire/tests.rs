use std::sync::Arc;

use proptest::prelude::*;
use prost::Message as _;
use tempo_table::ArrayValue;
use tempo_traceql::ast::{Kind, Status};

use super::{
    super::comparison::{ComparedSpan, Comparison, Counts},
    *,
};
use crate::{
    metrics::{Label, MetricsOptions, Window},
    value::Value,
};

const INTERVALS: usize = 12;

fn text() -> impl Strategy<Value = Arc<str>> {
    "[a-dü]{0,3}".prop_map(Arc::from)
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => Just(0.0),
        4 => (0..1_000_u32).prop_map(f64::from),
        1 => Just(-0.0),
        1 => Just(f64::NAN),
        1 => Just(9_007_199_254_740_992.0),
        1 => any::<f64>(),
    ]
}

fn array() -> impl Strategy<Value = ArrayValue> {
    prop_oneof![
        Just(ArrayValue::Empty),
        prop::collection::vec(text(), 0..3).prop_map(ArrayValue::Strings),
        prop::collection::vec(any::<i64>(), 0..3).prop_map(ArrayValue::Ints),
        prop::collection::vec(-1e9..1e9, 0..3).prop_map(ArrayValue::Floats),
        prop::collection::vec(any::<bool>(), 0..3).prop_map(ArrayValue::Bools),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Nil),
        text().prop_map(Value::String),
        any::<i64>().prop_map(Value::Int),
        (-1e300..1e300).prop_map(Value::Float),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Duration),
        prop::sample::select(vec![Status::Ok, Status::Error, Status::Unset])
            .prop_map(Value::Status),
        prop::sample::select(vec![Kind::Unspecified, Kind::Server, Kind::Consumer])
            .prop_map(Value::Kind),
        array().prop_map(Value::Array),
    ]
}

fn labels() -> impl Strategy<Value = Arc<[Label]>> {
    let label = (text(), value()).prop_map(|(name, value)| Label { name, value });
    prop::collection::vec(label, 0..3).prop_map(Arc::from)
}

fn exemplar() -> impl Strategy<Value = Exemplar> {
    (any::<i64>(), -1e9..1e9, labels()).prop_map(|(timestamp_ms, value, labels)| Exemplar {
        timestamp_ms,
        value,
        labels,
    })
}

fn table() -> impl Strategy<Value = SeriesTable> {
    let numbers = || prop::collection::vec(number(), INTERVALS);
    let series = (
        labels(),
        prop::option::of(0..=63_u8),
        numbers(),
        numbers(),
        prop::collection::vec(exemplar(), 0..2),
    );
    let merge = prop::sample::select(vec![Merge::Count, Merge::Sum, Merge::Min, Merge::Max]);
    (merge, any::<bool>(), prop::collection::vec(series, 0..5)).prop_map(
        |(merge, with_weights, all)| {
            let mut table = SeriesTable::new(merge, with_weights, INTERVALS);
            for (labels, bucket, values, weights, exemplars) in all {
                let head = Head { labels, bucket };
                let row = table
                    .add(&head, 0, &values, Some(&weights), usize::MAX)
                    .unwrap();
                let exemplars = exemplars.into_iter().map(|exemplar| (row, exemplar));
                table.exemplars.extend(exemplars);
            }
            // In the order in which they are sent.
            table.exemplars.sort_by_key(|entry| entry.0);
            table
        },
    )
}

fn comparison() -> impl Strategy<Value = Comparison> {
    let cells = || prop::collection::btree_map(0..INTERVALS as u32, 0.5..100.0, 0..4);
    let counts = move || (cells(), any::<bool>());
    let attribute = (text(), value(), counts(), counts());
    let span = (
        any::<bool>(),
        exemplar(),
        prop::collection::vec(text(), 0..3),
    );
    let attributes = prop::collection::vec(attribute, 0..8);
    (0..20_usize, attributes, prop::collection::vec(span, 0..3)).prop_map(
        |(top, attributes, spans)| {
            let mut comparison = Comparison::new(top, INTERVALS);
            for (name, value, baseline, selection) in attributes {
                let sides = [baseline, selection].map(|(cells, whole)| {
                    let count = |count: f64| if whole { count.ceil() } else { count };
                    let cells = cells.into_iter().map(|(at, number)| (at, count(number)));
                    Counts::from_cells(cells.collect())
                });
                let counted = comparison.attribute(&name);
                for (side, counts) in sides.iter().enumerate() {
                    for &(interval, count) in counts.cells() {
                        counted.totals[side][interval as usize] += count;
                    }
                }
                counted.add(value, sides);
            }
            for (is_selected, exemplar, attributes) in spans {
                comparison.add_exemplar(ComparedSpan {
                    side: usize::from(is_selected),
                    exemplar,
                    attributes,
                });
            }
            comparison
        },
    )
}

fn partial() -> impl Strategy<Value = MetricsPartial> {
    let part = prop_oneof![
        table().prop_map(Part::Series),
        comparison().prop_map(Part::Comparison),
    ];
    (
        prop::collection::vec(part, 0..3),
        any::<bool>(),
        any::<u64>(),
    )
        .prop_map(|(parts, is_truncated, counted_spans)| MetricsPartial {
            grid: Window {
                start_nano: 0,
                end_nano: INTERVALS as u64 * 10,
                step_nano: 10,
                is_instant: false,
            }
            .grid(),
            parts,
            is_truncated,
            counted_spans,
        })
}

/// Text that tells everything, to the last bit, in an order that does not depend on hashing.
fn told(partial: &MetricsPartial) -> String {
    let bits = |numbers: &[f64]| -> Vec<u64> {
        let of = |number: &f64| if number.is_nan() { 1 } else { number.to_bits() };
        numbers.iter().map(of).collect()
    };
    let part = |part: &Part| match part {
        Part::Series(table) => {
            let rows: Vec<_> = (0..table.len())
                .map(|row| {
                    let weights = table.weights(row).map(bits);
                    (&table.heads()[row], bits(table.values(row)), weights)
                })
                .collect();
            format!("{:?} {rows:?} {:?}", table.merge, table.exemplars)
        }
        Part::Comparison(comparison) => {
            let mut attributes: Vec<String> = comparison
                .attributes()
                .map(|(name, counted)| {
                    let mut values: Vec<String> = counted
                        .values()
                        .map(|(value, sides)| {
                            // A sum that is kept beside them depends on the order of adding.
                            let sides = sides.each_ref().map(|side| side.cells());
                            format!("{value:?} {sides:?}")
                        })
                        .collect();
                    values.sort();
                    format!("{name} {:?} {values:?}", counted.totals)
                })
                .collect();
            attributes.sort();
            let exemplars = comparison.exemplars();
            format!("{} {attributes:?} {exemplars:?}", comparison.top())
        }
    };
    let parts: Vec<String> = partial.parts.iter().map(part).collect();
    let (is_truncated, counted_spans) = (partial.is_truncated, partial.counted_spans);
    format!(
        "{:?} {is_truncated} {counted_spans} {parts:?}",
        partial.grid
    )
}

fn sent(partial: &MetricsPartial) -> MetricsPartial {
    let bytes = partial.to_wire().encode_to_vec();
    let message = wire::MetricsPartial::decode(bytes.as_slice()).unwrap();
    MetricsPartial::from_wire(message, usize::MAX).unwrap()
}

proptest! {
    #[test]
    fn what_arrives_is_what_was_sent(partial in partial()) {
        prop_assert_eq!(told(&sent(&partial)), told(&partial));
    }

    #[test]
    fn a_spoilt_message_is_refused_or_read_but_never_panics(
        partial in partial(),
        spoils in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = partial.to_wire().encode_to_vec();
        for (at, byte) in spoils {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let Ok(message) = wire::MetricsPartial::decode(bytes.as_slice()) else {
            return Ok(());
        };
        if let Ok(read) = MetricsPartial::from_wire(message, 1 << 20) {
            let query = tempo_traceql::parse("{ } | rate() by (name)").unwrap();
            let plan = MetricsPlan::new(&query, &MetricsOptions::default()).unwrap();
            if read.fits(&plan) {
                let mut all = MetricsPartial::with_grid(&plan, partial.grid);
                let _ = all.merge(&plan, read, 1 << 20);
                let _ = all.finish(&plan);
            }
        }
    }
}

#[test]
fn counts_are_short_and_nothing_takes_no_room() {
    let mut table = SeriesTable::new(Merge::Count, false, 1_000);
    let head = |name: &str| Head {
        labels: Arc::from([Label::text("service", name)]),
        bucket: None,
    };
    for number in 0..100 {
        let values = [100.0; 10];
        let head = head(&format!(
            "a service with a rather long name, number {number}"
        ));
        table.add(&head, 500, &values, None, usize::MAX);
    }
    let mut writer = Writer::default();
    let message = write_table(&table, &mut writer);
    assert!(
        message.encoded_len() < 100 * 40,
        "{}",
        message.encoded_len()
    );
    assert_eq!(writer.into_texts().len(), 101);
}

#[test]
fn what_would_take_too_much_is_refused_before_it_does() {
    let series = wire::Series::default();
    let message = |len, series| wire::MetricsPartial {
        grid: Some(wire::Grid {
            len,
            step_nano: 1,
            ..wire::Grid::default()
        }),
        parts: vec![wire::MetricsPart {
            kind: Some(wire::metrics_part::Kind::Series(wire::SeriesTable {
                merge: wire::series_table::Merge::Count.into(),
                series,
                has_weights: false,
            })),
        }],
        ..wire::MetricsPartial::default()
    };
    let read = |message| MetricsPartial::from_wire(message, 1 << 20).map(|read| read.len());
    assert_eq!(read(message(1_000, vec![series.clone()])), Ok(1));
    let too_large = WireError::TooLarge {
        limit_bytes: 1 << 20,
    };
    let huge = u64::from(u32::MAX);
    assert_eq!(read(message(huge, vec![series.clone()])), Err(too_large));
    assert!(matches!(
        read(message(huge + 1, vec![series])),
        Err(WireError::Malformed(_))
    ));
}

#[test]
fn series_of_another_query_do_not_fit() {
    let plan = |text: &str| {
        let query = tempo_traceql::parse(text).unwrap();
        MetricsPlan::new(&query, &MetricsOptions::default()).unwrap()
    };
    let window = Window {
        start_nano: 0,
        end_nano: 100,
        step_nano: 10,
        is_instant: false,
    };
    let all = [
        "{ } | rate()",
        "{ } | min_over_time(duration)",
        "{ } | avg_over_time(duration)",
        "{ } | sum_over_time(duration)",
        "{ } | compare({ status = error }, 7)",
        "{ } | compare({ status = error }, 8)",
        "({ } | rate()) / ({ name = `a` } | rate())",
    ];
    for (number, one) in all.iter().enumerate() {
        for (other_number, other) in all.iter().enumerate() {
            let partial = sent(&MetricsPartial::new(&plan(one), window));
            assert_eq!(
                partial.fits(&plan(other)),
                number == other_number,
                "{one}, {other}"
            );
        }
    }
}
