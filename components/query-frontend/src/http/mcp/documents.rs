//! What models can read about TraceQL and the configuration.

/// The type of all documents.
pub(super) const MIME_TYPE: &str = "text/markdown";

/// A document.
pub(super) struct Document {
    /// As an argument of a tool names it.
    pub(super) name: &'static str,
    /// As a resource.
    pub(super) uri: &'static str,
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    pub(super) text: &'static str,
}

/// About the language.
pub(super) static TRACEQL_TOPICS: &[Document] = &[
    Document {
        name: "basic",
        uri: "docs://traceql/basic",
        title: "TraceQL filters",
        about: "Filters, attributes, intrinsics, types and operators",
        text: include_str!("documents/traceql-basic.md"),
    },
    Document {
        name: "aggregates",
        uri: "docs://traceql/aggregates",
        title: "TraceQL aggregates",
        about: "Counting, grouping and selecting within traces",
        text: include_str!("documents/traceql-aggregates.md"),
    },
    Document {
        name: "structural",
        uri: "docs://traceql/structural",
        title: "TraceQL structure",
        about: "Descendants, ancestors, children, parents and siblings",
        text: include_str!("documents/traceql-structural.md"),
    },
    Document {
        name: "metrics",
        uri: "docs://traceql/metrics",
        title: "TraceQL metrics",
        about: "Rates, quantiles, histograms and comparisons over time",
        text: include_str!("documents/traceql-metrics.md"),
    },
];

/// About the configuration.
pub(super) static CONFIGURATION: &[Document] = &[
    Document {
        name: "config-overview",
        uri: "docs://config/overview",
        title: "Configuration, in brief",
        about: "How the configuration is built up, and what is set most often",
        text: include_str!("documents/config-overview.md"),
    },
    Document {
        name: "config-reference",
        uri: "docs://config/reference",
        title: "Configuration reference",
        about: "Every key with its type, default and meaning",
        text: include_str!("../../../../../docs/reference/configuration.md"),
    },
];

/// The language in brief; only a resource, under the name that Tempo gives it.
static TRACEQL_QUERY: Document = Document {
    name: "query",
    uri: "docs://traceql/query",
    title: "TraceQL in brief",
    about: "How a query is built up, and where to read on",
    text: include_str!("documents/traceql-query.md"),
};

pub(super) fn all() -> impl Iterator<Item = &'static Document> {
    std::iter::once(&TRACEQL_QUERY)
        .chain(TRACEQL_TOPICS)
        .chain(CONFIGURATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a document's code blocks.
    fn examples(text: &str) -> impl Iterator<Item = &str> {
        text.split("```").skip(1).step_by(2).flat_map(str::lines)
    }

    #[test]
    fn every_query_that_models_are_shown_is_one() {
        for document in std::iter::once(&TRACEQL_QUERY).chain(TRACEQL_TOPICS) {
            let queries: Vec<&str> = examples(document.text)
                .filter(|line| line.contains('{') && !line.contains("{ A }"))
                .collect();
            assert!(queries.len() > 2, "{}: {queries:?}", document.name);
            for query in queries {
                tempo_traceql::parse(query)
                    .unwrap_or_else(|error| panic!("{}: {query}: {error}", document.name));
            }
        }
    }
}
