//! Completion: the names and the values of attributes, perhaps only of some spans.

use std::sync::Arc;

use hashbrown::HashSet;
use tempo_table::{ABSENT, AttributeScope, Bitmap, Column, ColumnKey, NumberLane, SpanTable};
use tempo_traceql::{
    Attribute, Condition, ConditionGroups, ConditionTest, FieldExpr, Intrinsic, Static,
    ast::{ComparisonOp, Kind, LogicalOp, Status},
};

use crate::{
    error::{EngineError, PlanError},
    filter::matching,
    operand::{Operand, Reading, Source},
    plan::{Filter, Plan},
    session::{Limits, Session},
    test::elements,
    value::{Value, ValueRef},
};

/// Which spans count for completion, ready for any table.
#[derive(Debug, Clone)]
pub struct TagFilter {
    plan: Plan,
    /// Alternatives; `None` when all spans count.
    groups: Option<Vec<Group>>,
}

#[derive(Debug, Clone)]
struct Group {
    conditions: Vec<Condition>,
    filter: Filter,
}

impl TagFilter {
    /// Plans the conditions of a query for tags.
    ///
    /// # Errors
    /// A condition that can hold for no table: it never validates.
    pub fn new(groups: &ConditionGroups) -> Result<Self, PlanError> {
        let ConditionGroups::AnyOf(groups) = groups else {
            return Ok(Self {
                plan: Plan::of_filters(&[])?.0,
                groups: None,
            });
        };
        let exprs: Vec<FieldExpr> = groups.iter().map(|group| conjunction(group)).collect();
        let (plan, filters) = Plan::of_filters(&exprs)?;
        let groups = groups
            .iter()
            .zip(filters)
            .map(|(conditions, filter)| Group {
                conditions: conditions.clone(),
                filter,
            })
            .collect();
        Ok(Self {
            plan,
            groups: Some(groups),
        })
    }

    /// The spans of any of the groups that `wanted` picks; `None` for all spans.
    fn spans(
        &self,
        session: &Session<'_>,
        wanted: impl Fn(&Group) -> bool,
    ) -> Result<Option<Bitmap>, EngineError> {
        let Some(groups) = &self.groups else {
            return Ok(None);
        };
        let mut left = Bitmap::full(session.structure.spans());
        let mut spans = Bitmap::new(left.len());
        for group in groups.iter().filter(|group| wanted(group)) {
            let more = matching(session, &self.plan, &group.filter, &left)?;
            left.and_not(&more);
            spans.or(&more);
        }
        Ok(Some(spans))
    }
}

fn conjunction(group: &[Condition]) -> FieldExpr {
    let operands = group
        .iter()
        .map(|condition| {
            let attribute = Box::new(FieldExpr::Attribute(condition.attribute.clone()));
            match &condition.test {
                ConditionTest::Exists => FieldExpr::Exists(attribute),
                ConditionTest::NotExists => FieldExpr::NotExists(attribute),
                ConditionTest::Compare { op, value } => FieldExpr::Comparison {
                    op: *op,
                    lhs: attribute,
                    rhs: Box::new(FieldExpr::Static(value.clone())),
                },
            }
        })
        .collect();
    FieldExpr::Logical {
        op: LogicalOp::And,
        operands,
    }
}

/// The scopes that attributes can have, in the order of answers.
const SCOPES: [AttributeScope; 5] = [
    AttributeScope::Resource,
    AttributeScope::Span,
    AttributeScope::Event,
    AttributeScope::Link,
    AttributeScope::Instrumentation,
];

/// Names of attributes by scope.
pub type TagNames = Vec<(AttributeScope, Vec<Arc<str>>)>;

