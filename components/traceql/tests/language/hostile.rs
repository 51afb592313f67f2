//! Texts that are meant to hurt: deep, long, cut, mutated. None may overflow the stack or panic.

use proptest::prelude::*;
use tempo_traceql::ast::Query;
use tempo_traceql::{
    DEFAULT_MAX_QUERY_BYTES, Error, MAX_NESTING_DEPTH, MAX_PATTERNS_PER_QUERY, MAX_TREE_DEPTH,
    condition_groups, normalize, parse, parse_identifier, parse_lenient, parse_with,
    parse_without_rewrites,
};

#[test]
fn a_megabyte_of_openings() {
    for opening in [
        "(",
        "!",
        "-",
        "{ (",
        "{ !",
        "{ -",
        "{ .a ^ ",
        "({} | rate()) + (",
        "nil = ",
    ] {
        for prefix in ["", "{ ", "{} | ", "{ .a = "] {
            let text = format!("{prefix}{}", opening.repeat(1_000_000 / opening.len()));
            assert!(parse_without_rewrites(&text).is_err());
        }
        assert!(parse_lenient(&opening.repeat(100_000 / opening.len())).is_err());
    }
    let nested =
        |levels: usize| format!("{{ {}.a{} }}", ".a && (".repeat(levels), ")".repeat(levels));
    assert_eq!(
        parse_without_rewrites(&nested(1000)).unwrap_err().message(),
        format!("expression is nested more than {MAX_NESTING_DEPTH} levels deep")
    );
    assert!(parse(&nested(MAX_NESTING_DEPTH - 2)).is_ok());
    assert!(parse(&nested(MAX_NESTING_DEPTH - 1)).is_err());
}

#[test]
fn parentheses_around_an_operand_do_not_nest() {
    for (before, operand, after, canonical) in [
        ("{ ", ".a", " }", "{ .a }"),
        ("{ .b = ", ".a", " }", "{ .b = .a }"),
        ("", "{ .a }", "", "{ .a }"),
        ("{} >> ", "{ .a }", "", "({ true }) >> ({ .a })"),
        ("2 * ", "count()", " > 1", "(2 * (count())) > 1"),
        ("", "{} | rate()", "", "{ true } | rate()"),
    ] {
        let (open, close) = ("(".repeat(50_000), ")".repeat(50_000));
        let query = parse_without_rewrites(&format!("{before}{open}{operand}{close}{after}"));
        assert_eq!(query.unwrap().to_string(), canonical);
    }
}

/// That `text` parses to `query`, neither of which is worth printing when it does not.
fn assert_same_query(text: &str, query: &Query) {
    let start: String = text.chars().take(80).collect();
    match parse_without_rewrites(text) {
        Ok(again) => assert!(again == *query, "another query: {start}…"),
        Err(error) => panic!("{error}: {start}…"),
    }
}

#[test]
fn the_deepest_texts_have_canonical_texts() {
    // Operands within each other, as deep as they are accepted.
    for (start, level, inside, close, end) in [
        ("{ ", "!", ".a", "", " }"),
        ("{ ", "-", ".a", "", " }"),
        ("{ ", ".a ^ ", ".a", "", " }"),
        ("{ ", "nil = ", ".a", "", " }"),
        ("{ ", ".b && (.a || ", ".a", ")", " }"),
        ("{ ", "!(.a + -", ".a", ")", " }"),
        ("", "{} >> (", "{}", ")", ""),
        ("", "({} | count() > 1) && (", "({})", ")", ""),
        ("", "count() ^ ", "count()", "", " > 1"),
        ("", "({} | rate()) / (", "({} | rate())", ")", ""),
    ] {
        let text = |levels: usize| {
            let (open, close) = (level.repeat(levels), close.repeat(levels));
            format!("{start}{open}{inside}{close}{end}")
        };
        let parsed = (0..=MAX_NESTING_DEPTH)
            .rev()
            .map(|levels| parse_without_rewrites(&text(levels)));
        let deepest = parsed.flatten().next().unwrap();
        let canonical = deepest.to_string();
        assert_same_query(&canonical, &deepest);
    }
    // Operators one above the other, as many as are accepted.
    for (start, link, end) in [
        ("{ .a", " && .b || .c", " }"),
        ("{ .a", " + .a", " }"),
        ("{ .a", " = nil", " }"),
        ("{}", " >> {}", ""),
        ("{} | count()", " + count()", " > 1"),
        ("({} | rate())", " + ({} | rate())", ""),
    ] {
        let text = |links: usize| format!("{start}{}{end}", link.repeat(links));
        let parsed = (0..=MAX_TREE_DEPTH)
            .rev()
            .map(|links| parse_without_rewrites(&text(links)));
        let deepest = parsed.flatten().next().unwrap();
        let canonical = deepest.to_string();
        assert!(
            canonical.matches('(').count() >= MAX_TREE_DEPTH - 4,
            "{start}"
        );
        assert_same_query(&canonical, &deepest);
    }
    // One operator, any number of times.
    for (start, link, end) in [
        ("{ .a", " && .b", " }"),
        ("{ .a", " || .b = 1", " }"),
        ("({} | rate())", " * 2", ""),
    ] {
        let query = parse_without_rewrites(&format!("{start}{}{end}", link.repeat(10_000)));
        let query = query.unwrap();
        assert_same_query(&query.to_string(), &query);
    }
}

