//! Answers of Tempo's own parser to random and broken queries.
//!
//! `testdata/recorded.jsonl` has one case a line: the query, and its canonical text with or
//! without a complaint of the validation, or the parse error.

use serde_json::Value;
use tempo_traceql::{Error, parse, parse_without_rewrites};

#[test]
fn same_answers_as_tempo() {
    let mut cases = 0;
    for line in include_str!("../../testdata/recorded.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| case.get(name).and_then(Value::as_str);
        let text = field("query").unwrap();
        let parsed = parse_without_rewrites(text);
        if let Some(error) = field("error") {
            match parsed {
                Ok(query) => panic!("{text} parses: {query}"),
                Err(found) => assert_eq!(found.to_string(), error, "{text}"),
            }
        } else {
            let query = parsed.unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(Some(&*query.to_string()), field("plain"), "{text}");
            match (parse(text), field("invalid")) {
                (Ok(query), None) => {
                    assert_eq!(Some(&*query.to_string()), field("rewritten"), "{text}");
                }
                (Err(Error::Invalid(found)), Some(message)) => {
                    assert_eq!(found.to_string(), message, "{text}");
                }
                (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
            }
        }
        cases += 1;
    }
    assert!(cases > 1000, "only {cases} cases were read");
}