/// The names of the attributes that the spans (or their resources, scopes, events and links)
/// have, sorted, by scope; scopes without any are left out.
///
/// # Errors
/// See [`EngineError`].
pub fn tag_names(
    table: &dyn SpanTable,
    scope: Option<AttributeScope>,
    filter: &TagFilter,
    limits: Limits<'_>,
) -> Result<TagNames, EngineError> {
    let session = Session::new(table, limits)?;
    let spans = filter.spans(&session, |_| true)?;
    let mut names = Vec::new();
    for scope in SCOPES
        .into_iter()
        .filter(|s| scope.is_none_or(|scope| scope == *s))
    {
        session.check_cancelled()?;
        let rows = match &spans {
            None => None,
            Some(spans) if spans.is_empty() => continue,
            Some(spans) => {
                let level = scope.level();
                let mut rows = Bitmap::new(table.rows(level)?);
                for row in session.rows_of(level, spans.iter())? {
                    rows.insert(row as usize);
                }
                Some(rows)
            }
        };
        let of_scope = table.attribute_names(scope, rows.as_ref())?;
        if !of_scope.is_empty() {
            names.push((scope, of_scope));
        }
    }
    Ok(names)
}

/// The type of a value as completion names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TagValueType {
    /// `string`
    String,
    /// `int`
    Int,
    /// `float`
    Float,
    /// `bool`
    Bool,
    /// `duration`
    Duration,
    /// `keyword`: a status or kind.
    Keyword,
}

impl TagValueType {
    /// Its name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Duration => "duration",
            Self::Keyword => "keyword",
        }
    }
}

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagValue {
    /// Its type.
    pub value_type: TagValueType,
    /// As answers print it.
    pub value: Arc<str>,
}

/// How much completion may answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct TagValueLimits {
    /// Distinct values; 0 means no limit.
    pub max_values: usize,
    /// Bytes of values and their types' names; 0 means no limit.
    pub max_bytes: usize,
}

/// The distinct values that an attribute has on the spans, sorted. Of a group of conditions that
/// asks for one value of this very attribute that value is the answer, as in Tempo.
///
/// # Errors
/// See [`EngineError`].
pub fn tag_values(
    table: &dyn SpanTable,
    attribute: &Attribute,
    filter: &TagFilter,
    max: TagValueLimits,
    limits: Limits<'_>,
) -> Result<Vec<TagValue>, EngineError> {
    let mut collector = Collector::new(max);
    match attribute {
        Attribute::Intrinsic(Intrinsic::Status) => {
            for status in [Status::Error, Status::Ok, Status::Unset] {
                collector.add(TagValueType::Keyword, status.name());
            }
            return Ok(collector.finish());
        }
        Attribute::Intrinsic(Intrinsic::Kind) => {
            for kind in [
                Kind::Client,
                Kind::Consumer,
                Kind::Internal,
                Kind::Producer,
                Kind::Server,
                Kind::Unspecified,
            ] {
                collector.add(TagValueType::Keyword, kind.name());
            }
            return Ok(collector.finish());
        }
        _ => {}
    }
    // What never validates has no values.
    let Ok(operand) = Operand::new(attribute) else {
        return Ok(Vec::new());
    };
    if matches!(operand.reading(), Reading::ShortHex | Reading::FullHex) {
        return Ok(Vec::new());
    }
    let session = Session::new(table, limits)?;
    for group in filter.groups.iter().flatten() {
        if let Some(value) = asked_value(group, attribute) {
            collector.add_value(ValueRef::of_static(value));
        }
    }
    let spans = filter.spans(&session, |group| asked_value(group, attribute).is_none())?;
    if spans.as_ref().is_some_and(Bitmap::is_empty) {
        return Ok(collector.finish());
    }
    let mut keys: Vec<ColumnKey> = operand.keys().cloned().collect();
    if let (Source::SpanThenResource { .. }, Attribute::Named { name, .. }, None) =
        (&operand.source, attribute, &spans)
    {
        // Without conditions Tempo looks into scopes, too.
        let scope = AttributeScope::Instrumentation;
        keys.push(ColumnKey::attribute(scope, name));
    }
    for key in &keys {
        if collector.is_full {
            break;
        }
        let column = match &spans {
            None => session.column(key)?,
            Some(spans) => session.gather(key, &session.rows_of(key.level(), spans.iter())?)?,
        };
        collect(&column, &mut collector);
    }
    Ok(collector.finish())
}

/// The value that a group demands of the attribute.
fn asked_value<'a>(group: &'a Group, attribute: &Attribute) -> Option<&'a Static> {
    group
        .conditions
        .iter()
        .find_map(|condition| match &condition.test {
            ConditionTest::Compare {
                op: ComparisonOp::Equal,
                value,
            } if condition.attribute == *attribute => Some(value),
            _ => None,
        })
}

