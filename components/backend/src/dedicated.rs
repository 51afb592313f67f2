//! Dedicated columns: attributes that a block stores in a column of their own.
//!
//! Owns their list as it stands in a block's meta and in the configuration, its rules, and its
//! hash. Must never know how a column is written: that is the block's.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use twox_hash::XxHash64;

use crate::BlockFormat;

/// Where an attribute lives.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum DedicatedScope {
    /// On the resource.
    Resource,
    /// On the span; what an absent scope means.
    #[default]
    Span,
    /// On an event of the span (vParquet5 only).
    Event,
    /// One that this program does not know; kept, so that rewriting a meta loses nothing.
    Other(String),
}

/// What an attribute's values are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum DedicatedType {
    /// Strings; what an absent type means.
    #[default]
    String,
    /// Integers (vParquet5 only).
    Int,
    /// One that this program does not know; kept, so that rewriting a meta loses nothing.
    Other(String),
}

/// How a dedicated column is stored (vParquet5 only).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DedicatedOption {
    /// Accepted and without effect: every column of vParquet5 holds arrays.
    Array,
    /// Large values: compressed with zstd, without dictionary and bounds.
    Blob,
    /// One that this program does not know; kept, so that rewriting a meta loses nothing.
    Other(String),
}

macro_rules! text_enum {
    ($name:ident { $($variant:ident = $text:literal),+ }) => {
        impl $name {
            /// The text of it in metas and configuration.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                match text.as_str() {
                    $($text => Self::$variant,)+
                    _ => Self::Other(text),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(Self::from(String::deserialize(deserializer)?))
            }
        }
    };
}

text_enum!(DedicatedScope { Resource = "resource", Span = "span", Event = "event" });
text_enum!(DedicatedType { String = "string", Int = "int" });
text_enum!(DedicatedOption { Array = "array", Blob = "blob" });

/// One attribute with a column of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DedicatedColumn {
    /// Where the attribute lives.
    #[serde(rename = "s", default, skip_serializing_if = "is_span")]
    pub scope: DedicatedScope,
    /// The attribute's key.
    #[serde(rename = "n")]
    pub name: String,
    /// What its values are.
    #[serde(rename = "t", default, skip_serializing_if = "is_string")]
    pub kind: DedicatedType,
    /// How it is stored.
    #[serde(
        rename = "o",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub options: Vec<DedicatedOption>,
}

fn is_span(scope: &DedicatedScope) -> bool {
    *scope == DedicatedScope::Span
}

fn is_string(kind: &DedicatedType) -> bool {
    *kind == DedicatedType::String
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

impl DedicatedColumn {
    /// A string column without options.
    pub fn string(scope: DedicatedScope, name: &str) -> Self {
        Self {
            scope,
            name: name.to_owned(),
            kind: DedicatedType::String,
            options: Vec::new(),
        }
    }

    /// An integer column without options.
    pub fn int(scope: DedicatedScope, name: &str) -> Self {
        Self {
            kind: DedicatedType::Int,
            ..Self::string(scope, name)
        }
    }

    /// Whether it has the option `blob`.
    pub fn is_blob(&self) -> bool {
        self.options.contains(&DedicatedOption::Blob)
    }
}

/// The dedicated columns of a block, in order: the order assigns the physical columns and feeds
/// the hash. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct DedicatedColumns(Arc<[DedicatedColumn]>);

/// Why a list of dedicated columns cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DedicatedColumnsError {
    /// No attribute key.
    #[error("dedicated column {position}: the name is empty")]
    EmptyName {
        /// Its place in the list, from 1.
        position: usize,
    },
    /// The same key twice in one scope.
    #[error("dedicated column '{name}' appears twice in scope {scope}; remove one")]
    Duplicate {
        /// The scope.
        scope: DedicatedScope,
        /// The attribute key.
        name: String,
    },
    /// A word that is not known.
    #[error("dedicated column '{name}': unknown {what} '{value}', known are {known}")]
    Unknown {
        /// The attribute key.
        name: String,
        /// `scope`, `type` or `option`.
        what: &'static str,
        /// The word.
        value: String,
        /// The words that are known.
        known: &'static str,
    },
}

/// Columns of one scope and type that are more than a block has room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DedicatedColumnsSurplus {
    /// The scope.
    pub scope: DedicatedScope,
    /// The type.
    pub kind: DedicatedType,
    /// How many are listed.
    pub listed: usize,
    /// How many are stored; the others stay ordinary attributes.
    pub stored: usize,
}

/// String columns per scope in vParquet5.
pub const MAX_STRING_COLUMNS_V5: usize = 20;
/// Integer columns per scope in vParquet5.
pub const MAX_INT_COLUMNS_V5: usize = 5;
/// String columns per scope in vParquet4, which has no others.
pub const MAX_STRING_COLUMNS_V4: usize = 10;

