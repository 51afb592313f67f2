//! The parameters of `/api/metrics/query_range` and `/api/metrics/query`.

use tempo_proto::tempopb::{QueryInstantRequest, QueryRangeRequest};
use tempo_traceql::duration;

use super::{
    QueryParams,
    search::comma_separated,
    time::{named_timestamp, since_nanos},
};
use crate::{
    BadRequest,
    go::{parse_uint, quote},
};

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const DEFAULT_SINCE_NANOS: i64 = 3_600 * NANOS_PER_SECOND;

/// Tempo answers these errors in the words of its RPC layer.
fn refused(text: String) -> BadRequest {
    BadRequest::new(format!("rpc error: code = Code(400) desc = {text}"))
}

/// Reads a range query. Parameters that Tempo's components send each other are not read.
pub fn parse_query_range(
    params: &QueryParams,
    now_nanos: i64,
) -> Result<QueryRangeRequest, BadRequest> {
    let (start, end) = bounds(params, now_nanos).map_err(refused)?;
    let step = match params.get("step") {
        Some(text) => step(text).map_err(refused)?,
        None => default_step_nanos(start, end),
    };
    let lenient = |name: &str| {
        params
            .get(name)
            .and_then(|text| parse_uint(text, 32).ok())
            .unwrap_or(0) as u32
    };
    Ok(QueryRangeRequest {
        query: query(params),
        start,
        end,
        step,
        exemplars: lenient("exemplars"),
        max_series: lenient("maxSeries"),
        skip_ast_transformations: comma_separated(params.get("skip_ast_transformations")),
        ..QueryRangeRequest::default()
    })
}

/// Reads an instant query.
pub fn parse_query_instant(
    params: &QueryParams,
    now_nanos: i64,
) -> Result<QueryInstantRequest, BadRequest> {
    let (start, end) = bounds(params, now_nanos).map_err(refused)?;
    Ok(QueryInstantRequest {
        query: query(params),
        start,
        end,
    })
}

/// `q`, or `query` as Prometheus calls it.
fn query(params: &QueryParams) -> String {
    params
        .get("q")
        .or_else(|| params.get("query"))
        .unwrap_or_default()
        .to_owned()
}

/// Start and end in nanoseconds: the end is now, the start `since` (one hour) before the end.
fn bounds(params: &QueryParams, now_nanos: i64) -> Result<(u64, u64), String> {
    let since = match params.get("since") {
        Some(text) => since_nanos(text)?,
        None => DEFAULT_SINCE_NANOS,
    };
    let end = match params.get("end") {
        Some(text) => named_timestamp("end", text)?,
        None => now_nanos,
    };
    let start = match params.get("start") {
        Some(text) => named_timestamp("start", text)?,
        None => end.min(now_nanos).saturating_sub(since),
    };
    let since_epoch = |nanos: i64| u64::try_from(nanos).unwrap_or(0);
    Ok((since_epoch(start), since_epoch(end)))
}

/// A step in nanoseconds: decimal seconds or a Go duration.
fn step(text: &str) -> Result<u64, String> {
    let nanos = match text.parse::<f64>() {
        Ok(seconds) => {
            let nanos = seconds * NANOS_PER_SECOND as f64;
            if !(i64::MIN as f64..=i64::MAX as f64).contains(&nanos) {
                return Err(format!(
                    "cannot parse {} to a valid duration. It overflows int64",
                    quote(text)
                ));
            }
            nanos as i64
        }
        Err(_) => duration::parse_go(text)
            .map_err(|_| format!("cannot parse {} to a valid duration", quote(text)))?,
    };
    u64::try_from(nanos).map_err(|_| format!("cannot parse {}: step must be positive", quote(text)))
}

/// The step of a range query that names none: about 240 points, in round numbers.
pub fn default_step_nanos(start: u64, end: u64) -> u64 {
    const SECOND: u64 = NANOS_PER_SECOND as u64;
    const FINEST: u64 = 50_000_000;
    let range = end.saturating_sub(start);
    let base = range / 240;
    if range < 60 * SECOND {
        return (base / FINEST * FINEST).max(FINEST);
    }
    [3_600, 300, 60, 15, 5, 1]
        .into_iter()
        .map(|seconds| seconds * SECOND)
        .find(|&granularity| base > granularity)
        .map_or(SECOND, |granularity| base / granularity * granularity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn default_steps_are_round() {
        for (range_ms, want_ms) in [
            (30_000, 100),
            (40_000, 150),
            (1_000, 50),
            (59_000, 200),
            (60_000, 1_000),
            (300_000, 1_000),
            (900_000, 3_000),
            (1_800_000, 5_000),
            (3_600_000, 15_000),
            (3 * 3_600_000, 45_000),
            (6 * 3_600_000, 60_000),
            (12 * 3_600_000, 180_000),
            (24 * 3_600_000, 300_000),
            (7 * 24 * 3_600_000, 2_400_000),
            (14 * 24 * 3_600_000, 3_600_000),
            (30 * 24 * 3_600_000, 10_800_000),
        ] {
            assert_eq!(
                default_step_nanos(5, 5 + range_ms * 1_000_000),
                want_ms * 1_000_000
            );
        }
    }

    #[test]
    fn bounds_and_steps_are_read() {
        let now = 10_000 * NANOS_PER_SECOND;
        let parse = |query: &str| {
            parse_query_range(&QueryParams::parse(query), now)
                .map(|range| {
                    (
                        range.start / SECOND,
                        range.end / SECOND,
                        range.step / 1_000_000,
                    )
                })
                .map_err(|error| error.0)
        };
        assert_eq!(parse("q={}"), Ok((6_400, 10_000, 15_000)));
        assert_eq!(
            parse("since=10m&end=20000&step=5"),
            Ok((9_400, 20_000, 5_000))
        );
        assert_eq!(parse("start=1&end=100.5&step=1m30s"), Ok((1, 100, 90_000)));
        assert_eq!(parse("start=1&end=2&step=0"), Ok((1, 2, 0)));
        for (query, want) in [
            (
                "start=x",
                "could not parse 'start' parameter: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            ("step=-1", "cannot parse \"-1\": step must be positive"),
            ("step=x", "cannot parse \"x\" to a valid duration"),
            (
                "step=1e300",
                "cannot parse \"1e300\" to a valid duration. It overflows int64",
            ),
        ] {
            assert_eq!(
                parse(query),
                Err(format!("rpc error: code = Code(400) desc = {want}"))
            );
        }
        let instant = parse_query_instant(&QueryParams::parse("query={}|rate()&q="), now).unwrap();
        assert_eq!(instant.query, "{}|rate()");
    }
}
