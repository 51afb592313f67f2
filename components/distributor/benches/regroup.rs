//! Spans per second and core of checking and regrouping, on requests of the usual shape: 37 traces
//! of 6 spans each, about 410 bytes per span, from 4 services. Run with
//! `cargo bench -p tempo-distributor`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use prost::Message;
use tempo_distributor::regroup::{Bounds, Scratch, count_spans, regroup};
use tempo_proto::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;

mod shared;

use shared::request;

const MEASURE_FOR: Duration = Duration::from_secs(2);

fn measure(name: &str, request: &[u8], mut work: impl FnMut()) {
    let spans = count_spans(request).unwrap();
    for _ in 0..200 {
        work();
    }
    let mut best = f64::INFINITY;
    let started = Instant::now();
    while started.elapsed() < MEASURE_FOR {
        let round = Instant::now();
        for _ in 0..5 {
            work();
        }
        best = best.min(round.elapsed().as_secs_f64() / 5.0);
    }
    println!(
        "{name:28} {:6.1} us/request  {:6.2} M spans/s  {:5.2} GB/s  ({spans} spans of {} bytes)",
        best * 1e6,
        spans as f64 / best / 1e6,
        request.len() as f64 / best / 1e9,
        request.len() / spans as usize,
    );
}

fn main() {
    let bounds = Bounds {
        max_attribute_bytes: 2048,
        max_regrouped_bytes: 1 << 28,
    };
    let mut scratch = Scratch::default();
    let usual = request(37, 0);
    measure("count spans", &usual, || {
        black_box(count_spans(black_box(&usual)).unwrap());
    });
    measure("check and regroup", &usual, || {
        black_box(regroup(black_box(&usual), &bounds, &mut scratch).unwrap());
    });
    let long = request(37, 20);
    measure("check, cut 5 % and regroup", &long, || {
        black_box(regroup(black_box(&long), &bounds, &mut scratch).unwrap());
    });
    measure("prost decode (reference)", &usual, || {
        black_box(ExportTraceServiceRequest::decode(black_box(&*usual)).unwrap());
    });
}