/// Attributes that vParquet4 stores in columns of its fixed schema.
const WELL_KNOWN_V4: [&str; 11] = [
    "service.name",
    "cluster",
    "namespace",
    "pod",
    "container",
    "k8s.cluster.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
    "http.method",
    "http.url",
];

impl DedicatedColumns {
    /// What Tempo writes when nothing is configured.
    pub fn tempo_defaults() -> Self {
        use DedicatedColumn as C;
        use DedicatedScope::{Resource, Span};
        Self::from(vec![
            C::string(Resource, "k8s.cluster.name"),
            C::string(Resource, "k8s.namespace.name"),
            C::string(Resource, "k8s.pod.name"),
            C::string(Resource, "k8s.container.name"),
            C::string(Span, "http.request.method"),
            C::int(Span, "http.response.status_code"),
            C::string(Span, "url.path"),
            C::string(Span, "url.route"),
            C::string(Span, "server.address"),
            C::int(Span, "server.port"),
            C::string(Span, "http.method"),
            C::string(Span, "http.url"),
            C::string(Span, "http.route"),
            C::int(Span, "http.status_code"),
        ])
    }

    /// The columns, in order.
    pub fn as_slice(&self) -> &[DedicatedColumn] {
        &self.0
    }

    /// Whether both are the same allocation or equal.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self == other
    }

    /// The hash by which compaction groups blocks: xxHash64 with seed 0 over scope, 0xFF, name,
    /// 0xFF, type and, per option, 0xFF, option. An empty list is 0.
    pub fn hash_for_grouping(&self) -> u64 {
        if self.0.is_empty() {
            return 0;
        }
        let mut bytes = Vec::with_capacity(self.0.len() * 32);
        for column in self.0.iter() {
            bytes.extend_from_slice(column.scope.as_str().as_bytes());
            bytes.push(0xff);
            bytes.extend_from_slice(column.name.as_bytes());
            bytes.push(0xff);
            bytes.extend_from_slice(column.kind.as_str().as_bytes());
            for option in &column.options {
                bytes.push(0xff);
                bytes.extend_from_slice(option.as_str().as_bytes());
            }
        }
        XxHash64::oneshot(0, &bytes)
    }

    /// The columns that a block of `format` keeps in its meta: vParquet4 drops what its fixed
    /// schema cannot hold or already has, vParquet5 drops unknown scopes and types.
    #[must_use]
    pub fn retained_by(&self, format: &BlockFormat) -> Self {
        let keeps = |column: &&DedicatedColumn| match format {
            BlockFormat::VParquet4 => {
                matches!(
                    column.scope,
                    DedicatedScope::Resource | DedicatedScope::Span
                ) && column.kind == DedicatedType::String
                    && column.options.is_empty()
                    && !WELL_KNOWN_V4.contains(&column.name.as_str())
            }
            _ => {
                !matches!(column.scope, DedicatedScope::Other(_))
                    && !matches!(column.kind, DedicatedType::Other(_))
            }
        };
        Self(self.0.iter().filter(keeps).cloned().collect())
    }

    /// Checks a configured list. What is more than a block of `format` can hold is no error; it
    /// is told so that it can be logged.
    pub fn validate(
        &self,
        format: &BlockFormat,
    ) -> Result<Vec<DedicatedColumnsSurplus>, DedicatedColumnsError> {
        for (index, column) in self.0.iter().enumerate() {
            if column.name.is_empty() {
                return Err(DedicatedColumnsError::EmptyName {
                    position: index + 1,
                });
            }
            let unknown = |what, value: &str, known| DedicatedColumnsError::Unknown {
                name: column.name.clone(),
                what,
                value: value.to_owned(),
                known,
            };
            if let DedicatedScope::Other(scope) = &column.scope {
                return Err(unknown("scope", scope, "resource, span, event"));
            }
            if let DedicatedType::Other(kind) = &column.kind {
                return Err(unknown("type", kind, "string, int"));
            }
            for option in &column.options {
                if let DedicatedOption::Other(option) = option {
                    return Err(unknown("option", option, "array, blob"));
                }
            }
            let earlier = &self.0[..index];
            if earlier
                .iter()
                .any(|other| other.scope == column.scope && other.name == column.name)
            {
                return Err(DedicatedColumnsError::Duplicate {
                    scope: column.scope.clone(),
                    name: column.name.clone(),
                });
            }
        }
        Ok(self.surplus(format))
    }

    fn surplus(&self, format: &BlockFormat) -> Vec<DedicatedColumnsSurplus> {
        let kept = self.retained_by(format);
        let mut surplus = Vec::new();
        for scope in [
            DedicatedScope::Resource,
            DedicatedScope::Span,
            DedicatedScope::Event,
        ] {
            for kind in [DedicatedType::String, DedicatedType::Int] {
                let listed = kept
                    .0
                    .iter()
                    .filter(|column| column.scope == scope && column.kind == kind)
                    .count();
                let stored = match (format, &kind) {
                    (BlockFormat::VParquet4, _) => MAX_STRING_COLUMNS_V4,
                    (_, DedicatedType::Int) => MAX_INT_COLUMNS_V5,
                    _ => MAX_STRING_COLUMNS_V5,
                };
                if listed > stored {
                    surplus.push(DedicatedColumnsSurplus {
                        scope: scope.clone(),
                        kind,
                        listed,
                        stored,
                    });
                }
            }
        }
        surplus
    }
}