fn collect(column: &Column, into: &mut Collector) {
    if let Some(lane) = &column.strings {
        let mut used = vec![false; lane.dict.len()];
        for &code in lane.codes.iter().filter(|&&code| code != ABSENT) {
            used[code as usize] = true;
        }
        for (text, _) in lane.dict.iter().zip(used).filter(|(_, used)| *used) {
            into.add(TagValueType::String, &String::from_utf8_lossy(text));
            if into.is_full {
                return;
            }
        }
    }
    collect_lane(&column.ints, ValueRef::Int, into);
    collect_lane(&column.floats, ValueRef::Float, into);
    collect_lane(&column.bools, ValueRef::Bool, into);
    if let Some(lane) = &column.arrays {
        for array in &*lane.values {
            elements(array).for_each(|element| into.add_value(element));
            if into.is_full {
                return;
            }
        }
    }
}

fn collect_lane<T: Copy>(
    lane: &Option<NumberLane<T>>,
    value: fn(T) -> ValueRef<'static>,
    into: &mut Collector,
) {
    let Some(lane) = lane else { return };
    for value in (0..lane.values.len()).filter_map(|row| Some(value(lane.get(row)?))) {
        into.add_value(value);
        if into.is_full {
            return;
        }
    }
}

struct Collector {
    values: HashSet<TagValue, foldhash::fast::RandomState>,
    /// Numbers that were seen, so that repetitions need not be printed.
    seen: HashSet<(TagValueType, u64), foldhash::fast::RandomState>,
    bytes: usize,
    max: TagValueLimits,
    is_full: bool,
}

impl Collector {
    fn new(max: TagValueLimits) -> Self {
        Self {
            values: HashSet::default(),
            seen: HashSet::default(),
            bytes: 0,
            max,
            is_full: false,
        }
    }

    fn add(&mut self, value_type: TagValueType, value: &str) {
        let value = TagValue {
            value_type,
            value: value.into(),
        };
        if self.is_full || self.values.contains(&value) {
            return;
        }
        self.bytes += value_type.name().len() + value.value.len();
        if self.max.max_bytes > 0 && self.bytes >= self.max.max_bytes {
            self.is_full = true;
            return;
        }
        self.values.insert(value);
        self.is_full = self.max.max_values > 0 && self.values.len() >= self.max.max_values;
    }

    fn add_value(&mut self, value: ValueRef<'_>) {
        let seen = match value {
            ValueRef::Int(value) => Some((TagValueType::Int, value as u64)),
            ValueRef::Float(value) => Some((TagValueType::Float, value.to_bits())),
            ValueRef::Bool(value) => Some((TagValueType::Bool, u64::from(value))),
            _ => None,
        };
        if seen.is_some_and(|seen| !self.seen.insert(seen)) {
            return;
        }
        let value_type = match value {
            ValueRef::Nil | ValueRef::Opaque | ValueRef::Array(_) => return,
            ValueRef::Text(_) | ValueRef::Id { .. } => TagValueType::String,
            ValueRef::Int(_) => TagValueType::Int,
            ValueRef::Float(_) => TagValueType::Float,
            ValueRef::Bool(_) => TagValueType::Bool,
            ValueRef::Duration(_) => TagValueType::Duration,
            ValueRef::Status(_) | ValueRef::Kind(_) => TagValueType::Keyword,
        };
        match value.to_value() {
            Value::String(text) => self.add(value_type, &text),
            Value::Int(value) => self.add(value_type, &Static::Int(value).to_string()),
            Value::Float(value) => self.add(value_type, &Static::Float(value).to_string()),
            Value::Bool(value) => self.add(value_type, &Static::Bool(value).to_string()),
            Value::Duration(nanos) => self.add(value_type, &Static::Duration(nanos).to_string()),
            Value::Status(status) => self.add(value_type, status.name()),
            Value::Kind(kind) => self.add(value_type, kind.name()),
            Value::Nil | Value::Array(_) => {}
        }
    }

    fn finish(self) -> Vec<TagValue> {
        let mut values: Vec<TagValue> = self.values.into_iter().collect();
        values.sort_unstable();
        values
    }
}
