//! `compare()` against counting naively.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tempo_engine::metrics::Window;

use super::{
    Answer, FILTERS, ORIGIN, SECOND, Scalar, Seen, Traces, assert_same, on_columns, run, seen,
    tables, traces, window,
};

const SELECTIONS: [&str; 3] = ["status = error", "span.v > 1", ".w = \"x\""];
const TOP: usize = 2;

/// What `compare()` counts of a span that the filter has kept.
fn compared(seen: &Seen<'_>, filter: &str) -> Vec<(String, String)> {
    let own = [
        "resource.cluster",
        "resource.namespace",
        "resource.pod",
        "resource.container",
        "resource.k8s.cluster.name",
        "resource.k8s.namespace.name",
        "resource.k8s.pod.name",
        "resource.k8s.container.name",
        "span.http.method",
        "span.http.url",
        "span.http.status_code",
        "span.http.request.method",
        "span.http.route",
        "span.url.path",
        "span.url.route",
        "span.server.address",
    ];
    let mut pairs: Vec<(String, String)> = own
        .iter()
        .map(|&name| (name.to_owned(), "nil".to_owned()))
        .collect();
    for name in [
        "statusMessage",
        "rootName",
        "rootServiceName",
        "instrumentation:name",
        "instrumentation:version",
    ] {
        pairs.push((name.to_owned(), "text ".to_owned()));
    }
    let mut add = |name: &str, value: Option<Scalar>| {
        pairs.extend(value.map(|value| (name.to_owned(), value.print())));
    };
    for name in [
        "resource.service.name",
        "name",
        "kind",
        "status",
        "span.v",
        "span.w",
        "resource.w",
    ] {
        add(name, seen.value(name));
    }
    // What the filter has loaded counts once more.
    match filter {
        "status = error" => add("status", seen.value("status")),
        "span.v > 1" => add("span.v", seen.surviving(filter, "span.v")),
        "span.v = 1 || kind = server" => {
            let v = match seen.value("span.v") {
                Some(Scalar::Ints(items)) => {
                    let ones: Vec<i64> = items.into_iter().filter(|&item| item == 1).collect();
                    match ones.as_slice() {
                        [] => None,
                        [one] => Some(Scalar::Int(*one)),
                        _ => Some(Scalar::Ints(ones)),
                    }
                }
                value => value.filter(|value| value.number() == Some(1.0)),
            };
            add("span.v", v);
            add("kind", seen.value("kind").filter(|_| seen.row.kind == 2));
        }
        ".w = \"x\"" => {
            for name in ["span.w", "resource.w"] {
                add(name, seen.value(name).filter(|w| *w == Scalar::Text("x")));
            }
        }
        "resource.service.name != \"a\"" => {
            add("resource.service.name", seen.value("resource.service.name"));
        }
        _ => {}
    }
    pairs
}

fn naive_comparison(
    filter: &str,
    selection: &str,
    traces: &Traces,
    window: Window,
) -> (Answer, BTreeSet<(String, String)>) {
    let width = window.grid().len();
    let mut counts: BTreeMap<(String, String), BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for (interval, seen) in seen(traces, filter, window) {
        let kind = if seen.passes(selection) {
            "selection"
        } else {
            "baseline"
        };
        for (name, value) in compared(&seen, filter) {
            for (kind, value) in [
                (kind.to_owned(), value),
                (format!("{kind}_total"), "nil".to_owned()),
            ] {
                let values = counts.entry((kind, name.clone())).or_default();
                values.entry(value).or_insert_with(|| vec![0.0; width])[interval] += 1.0;
            }
        }
    }
    let mut answer = Answer::new();
    // Which of equally frequent values are returned is tested elsewhere.
    let mut open = BTreeSet::new();
    for ((kind, name), values) in counts {
        if values.len() > TOP {
            open.insert((kind.clone(), name.clone()));
        }
        for (value, counts) in values {
            let labels = vec![
                ("__meta_type".to_owned(), format!("text {kind}")),
                (name.clone(), value),
            ];
            answer.insert(labels, counts.into_iter().map(Some).collect());
        }
    }
    (answer, open)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn comparisons_are_those_of_a_naive_evaluation(
        traces in traces(),
        filter in prop::sample::select(&FILTERS[..]),
        selection in prop::sample::select(&SELECTIONS[..]),
        window in window(),
        cut in 0..70 * SECOND,
        count in 1..4_usize,
    ) {
        let text = format!("{{ {filter} }} | compare({{ {selection} }}, {TOP})");
        let answer = run(&text, &tables(&traces, count), window, ORIGIN + cut);
        let mut got = on_columns(&answer);
        let (mut want, open) = naive_comparison(filter, selection, &traces, window);
        let of = |labels: &Vec<(String, String)>| {
            (labels[0].1.trim_start_matches("text ").to_owned(), labels[1].0.clone())
        };
        // Of attributes with more values the most frequent ones are returned.
        for open in &open {
            let mut wanted: Vec<_> = want.iter().filter(|(labels, _)| of(labels) == *open).collect();
            let total = |values: &Vec<Option<f64>>| values.iter().flatten().sum::<f64>();
            wanted.sort_by(|a, b| total(b.1).total_cmp(&total(a.1)));
            let least = total(wanted[TOP - 1].1);
            let returned: Vec<_> = got.iter().filter(|(labels, _)| of(labels) == *open).collect();
            prop_assert_eq!(returned.len(), TOP, "{}: {:?}", text, open);
            for (labels, values) in returned {
                prop_assert_eq!(Some(values), want.get(labels), "{}: {:?}", text, labels);
                prop_assert!(total(values) >= least, "{}: {:?}", text, labels);
            }
        }
        got.retain(|labels, _| !open.contains(&of(labels)));
        want.retain(|labels, _| !open.contains(&of(labels)));
        assert_same(&got, &want, &text);
    }
}
