//! YAML text to a tree that knows where everything stands.
//!
//! Scalars keep their text: what it means is decided by the key that reads it. Anchors, aliases
//! and merge keys (`<<`) work; a key that is written twice is an error, as is a second document.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::error::Issue;

/// Lists and maps within each other.
const MAX_DOCUMENT_DEPTH: usize = 64;
/// Values of a document, those that aliases repeat included.
const MAX_DOCUMENT_NODES: usize = 200_000;

/// Where something stands in the text, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl From<Span> for Mark {
    fn from(span: Span) -> Self {
        Self {
            line: span.start.line(),
            column: span.start.col() + 1,
        }
    }
}

/// A value and where it starts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) content: Content,
    pub(crate) mark: Mark,
}

/// A value as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// Nothing, `~` or `null`.
    Null,
    /// Any text; quoted text is never a number or a boolean to whom it matters.
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) mark: Mark,
    pub(crate) value: Node,
}

impl Content {
    pub(crate) fn plain(text: &str) -> Self {
        Self::Scalar {
            text: text.to_owned(),
            quoted: false,
        }
    }

    /// What kind of value it is, for error messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar { .. } => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Reads a document; an empty text is an empty map.
pub(crate) fn parse(text: &str) -> Result<Node, Issue> {
    let mut builder = Builder {
        events: Parser::new_from_str(text),
        anchors: HashMap::new(),
        nodes: 0,
    };
    let root = builder.document()?;
    Ok(root.unwrap_or(Node {
        content: Content::Map(Vec::new()),
        mark: Mark { line: 1, column: 1 },
    }))
}

struct Builder<'a> {
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Mark), Issue> {
        match self.events.next() {
            Some(Ok((event, span))) => Ok((event, span.into())),
            Some(Err(error)) => {
                let mark = Mark {
                    line: error.marker().line(),
                    column: error.marker().col() + 1,
                };
                Err(Issue::at(mark, format!("not YAML: {}", error.info())))
            }
            None => Ok((Event::StreamEnd, Mark::default())),
        }
    }

    fn document(&mut self) -> Result<Option<Node>, Issue> {
        let mut root = None;
        loop {
            let (event, mark) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(Issue::at(
                        mark,
                        "a second document (`---`); the configuration is one".to_owned(),
                    ));
                }
                Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Nothing => {}
                event => root = Some(self.node(event, mark, 0)?),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, mark: Mark, depth: usize) -> Result<Node, Issue> {
        if depth > MAX_DOCUMENT_DEPTH {
            return Err(Issue::at(
                mark,
                format!("more than {MAX_DOCUMENT_DEPTH} lists and maps within each other"),
            ));
        }
        let before = self.nodes;
        self.count(1, mark)?;
        let (content, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let quoted = style != ScalarStyle::Plain;
                let content = match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if !quoted => Content::Null,
                    text => Content::Scalar {
                        text: text.to_owned(),
                        quoted,
                    },
                };
                (content, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    let (event, mark) = self.next()?;
                    if event == Event::SequenceEnd {
                        break;
                    }
                    items.push(self.node(event, mark, depth + 1)?);
                }
                (Content::List(items), anchor)
            }
            Event::MappingStart(anchor, _) => (Content::Map(self.entries(depth)?), anchor),
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let Some((node, nodes)) = known else {
                    return Err(Issue::at(mark, "an alias of itself".to_owned()));
                };
                self.count(nodes, mark)?;
                return Ok(node);
            }
            other => {
                return Err(Issue::at(mark, format!("not YAML: unexpected {other:?}")));
            }
        };
        let node = Node { content, mark };
        if anchor > 0 {
            self.anchors
                .insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<Entry>, Issue> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Entry> = Vec::new();
        loop {
            let (event, mark) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let is_merge = matches!(
                &event,
                Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<"
            );
            let key = match self.node(event, mark, depth + 1)?.content {
                Content::Scalar { text, .. } => text,
                Content::Null => "null".to_owned(),
                other => {
                    return Err(Issue::at(
                        mark,
                        format!("a key must be a single value, this is {}", other.kind()),
                    ));
                }
            };
            let (event, value_mark) = self.next()?;
            let value = self.node(event, value_mark, depth + 1)?;
            if is_merge {
                merged.extend(merge_sources(value)?);
                continue;
            }
            if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                return Err(Issue::at(
                    mark,
                    format!("key {key:?} is already set in line {}", first.mark.line),
                ));
            }
            entries.push(Entry { key, mark, value });
        }
        for entry in merged {
            if !entries.iter().any(|existing| existing.key == entry.key) {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn count(&mut self, nodes: usize, mark: Mark) -> Result<(), Issue> {
        self.nodes += nodes;
        if self.nodes > MAX_DOCUMENT_NODES {
            return Err(Issue::at(
                mark,
                format!("more than {MAX_DOCUMENT_NODES} values"),
            ));
        }
        Ok(())
    }
}

/// What `<<: *base` and `<<: [*base, *other]` bring, the first one winning.
fn merge_sources(value: Node) -> Result<Vec<Entry>, Issue> {
    match value.content {
        Content::Map(entries) => Ok(entries),
        Content::List(items) => {
            let mut entries = Vec::new();
            for item in items {
                match item.content {
                    Content::Map(more) => entries.extend(more),
                    other => return Err(not_a_map(item.mark, &other)),
                }
            }
            Ok(entries)
        }
        other => Err(not_a_map(value.mark, &other)),
    }
}

fn not_a_map(mark: Mark, content: &Content) -> Issue {
    Issue::at(
        mark,
        format!("`<<` takes a map, this is {}", content.kind()),
    )
}