#[test]
fn long_chains() {
    // Alternatives are one level, however many: editors and links make long ones.
    let terms: Vec<String> = (0..9000).map(|n| format!(".a={n}")).collect();
    let text = format!("{{ {} }}", terms.join("||"));
    assert!(text.len() < DEFAULT_MAX_QUERY_BYTES);
    let printed = parse(&text).unwrap().to_string();
    assert!(printed.starts_with("{ .a IN [0, 1, 2, "));
    let mixed = format!("{{ {} }}", terms.join("||.b&&"));
    assert_eq!(
        parse_without_rewrites(&mixed).unwrap_err().message(),
        format!("expression has more than {MAX_TREE_DEPTH} operators one above the other")
    );
    for (start, link, end) in [
        ("{ .a", " + .a", " = 1 }"),
        ("{}", " >> {}", ""),
        ("({} | rate())", " + ({} | rate())", ""),
        ("{} | count()", " + count()", " > 1"),
    ] {
        let text = |links: usize| format!("{start}{}{end}", link.repeat(links));
        assert!(parse(&text(1000)).is_ok(), "{start}");
        assert!(parse(&text(5000)).is_err(), "{start}");
    }
    // Not deep at all.
    for (start, link, end) in [
        ("{}", " | {}", ""),
        ("({} | rate())", " * 2", ""),
        ("{} | rate()", " | topk(5) > 2", ""),
        ("{} | select(.a", ", .b", ")"),
    ] {
        let text = format!("{start}{}{end}", link.repeat(5000));
        assert!(parse(&text).is_ok(), "{start}");
    }
}

#[test]
fn long_texts_are_refused() {
    let text = format!("{{ .a = \"{}\" }}", "x".repeat(DEFAULT_MAX_QUERY_BYTES));
    match parse(&text) {
        Err(Error::TooLarge(error)) => assert_eq!(
            error.to_string(),
            "TraceQL expression exceeds the configured maximum size of 131072 bytes, reduce the query expression size or contact your system administrator"
        ),
        other => panic!("{other:?}"),
    }
    let unlimited = tempo_traceql::ParseOptions {
        max_query_bytes: 0,
        ..Default::default()
    };
    assert!(parse_with(&text, &unlimited).is_ok());
}

#[test]
fn a_query_has_a_bounded_number_of_regular_expressions() {
    let query = |patterns: usize| {
        let tests: Vec<String> = (0..patterns).map(|n| format!(".a =~ \"x{n}\"")).collect();
        format!("{{ {} }}", tests.join(" || "))
    };
    assert!(parse(&query(MAX_PATTERNS_PER_QUERY)).is_ok());
    let error = parse(&query(MAX_PATTERNS_PER_QUERY + 1)).unwrap_err();
    assert!(
        error.to_string().contains(
            "query has more than 100 regular expressions; unite some as alternatives of one: `a|b`"
        ),
        "{error}"
    );
    // Each of them is bounded too, and its text says so.
    let error = parse("{ .a =~ `\\pL{200}` }").unwrap_err();
    assert!(error.to_string().contains("when compiled"), "{error}");
}

fn exercise(text: &str) {
    let _ = parse(text);
    let _ = parse_lenient(text);
    let _ = parse_identifier(text);
    let _ = normalize(text);
    let _ = condition_groups(text, 10);
}

const SEEDS: [&str; 6] = [
    "{ span.\"a b\" = \"x\\\"y\" && (.b != nil || !(duration > 1h30m)) } >> { status = error }",
    "({ .a =~ `x.*` } | by(name) | avg(duration) > 1.5s) &>> ({ kind = server } | select(.b))",
    "100 * ({} | quantile_over_time(duration, .99, .5) by(resource.x) | topk(5)) / ({} | rate()) >= 2",
    "{ .a = 1 || .a = 2 && -.b ^ 2 % 3 = 4 } | compare({ name = \"é\" }, 10, 1, 2) with(sample=0.1)",
    "{ parent.resource.a = minInt } | 2 * (count() - 1) >= max(.a + 1) // done",
    "{ .a = 1 && .b = ",
];

proptest! {
    #[test]
    fn mutated_queries_do_not_panic(
        seed in 0..SEEDS.len(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4u8), 1..6),
        noise in "[ -~\\n\"`'\u{e9}\u{b5}\\x00(){}|&=!~<>.]{0,6}",
    ) {
        let mut chars: Vec<char> = SEEDS[seed].chars().collect();
        for (a, b, action) in cuts {
            let (a, b) = (a.index(chars.len() + 1), b.index(chars.len() + 1));
            let (low, high) = (a.min(b), a.max(b));
            match action {
                0 => { chars.drain(low..high.min(low + 5)); }
                1 => { chars.splice(low..low, noise.chars()); }
                2 => { let copy = chars[low..high].to_vec(); chars.splice(low..low, copy); }
                _ => chars.truncate(high),
            }
        }
        exercise(&chars.into_iter().collect::<String>());
    }

    #[test]
    fn random_texts_do_not_panic(text in "\\PC{0,60}") {
        exercise(&text);
        exercise(&format!("{{ {text}"));
    }

    #[test]
    fn random_patterns_do_not_panic(pattern in "[a-e\\\\\\[\\](){}*+?|^$.,:&~0-9pPQExd-]{0,20}") {
        let _ = tempo_traceql::Pattern::new(&pattern);
    }
}