impl From<Vec<DedicatedColumn>> for DedicatedColumns {
    fn from(columns: Vec<DedicatedColumn>) -> Self {
        Self(columns.into())
    }
}

impl Serialize for DedicatedColumns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DedicatedColumns {
    /// A list; `null` is an empty one.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        null_is_empty::<D, DedicatedColumn>(deserializer).map(Self::from)
    }
}

/// The JSON text of a list as it stands in the protobuf tenant index; of an empty list nothing.
pub(crate) fn to_json(columns: &DedicatedColumns) -> Vec<u8> {
    if columns.0.is_empty() {
        return Vec::new();
    }
    serde_json::to_vec(columns).unwrap_or_default()
}

/// Reads what [`to_json`] writes.
pub(crate) fn from_json(text: &[u8]) -> Result<DedicatedColumns, serde_json::Error> {
    if text.is_empty() {
        return Ok(DedicatedColumns::default());
    }
    let columns: DedicatedColumns = serde_json::from_slice(text)?;
    if columns
        .as_slice()
        .iter()
        .any(|column| column.name.is_empty())
    {
        return Err(serde_json::Error::custom("a dedicated column has no name"));
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_that_tempo_computes() {
        let a = DedicatedColumn::string(DedicatedScope::Span, "a");
        let a_blob = DedicatedColumn {
            options: vec![DedicatedOption::Array, DedicatedOption::Blob],
            ..a.clone()
        };
        let hash =
            |columns: Vec<DedicatedColumn>| DedicatedColumns::from(columns).hash_for_grouping();
        assert_eq!(hash(vec![]), 0);
        assert_eq!(hash(vec![a]), 0xD6E6_EB77_C0DC_A1C7);
        assert_eq!(hash(vec![a_blob]), 0xF55F_027F_C203_19D0);
        assert_eq!(
            DedicatedColumns::tempo_defaults().hash_for_grouping(),
            0x14E2_6523_8EE5_4F28
        );
    }

    #[test]
    fn each_format_keeps_what_it_can_hold() {
        let defaults = DedicatedColumns::tempo_defaults();
        assert_eq!(defaults.retained_by(&BlockFormat::VParquet5), defaults);
        assert_eq!(
            serde_json::to_string(&defaults.retained_by(&BlockFormat::VParquet4)).unwrap(),
            r#"[{"n":"http.request.method"},{"n":"url.path"},{"n":"url.route"},{"n":"server.address"},{"n":"http.route"}]"#
        );
    }

    #[test]
    fn unknown_words_are_kept_and_refused_in_configuration() {
        let text = r#"[{"s":"link","n":"a","t":"float","o":["fast"]}]"#;
        let columns: DedicatedColumns = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&columns).unwrap(), text);
        assert!(
            columns
                .retained_by(&BlockFormat::VParquet5)
                .as_slice()
                .is_empty()
        );
        let error = columns.validate(&BlockFormat::VParquet5).unwrap_err();
        assert_eq!(
            error.to_string(),
            "dedicated column 'a': unknown scope 'link', known are resource, span, event"
        );
    }

    #[test]
    fn duplicates_and_empty_names_are_errors_and_surplus_is_told() {
        let span = |name: &str| DedicatedColumn::string(DedicatedScope::Span, name);
        let validate = |columns: Vec<DedicatedColumn>, format| {
            DedicatedColumns::from(columns).validate(&format)
        };
        let v5 = BlockFormat::VParquet5;
        assert_eq!(
            validate(vec![span("")], v5.clone()),
            Err(DedicatedColumnsError::EmptyName { position: 1 })
        );
        assert!(matches!(
            validate(
                vec![span("a"), DedicatedColumn::int(DedicatedScope::Span, "a")],
                v5.clone()
            ),
            Err(DedicatedColumnsError::Duplicate { .. })
        ));
        let resource = DedicatedColumn::string(DedicatedScope::Resource, "a");
        assert_eq!(validate(vec![span("a"), resource], v5.clone()), Ok(vec![]));
        let many: Vec<DedicatedColumn> = (0..21).map(|index| span(&index.to_string())).collect();
        let surplus = validate(many.clone(), v5).unwrap();
        assert_eq!((surplus[0].listed, surplus[0].stored), (21, 20));
        let surplus = validate(many, BlockFormat::VParquet4).unwrap();
        assert_eq!((surplus[0].listed, surplus[0].stored), (21, 10));
    }
}
