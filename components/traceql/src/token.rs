//! The words of the language.

use std::fmt;

/// One token with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// The end of the text.
    End,
    /// A name of an attribute or hint, or text that is no known token.
    Identifier(String),
    /// A quoted string, unescaped.
    String(String),
    /// A decimal integer.
    Integer(i64),
    /// A float.
    Float(f64),
    /// Nanoseconds.
    Duration(i64),
    /// Follows the name of an attribute.
    EndAttribute,
    /// An operator, punctuation or keyword.
    Symbol(Symbol),
}

/// How error messages call the token.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::End => "$end",
            Self::Identifier(_) => "IDENTIFIER",
            Self::String(_) => "STRING",
            Self::Integer(_) => "INTEGER",
            Self::Float(_) => "FLOAT",
            Self::Duration(_) => "DURATION",
            Self::EndAttribute => "END_ATTRIBUTE",
            Self::Symbol(symbol) => symbol.text(),
        })
    }
}

macro_rules! symbols {
    ($($name:ident $text:literal)*) => {
        /// A token that has one spelling.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Symbol { $($name),* }

        impl Symbol {
            /// Its spelling.
            pub(crate) fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The token with exactly this spelling.
            pub(crate) fn from_text(text: &str) -> Option<Self> {
                Some(match text { $($text => Self::$name,)* _ => return None })
            }
        }
    };
}

symbols! {
    Comma "," Dot "." OpenBrace "{" CloseBrace "}" OpenParens "(" CloseParens ")"
    Equal "=" NotEqual "!=" Regex "=~" NotRegex "!~" Greater ">" GreaterEqual ">=" Less "<"
    LessEqual "<=" Add "+" Sub "-" Div "/" Mod "%" Mul "*" Pow "^"
    True "true" False "false" Nil "nil"
    Ok "ok" Error "error" Unset "unset"
    Unspecified "unspecified" Internal "internal" Server "server" Client "client"
    Producer "producer" Consumer "consumer"
    And "&&" Or "||" Not "!" Pipe "|"
    Descendant ">>" Ancestor "<<" Sibling "~"
    NotChild "!>" NotParent "!<" NotDescendant "!>>" NotAncestor "!<<"
    UnionSibling "&~" UnionChild "&>" UnionParent "&<" UnionDescendant "&>>" UnionAncestor "&<<"
    Duration "duration" ChildCount "childCount" Name "name" Status "status"
    StatusMessage "statusMessage" Kind "kind" RootName "rootName"
    RootServiceName "rootServiceName" RootService "rootService" TraceDuration "traceDuration"
    NestedSetLeft "nestedSetLeft" NestedSetRight "nestedSetRight"
    NestedSetParent "nestedSetParent" Id "id" TraceId "traceID" SpanId "spanID"
    ParentId "parentID" TimeSinceStart "timeSinceStart" Version "version" Parent "parent"
    ParentDot "parent." ResourceDot "resource." SpanDot "span." EventDot "event."
    LinkDot "link." InstrumentationDot "instrumentation."
    TraceColon "trace:" SpanColon "span:" EventColon "event:" LinkColon "link:"
    InstrumentationColon "instrumentation:"
    Count "count" Avg "avg" Max "max" Min "min" Sum "sum"
    By "by" Coalesce "coalesce" Select "select"
    Rate "rate" CountOverTime "count_over_time" MinOverTime "min_over_time"
    MaxOverTime "max_over_time" AvgOverTime "avg_over_time" SumOverTime "sum_over_time"
    QuantileOverTime "quantile_over_time" HistogramOverTime "histogram_over_time"
    Compare "compare" TopK "topk" BottomK "bottomk" With "with"
}

impl Symbol {
    /// Whether an attribute name follows.
    pub(crate) fn starts_attribute(self) -> bool {
        matches!(
            self,
            Self::Dot
                | Self::ParentDot
                | Self::ResourceDot
                | Self::SpanDot
                | Self::EventDot
                | Self::LinkDot
                | Self::InstrumentationDot
        )
    }

    /// Whether an intrinsic of the scope follows.
    pub(crate) fn starts_scoped_intrinsic(self) -> bool {
        matches!(
            self,
            Self::TraceColon
                | Self::SpanColon
                | Self::EventColon
                | Self::LinkColon
                | Self::InstrumentationColon
        )
    }

    /// Whether the word names an intrinsic, bare or behind a colon scope.
    pub(crate) fn is_intrinsic(self) -> bool {
        matches!(
            self,
            Self::Duration
                | Self::ChildCount
                | Self::Name
                | Self::Status
                | Self::StatusMessage
                | Self::Kind
                | Self::RootName
                | Self::RootServiceName
                | Self::RootService
                | Self::TraceDuration
                | Self::NestedSetLeft
                | Self::NestedSetRight
                | Self::NestedSetParent
                | Self::Id
                | Self::TraceId
                | Self::SpanId
                | Self::ParentId
                | Self::TimeSinceStart
                | Self::Version
                | Self::Parent
        )
    }
}

/// Whether a rune may stand unquoted in the name of an attribute.
pub fn is_attribute_rune(rune: char) -> bool {
    !rune.is_whitespace()
        && !matches!(
            rune,
            '{' | '}' | '(' | ')' | '=' | '~' | '!' | '<' | '>' | '&' | '|' | '^' | ','
        )
}
