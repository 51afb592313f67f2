//! The parameters of a trace lookup.

use tempo_model::TraceId;

use super::QueryParams;
use crate::{
    BadRequest,
    go::{parse_bool, parse_int},
};

/// Reads the trace id of a path.
pub fn parse_trace_id(text: &str) -> Result<TraceId, BadRequest> {
    text.parse()
        .map_err(|error: tempo_model::ParseTraceIdError| BadRequest::new(error.to_string()))
}

/// Which blocks a trace lookup may be narrowed to.
///
/// Tempo has three more parameters (`mode`, `blockStart`, `blockEnd`) that its components send each
/// other. A client's are checked, as Tempo does, and then ignored: they must not steer the jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceByIdParams {
    /// Unix seconds.
    pub start: Option<i64>,
    /// Unix seconds.
    pub end: Option<i64>,
}

impl TraceByIdParams {
    /// Reads and checks the parameters.
    pub fn parse(params: &QueryParams) -> Result<Self, BadRequest> {
        match params.get("mode") {
            None | Some("all" | "blocks" | "external") => {}
            Some("ingesters") => return Ok(Self::default()),
            Some(mode) => {
                return Err(BadRequest::new(format!("invalid value for mode {mode}")));
            }
        }
        for (name, shown) in [("blockStart", "blockstart"), ("blockEnd", "blockEnd")] {
            if let Some(text) = params.get(name) {
                check_uuid(text).map_err(|error| {
                    BadRequest::new(format!("invalid value for {shown}: {error}"))
                })?;
            }
        }
        let seconds = |name: &str| {
            params
                .get(name)
                .map(|text| {
                    parse_int("ParseInt", text)
                        .map_err(|error| BadRequest::new(format!("invalid {name}: {error}")))
                })
                .transpose()
        };
        let (start, end) = (seconds("start")?, seconds("end")?);
        if let (Some(start), Some(end)) = (start, end)
            && end <= start
        {
            return Err(BadRequest::new(format!(
                "http parameter start must be before end. received start={start} end={end}"
            )));
        }
        Ok(Self { start, end })
    }

    /// Both ends, if both are given: only then do they narrow anything.
    pub fn range(&self) -> Option<(i64, i64)> {
        self.start.zip(self.end)
    }
}

/// Checks the shape of a UUID in the four spellings that are in use.
fn check_uuid(text: &str) -> Result<(), String> {
    let bare = match text.len() {
        32 | 36 => text,
        38 => text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
            .ok_or("invalid UUID format")?,
        45 => text
            .get(..9)
            .filter(|prefix| prefix.eq_ignore_ascii_case("urn:uuid:"))
            .and_then(|_| text.get(9..))
            .ok_or("invalid urn prefix")?,
        len => return Err(format!("invalid UUID length: {len}")),
    };
    let proper = bare.bytes().enumerate().all(|(at, byte)| {
        if bare.len() == 36 && matches!(at, 8 | 13 | 18 | 23) {
            byte == b'-'
        } else {
            byte.is_ascii_hexdigit()
        }
    });
    if proper {
        Ok(())
    } else {
        Err("invalid UUID format".to_owned())
    }
}

/// Which spans of a trace the client wants to see (v2 only).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceFilterParams {
    /// One TraceQL spanset filter.
    pub query: String,
    /// Keep the spans between a match and its root.
    pub keep_hierarchy: bool,
    /// Levels of descendants kept below a match; all of them when `None`.
    pub match_depth: Option<u32>,
    /// Levels of ancestors kept above a match, with [`Self::keep_hierarchy`]; all when `None`.
    pub ancestor_depth: Option<u32>,
}

