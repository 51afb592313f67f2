//! Random traces and random queries about them.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tempo_proto::{
    opentelemetry::proto::{
        common::v1::{
            AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value as Wire,
        },
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span},
    },
    tempopb::Trace,
};

/// When the first span may start, in nanoseconds since the epoch.
pub const ORIGIN_NANO: u64 = 1_000_000_000_000;
/// How long after it the last one may start.
pub const EXTENT_NANO: u64 = 60_000_000_000;

const SECOND: u64 = 1_000_000_000;

/// Makes traces and queries; the same ones for the same seed.
pub struct Maker {
    random: StdRng,
    spans: u64,
}

impl Maker {
    /// A maker for a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            spans: 0,
        }
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.random).expect("a choice")
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random.random_range(0..limit)
    }

    // -----------------------------------------------------------------------------------------
    // Traces
    // -----------------------------------------------------------------------------------------

    /// Some traces with their ids, ascending.
    pub fn traces(&mut self) -> Vec<(Vec<u8>, Trace)> {
        let count = 1 + self.below(8);
        (1..=count)
            .map(|number| {
                let mut id = vec![0; 16];
                id[15] = number as u8;
                id[7] = u8::from(number > 1);
                let trace = self.trace(&id);
                (id, trace)
            })
            .collect()
    }

    fn trace(&mut self, id: &[u8]) -> Trace {
        let first = self.spans;
        let count = 1 + self.below(9) as u64;
        let is_rootless = self.chance(8);
        let mut resource_spans = Vec::new();
        while self.spans < first + count {
            let mut scope_spans = Vec::new();
            for _ in 0..1 + self.below(2) {
                let spans = (0..1 + self.below(3))
                    .map(|_| self.span(id, first, count, is_rootless))
                    .collect();
                scope_spans.push(ScopeSpans {
                    scope: Some(self.scope()),
                    spans,
                    ..ScopeSpans::default()
                });
            }
            resource_spans.push(ResourceSpans {
                resource: Some(self.resource()),
                scope_spans,
                ..ResourceSpans::default()
            });
        }
        Trace { resource_spans }
    }

    fn resource(&mut self) -> Resource {
        let service = self.one(&["shop", "cart", "db"]);
        let mut attributes = vec![attribute("service.name", text(service))];
        for name in ["a", "c"] {
            attributes.extend(self.maybe(name));
        }
        Resource {
            attributes,
            ..Resource::default()
        }
    }

    fn scope(&mut self) -> InstrumentationScope {
        InstrumentationScope {
            name: self.one(&["", "http", "sql"]).to_owned(),
            version: self.one(&["", "1", "2"]).to_owned(),
            attributes: self.maybe("a").into_iter().collect(),
            ..InstrumentationScope::default()
        }
    }

    fn span(&mut self, trace: &[u8], first: u64, count: u64, is_rootless: bool) -> Span {
        self.spans += 1;
        let parent = match self.below(100) {
            0..20 if !is_rootless => Vec::new(),
            0..30 => vec![0xff; 8],
            // A later span, or the span itself, too.
            _ => (first + 1 + self.random.random_range(0..count))
                .to_be_bytes()
                .to_vec(),
        };
        let start = ORIGIN_NANO
            + match self.below(3) {
                // Right where an interval ends.
                0 => self.random.random_range(0..EXTENT_NANO / SECOND) * SECOND,
                _ => self.random.random_range(0..EXTENT_NANO),
            };
        let duration = match self.below(3) {
            0 => self.one(&[0, 1, 1_000_000, SECOND]),
            _ => self.random.random_range(0..3 * SECOND),
        };
        let mut attributes = Vec::new();
        for name in ["a", "b"] {
            attributes.extend(self.maybe(name));
        }
        if self.chance(70) {
            let value = self.random.random_range(-3..12);
            attributes.push(attribute("n", Wire::IntValue(value)));
        }
        if self.chance(60) {
            let value = self.one(&[-1.5, 0.0, 0.5, 2.0, 7.25]);
            attributes.push(attribute("f", Wire::DoubleValue(value)));
        }
        if self.chance(50) {
            let flag = self.chance(50);
            attributes.push(attribute("flag", Wire::BoolValue(flag)));
        }
        let status = self.chance(70).then(|| Status {
            code: self.one(&[0, 1, 2]),
            message: self.one(&["", "bad"]).to_owned(),
        });
        Span {
            trace_id: trace.to_vec(),
            span_id: self.spans.to_be_bytes().to_vec(),
            parent_span_id: parent,
            name: self.one(&["get", "put", "getput", ""]).to_owned(),
            kind: self.one(&[0, 1, 2, 3, 4, 5]),
            start_time_unix_nano: start,
            end_time_unix_nano: start + duration,
            attributes,
            events: (0..self.below(3)).map(|_| self.event(start)).collect(),
            links: (0..self.below(2)).map(|_| self.link()).collect(),
            status,
            ..Span::default()
        }
    }

    fn event(&mut self, start: u64) -> span::Event {
        let mut attributes = Vec::new();
        for name in ["e", "g"] {
            attributes.extend(self.maybe(name));
        }
        if self.chance(60) {
            let value = self.random.random_range(0..5);
            attributes.push(attribute("n", Wire::IntValue(value)));
        }
        span::Event {
            time_unix_nano: start + self.one(&[0, 1, 1_000_000, SECOND]),
            name: self.one(&["retry", "done", ""]).to_owned(),
            attributes,
            ..span::Event::default()
        }
    }

    fn link(&mut self) -> span::Link {
        span::Link {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            attributes: self.maybe("l").into_iter().collect(),
            ..span::Link::default()
        }
    }

    /// An attribute of any type, or none.
    fn maybe(&mut self, name: &str) -> Option<KeyValue> {
        let value = match self.below(20) {
            0..6 => return None,
            6..10 => Wire::IntValue(self.random.random_range(0..4)),
            10..12 => Wire::DoubleValue(self.one(&[0.5, 1.0, 2.5, 3.0])),
            12..16 => text(self.one(&["x", "y", "xy", ""])),
            16..18 => Wire::BoolValue(self.chance(50)),
            18 => {
                let of = self.below(3);
                let values = (0..self.below(3)).map(|_| match of {
                    0 => text(self.one(&["x", "y"])),
                    1 => Wire::DoubleValue(self.one(&[0.5, 1.0])),
                    _ => Wire::IntValue(self.random.random_range(0..3)),
                });
                let values = values
                    .map(|value| AnyValue { value: Some(value) })
                    .collect();
                Wire::ArrayValue(ArrayValue { values })
            }
            _ => Wire::BytesValue(vec![1, 2]),
        };
        Some(attribute(name, value))
    }

    // -----------------------------------------------------------------------------------------
    // Queries
    // -----------------------------------------------------------------------------------------

    /// A search. Some do not validate.
    pub fn search(&mut self) -> String {
        if self.chance(10) {
            // Pipelines as operands cannot be followed by anything.
            let (lhs, rhs) = (self.pipeline(2), self.pipeline(2));
            let op = self.spanset_op();
            return format!("({lhs}) {op} ({rhs})");
        }
        let elements = self.below(4);
        self.pipeline(elements)
    }

    fn pipeline(&mut self, elements: usize) -> String {
        let mut pipeline = self.spanset(2);
        for _ in 0..elements {
            let element = match self.below(10) {
                0..3 => self.spanset(1),
                3..6 => self.scalar_filter(),
                6..8 => format!("by({})", self.operand()),
                8 => "coalesce()".to_owned(),
                _ => format!("select({})", self.attribute()),
            };
            pipeline = format!("{pipeline} | {element}");
        }
        pipeline
    }

    fn spanset_op(&mut self) -> &'static str {
        self.one(&[
            "&&", "||", ">", "<", ">>", "<<", "~", "!>", "!<", "!>>", "!<<", "!~", "&>", "&<",
            "&>>", "&<<", "&~",
        ])
    }

    fn spanset(&mut self, depth: usize) -> String {
        if depth > 0 && self.chance(35) {
            let (lhs, rhs) = (self.spanset(depth - 1), self.spanset(depth - 1));
            let op = self.spanset_op();
            return format!("({lhs}) {op} ({rhs})");
        }
        if self.chance(10) {
            return "{ }".to_owned();
        }
        let depth = self.below(4);
        format!("{{ {} }}", self.filter(depth))
    }

    fn filter(&mut self, depth: usize) -> String {
        if depth == 0 || self.chance(25) {
            return self.condition();
        }
        match self.below(9) {
            0 => format!("!({})", self.filter(depth - 1)),
            1..6 => format!(
                "({}) && ({})",
                self.filter(depth - 1),
                self.filter(depth - 1)
            ),
            _ => format!(
                "({}) || ({})",
                self.filter(depth - 1),
                self.filter(depth - 1)
            ),
        }
    }

    fn attribute(&mut self) -> &'static str {
        self.one(&[
            "span.a",
            "span.b",
            "span.n",
            "span.f",
            "span.flag",
            "span.none",
            "resource.a",
            "resource.c",
            "resource.service.name",
            "instrumentation.a",
            "event.e",
            "event.g",
            "event.n",
            "link.l",
            ".a",
            ".b",
            ".n",
            ".none",
            ".service.name",
        ])
    }

    /// What is a number if it is there at all: without one, arithmetic yields `false`, which equals
    /// a boolean.
    fn number(&mut self) -> String {
        let number = match self.below(10) {
            0..3 => "span.n",
            3..5 => ".n",
            5..7 => "span.f",
            7 => "duration",
            8 => ".none",
            _ => "event.n",
        };
        number.to_owned()
    }

    fn comparison(&mut self) -> &'static str {
        self.one(&["=", "!=", "<", "<=", ">", ">="])
    }

    fn equality(&mut self) -> &'static str {
        self.one(&["=", "!="])
    }

    fn condition(&mut self) -> String {
        match self.below(20) {
            0..8 => {
                let attribute = self.attribute();
                self.with_constant(attribute)
            }
            8 => format!("{} {} nil", self.attribute(), self.equality()),
            9 => self.attribute().to_owned(),
            10 => format!(
                "{} {} {}",
                self.attribute(),
                self.comparison(),
                self.attribute()
            ),
            11 => {
                let op = self.one(&["+", "-", "*", "/", "%", "^"]);
                let (lhs, rhs) = (self.number(), self.number_or_constant());
                let (comparison, constant) = (self.comparison(), self.number_or_constant());
                format!("{lhs} {op} {rhs} {comparison} {constant}")
            }
            12 => format!("-{} {} {}", self.number(), self.comparison(), self.below(5)),
            13 => {
                // Chains that are rewritten to lists.
                let attribute = self.attribute();
                let (one, other) = (self.below(4), self.below(4));
                let text = self.one(&["x", "y", "x.*"]);
                match self.below(4) {
                    0 => format!("{attribute} = {one} || {attribute} = {other}"),
                    1 => format!("{attribute} != {one} && {attribute} != {other}"),
                    2 => format!("{attribute} =~ `{text}` || {attribute} =~ `y`"),
                    _ => format!("{attribute} !~ `{text}` && {attribute} !~ `xy`"),
                }
            }
            _ => self.intrinsic_condition(),
        }
    }

    fn number_or_constant(&mut self) -> String {
        match self.below(4) {
            0 => self.number(),
            1 => self.one(&["0.5", "2.0", "1e3"]).to_owned(),
            _ => self.below(4).to_string(),
        }
    }

    /// An attribute and a constant of any type, in either order.
    fn with_constant(&mut self, attribute: &str) -> String {
        let (op, constant) = match self.below(10) {
            0..3 => (self.comparison(), self.below(4).to_string()),
            3..5 => {
                let constant = self.one(&["0.5", "1.0", "2.5", "3.0"]);
                (self.comparison(), constant.to_owned())
            }
            5..7 => {
                let constant = self.one(&["x", "y", "xy", "", "shop"]);
                (self.comparison(), format!("`{constant}`"))
            }
            7 => {
                let pattern = self.one(&["x", "x.*", ".*y", "x|y", "", "[xs].*"]);
                return format!("{attribute} {} `{pattern}`", self.one(&["=~", "!~"]));
            }
            8 => (self.equality(), self.one(&["true", "false"]).to_owned()),
            _ => (
                self.equality(),
                self.one(&["1s", "error", "server"]).to_owned(),
            ),
        };
        if self.chance(20) {
            format!("{constant} {op} {attribute}")
        } else {
            format!("{attribute} {op} {constant}")
        }
    }

    fn intrinsic_condition(&mut self) -> String {
        match self.below(14) {
            0 => {
                let name = self.one(&["get", "put", "getput", ""]);
                format!("name {} `{name}`", self.comparison())
            }
            1 => format!("name =~ `{}`", self.one(&["get.*", ".*put", "g|put"])),
            2 => {
                let duration = self.one(&["1s", "1ms", "0.5s", "1500000000", "1e9", "2s"]);
                format!("duration {} {duration}", self.comparison())
            }
            3 => format!(
                "status {} {}",
                self.equality(),
                self.one(&["ok", "error", "unset"])
            ),
            4 => {
                let kind = self.one(&["server", "client", "unspecified", "internal", "consumer"]);
                format!("kind {} {kind}", self.equality())
            }
            5 => format!("statusMessage {} `bad`", self.equality()),
            6 => {
                let field = self.one(&["nestedSetLeft", "nestedSetRight", "nestedSetParent"]);
                let number = self.one(&["1", "-1", "0", "3", "4"]);
                format!("{field} {} {number}", self.comparison())
            }
            7 => {
                let field = self.one(&["traceDuration", "trace:duration"]);
                format!(
                    "{field} {} {}",
                    self.comparison(),
                    self.one(&["10s", "40s", "1s"])
                )
            }
            8 => {
                let name = self.one(&["get", "put", ""]);
                format!("rootName {} `{name}`", self.equality())
            }
            9 => {
                let service = self.one(&["shop", "cart", ""]);
                format!("rootServiceName {} `{service}`", self.equality())
            }
            10 => {
                let name = self.one(&["retry", "done", ""]);
                format!("event:name {} `{name}`", self.equality())
            }
            11 => {
                let since = self.one(&["0s", "1ms", "1ns", "1s"]);
                format!("event:timeSinceStart {} {since}", self.comparison())
            }
            12 => {
                let field = self.one(&["instrumentation:name", "instrumentation:version"]);
                format!(
                    "{field} {} `{}`",
                    self.equality(),
                    self.one(&["http", "1", ""])
                )
            }
            _ => {
                let id = self.one(&["1", "1000000000000002", "0000000000000003"]);
                format!("trace:id {} `{id}`", self.equality())
            }
        }
    }

    /// What spans are grouped by.
    fn operand(&mut self) -> String {
        match self.below(10) {
            0..6 => self.attribute().to_owned(),
            6 => self
                .one(&["name", "kind", "status", "nestedSetParent"])
                .to_owned(),
            7 => format!("{} + 1", self.one(&["span.n", "span.f"])),
            8 => format!("span.n {} 3", self.comparison()),
            _ => "rootServiceName".to_owned(),
        }
    }

    /// Numbers of one type only, so that their order does not matter.
    fn aggregate(&mut self) -> String {
        match self.below(8) {
            0..3 => "count()".to_owned(),
            _ => {
                let function = self.one(&["min", "max", "sum", "avg"]);
                let operand = self.one(&[
                    "duration",
                    "span.n",
                    ".n",
                    "span.f",
                    "span.none",
                    "span.n * 2",
                    "nestedSetLeft",
                ]);
                format!("{function}({operand})")
            }
        }
    }

    fn scalar_filter(&mut self) -> String {
        let comparison = self.comparison();
        let constant = self.one(&["0", "1", "2", "3", "-1", "1.5", "1s", "500ms"]);
        match self.below(6) {
            0 => {
                let (lhs, rhs) = (self.aggregate(), self.aggregate());
                format!("{lhs} {comparison} {rhs}")
            }
            1 => {
                let op = self.one(&["+", "-", "*"]);
                let (lhs, rhs) = (self.aggregate(), self.aggregate());
                format!("{lhs} {op} {rhs} {comparison} {constant}")
            }
            2 => {
                let op = self.one(&["+", "-", "*", "/"]);
                let number = self.one(&["2", "3", "0.5"]);
                format!("{} {op} {number} {comparison} {constant}", self.aggregate())
            }
            _ => format!("{} {comparison} {constant}", self.aggregate()),
        }
    }

    /// A query over time. Some do not validate.
    pub fn range(&mut self) -> String {
        match self.below(10) {
            0..7 => {
                let query = self.leaf();
                let stage = self.second_stage();
                format!("{query}{stage}")
            }
            7 => {
                let op = self.one(&["+", "-", "*", "/"]);
                let number = self.one(&["2", "0.5", "100"]);
                let leaf = self.leaf();
                if self.chance(50) {
                    format!("({leaf}) {op} {number}")
                } else {
                    format!("{number} {op} ({leaf})")
                }
            }
            _ => {
                let op = self.one(&["+", "-", "*", "/"]);
                let (lhs, rhs) = (self.leaf(), self.leaf());
                let stage = self.second_stage();
                format!("({lhs}) {op} ({rhs}){stage}")
            }
        }
    }

    fn second_stage(&mut self) -> String {
        let k = 1 + self.below(3);
        let threshold = self.one(&["0", "1", "0.5", "2", "500ms"]);
        match self.below(8) {
            0 => format!(" | topk({k})"),
            1 => format!(" | bottomk({k})"),
            2 => format!(" {} {threshold}", self.comparison()),
            _ => String::new(),
        }
    }

    fn leaf(&mut self) -> String {
        // Often few conditions, so that there is something to count.
        let pipeline = match self.below(10) {
            0 | 1 => "{ }".to_owned(),
            2..6 => format!("{{ {} }}", self.intrinsic_condition()),
            elements => self.pipeline(elements / 8),
        };
        // No arrays, of which only elements that meet conditions count, and no events.
        let measured = self.one(&["duration", "span.n", "span.f", "span.none", "traceDuration"]);
        let function = match self.below(9) {
            0 | 1 => "rate()".to_owned(),
            2 => "count_over_time()".to_owned(),
            3 => format!("min_over_time({measured})"),
            4 => format!("max_over_time({measured})"),
            5 => format!("sum_over_time({measured})"),
            6 => format!("avg_over_time({measured})"),
            7 => format!("histogram_over_time({measured})"),
            _ => format!("quantile_over_time({measured}, 0, .5, .9)"),
        };
        let groups = [
            "resource.service.name",
            "name",
            "kind",
            "status",
            "span.n",
            "span.f",
            "span.flag",
            ".n",
            "span.none",
            "rootName",
        ];
        let mut by: Vec<&str> = Vec::new();
        for _ in 0..self.below(3) {
            let group = self.one(&groups);
            if !by.contains(&group) {
                by.push(group);
            }
        }
        let by = if by.is_empty() {
            String::new()
        } else {
            format!(" by({})", by.join(", "))
        };
        format!("{pipeline} | {function}{by}")
    }
}

fn text(text: &str) -> Wire {
    Wire::StringValue(text.to_owned())
}

fn attribute(key: &str, value: Wire) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