impl TraceFilterParams {
    /// Reads the filter; `None` when there is no query, in which case the other parameters do not
    /// matter and are not checked.
    pub fn parse(params: &QueryParams) -> Result<Option<Self>, BadRequest> {
        let query = params.get("q").unwrap_or_default().trim();
        if query.is_empty() {
            return Ok(None);
        }
        let keep_hierarchy = match params.get("keep_hierarchy") {
            Some(text) => parse_bool(text).map_err(|error| {
                BadRequest::new(format!("invalid value for keep_hierarchy: {error}"))
            })?,
            None => false,
        };
        let match_depth = depth(params, "match_depth", Some(0))?;
        let ancestor_depth = if keep_hierarchy {
            depth(params, "ancestor_depth", None)?
        } else {
            None
        };
        Ok(Some(Self {
            query: query.to_owned(),
            keep_hierarchy,
            match_depth,
            ancestor_depth,
        }))
    }
}

fn depth(
    params: &QueryParams,
    name: &str,
    default: Option<u32>,
) -> Result<Option<u32>, BadRequest> {
    let Some(text) = params.get(name) else {
        return Ok(default);
    };
    let depth = parse_int("Atoi", text)
        .map_err(|error| BadRequest::new(format!("invalid value for {name}: {error}")))?;
    match depth {
        -1 => Ok(None),
        0.. => Ok(Some(u32::try_from(depth).unwrap_or(u32::MAX))),
        _ => Err(BadRequest::new(format!(
            "invalid value for {name}: must be >= -1"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<TraceByIdParams, String> {
        TraceByIdParams::parse(&QueryParams::parse(query)).map_err(|error| error.0)
    }

    #[test]
    fn times_are_read_and_internal_parameters_checked() {
        let range = |start, end| TraceByIdParams { start, end };
        assert_eq!(parse(""), Ok(range(None, None)));
        assert_eq!(parse("start=1&end=2"), Ok(range(Some(1), Some(2))));
        assert_eq!(parse("start=1"), Ok(range(Some(1), None)));
        assert_eq!(parse("mode=ingesters&start=x"), Ok(range(None, None)));
        assert_eq!(
            parse("mode=blocks&blockStart=00000000-0000-0000-0000-000000000000"),
            Ok(range(None, None))
        );
        for (query, want) in [
            ("mode=some", "invalid value for mode some"),
            (
                "blockStart=1234",
                "invalid value for blockstart: invalid UUID length: 4",
            ),
            (
                "blockEnd=zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
                "invalid value for blockEnd: invalid UUID format",
            ),
            (
                "start=a",
                "invalid start: strconv.ParseInt: parsing \"a\": invalid syntax",
            ),
            (
                "start=1&end=1",
                "http parameter start must be before end. received start=1 end=1",
            ),
        ] {
            assert_eq!(parse(query), Err(want.to_owned()), "{query}");
        }
    }

    #[test]
    fn filters_have_their_defaults_and_limits() {
        let parse =
            |query: &str| TraceFilterParams::parse(&QueryParams::parse(query)).map_err(|e| e.0);
        assert_eq!(parse("q=+++&match_depth=-9"), Ok(None));
        let filter = parse("q=+{.a=1}+").unwrap().unwrap();
        assert_eq!(filter.query, "{.a=1}");
        assert_eq!(
            (
                filter.keep_hierarchy,
                filter.match_depth,
                filter.ancestor_depth
            ),
            (false, Some(0), None)
        );
        let filter = parse("q={}&keep_hierarchy=true&match_depth=-1&ancestor_depth=3")
            .unwrap()
            .unwrap();
        assert_eq!(
            (
                filter.keep_hierarchy,
                filter.match_depth,
                filter.ancestor_depth
            ),
            (true, None, Some(3))
        );
        assert_eq!(
            parse("q={}&ancestor_depth=-5").map(|filter| filter.is_some()),
            Ok(true)
        );
        assert_eq!(
            parse("q={}&match_depth=-2"),
            Err("invalid value for match_depth: must be >= -1".to_owned())
        );
        assert!(parse("q={}&keep_hierarchy=maybe").is_err());
    }
}
