//! What the autocompleter asks: half-typed queries, condition groups, cache keys.

use tempo_traceql::{
    ConditionGroups, ConditionTest, condition_groups, normalize, parse_lenient,
    parse_without_rewrites,
};

/// Groups as text: conditions joined by `,`, groups by `;`.
fn groups(text: &str) -> String {
    match condition_groups(text, 100).unwrap() {
        ConditionGroups::MatchAll => "all".to_owned(),
        ConditionGroups::AnyOf(groups) => groups
            .iter()
            .map(|group| {
                group
                    .iter()
                    .map(|condition| match &condition.test {
                        ConditionTest::Compare { op, value } => {
                            format!("{} {op} {value}", condition.attribute)
                        }
                        ConditionTest::Exists => format!("{} exists", condition.attribute),
                        ConditionTest::NotExists => format!("{} absent", condition.attribute),
                    })
                    .collect::<Vec<_>>()
                    .join(", ")
            })
            .collect::<Vec<_>>()
            .join("; "),
    }
}

#[test]
fn half_typed_queries() {
    for (text, repaired) in [
        ("{ .a = 1 && .b = ", "{ (.a = 1) && true }"),
        ("{ .a = \"foo\" || .b = }", "{ (.a = `foo`) || true }"),
        ("{ .a = 1 && .b = \"x", "{ (.a = 1) && true }"),
        (
            "{ span.foo = && resource.bar = \"x\" }",
            "{ true && (resource.bar = `x`) }",
        ),
        ("{ .a =~", "{ true }"),
        ("{ .a", "{ .a }"),
        (
            "{ (.a = 1 && name = ) || .b",
            "{ ((.a = 1) && true) || .b }",
        ),
        ("{ span:name = && .x = 1 }", "{ true && (.x = 1) }"),
        ("{ parent.span.a = ", "{ true }"),
        ("{ .\"a b\" = \"c\" && .d =", "{ (.\"a b\" = `c`) && true }"),
        ("{ .a = } | count() > 2", "{ true }|(count()) > 2"),
        ("{ .a = 1 /* half", "{ .a = 1 }"),
    ] {
        match parse_lenient(text) {
            Ok(query) => assert_eq!(query.to_string(), repaired, "{text}"),
            Err(error) => panic!("{text}: {error}"),
        }
    }
    assert_eq!(normalize("{"), "{}");
}

#[test]
fn what_stays_broken() {
    for text in [
        "{ span.foo = \"x\" && }",
        "{ span:",
        "{ .a = 1 } | count() >",
        "{ .a = 1 } | rate( ",
    ] {
        let strict = parse_without_rewrites(text).unwrap_err();
        assert_eq!(parse_lenient(text), Err(strict), "{text}");
        assert_eq!(normalize(text), "{}", "{text}");
        assert_eq!(groups(text), "all", "{text}");
    }
}

#[test]
fn cache_keys() {
    for (text, key) in [
        ("", "{}"),
        ("{ }", "{}"),
        ("{ true }", "{}"),
        (" {span.a=1} ", "{ span.a = 1 }"),
        ("{ .a = 1 || .a = 2 }", "{ (.a = 1) || (.a = 2) }"),
        ("{ name = 1 }", "{}"),
    ] {
        assert_eq!(normalize(text), key, "{text}");
    }
}

#[test]
fn condition_groups_of_filters() {
    for (text, expected) in [
        ("", "all"),
        ("{}", "all"),
        ("{ .a = 1 }", ".a = 1"),
        ("{ .a = 1 && .b = ", ".a = 1"),
        ("{ .a = \"foo\" || .b = }", "all"),
        (
            "{ span.foo = && resource.bar = \"x\" }",
            "resource.bar = `x`",
        ),
        ("{ .a", "all"),
        ("{ .a = 1 } >> { .b = 2 }", "all"),
        ("{ .a = 1 } | { .b = 2 }", ".a = 1"),
        ("({ .a = 1 } | count() > 1) && ({ .b = 1 })", "all"),
        ("{ .a = 1 } | rate()", ".a = 1"),
        (
            "{ span.a = 1 && span.b = 2 || resource.c = 3 }",
            "span.a = 1, span.b = 2; resource.c = 3",
        ),
        (
            "{ (.a = 1 || .b = 2) && .c = 3 }",
            ".a = 1, .c = 3; .b = 2, .c = 3",
        ),
        ("{ .a != nil && span.b = 1 }", ".a exists, span.b = 1"),
        ("{ .a = nil && span.b = 1 }", ".a absent, span.b = 1"),
        ("{ .a && span.b = 1 }", "span.b = 1"),
        ("{ .a = 1 || .a = 1 }", ".a = 1"),
        ("{ 3 < .a }", ".a > 3"),
        // A negation is no condition; Tempo takes what is negated.
        ("{ !(.a = 1) && .b = 2 }", ".b = 2"),
        ("{ .a + 1 = 2 && .b = 2 }", ".b = 2"),
        ("{ .a = .b }", "all"),
        // Tempo makes one group of b, c and d.
        (
            "{ .a = 1 || (.b = 2 && (.c = 3 || .d = 4)) }",
            ".a = 1; .b = 2, .c = 3; .b = 2, .d = 4",
        ),
        ("{ name = 1 }", "all"),
    ] {
        assert_eq!(groups(text), expected, "{text}");
    }
}

#[test]
fn groups_are_bounded_by_their_conditions_together() {
    let any = |name: &str, n: usize| {
        let tests: Vec<String> = (0..n).map(|value| format!(".{name} = {value}")).collect();
        format!("({})", tests.join(" || "))
    };
    let all = |n: usize| {
        let tests: Vec<String> = (0..n).map(|value| format!(".n{value} = 1")).collect();
        tests.join(" && ")
    };
    let product = [any("a", 10), any("b", 10), any("c", 10), any("d", 10)].join(" && ");
    // 10,000 groups of 4 are as many as may be, of 14 too many.
    let text = |more: usize| format!("{{ {product} && {} }}", all(more));
    assert!(condition_groups(&format!("{{ {product} }}"), 10_000).is_ok());
    assert!(condition_groups(&text(10), 10_000).is_err());
    // In no more than a moment: nothing is made that is too much.
    assert!(condition_groups(&text(900), 10_000).is_err());
    // A group has as many conditions as before.
    let ConditionGroups::AnyOf(groups) =
        condition_groups(&format!("{{ {} && {} }}", any("a", 2), all(999)), 100).unwrap()
    else {
        panic!("the query has conditions")
    };
    assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [1000; 2]);
    assert!(condition_groups(&format!("{{ {} }}", all(1001)), 100).is_err());
}

#[test]
fn too_many_groups() {
    let alternatives: Vec<String> = (0..101).map(|n| format!(".a = {n}")).collect();
    let text = format!("{{ {} }}", alternatives.join(" || "));
    let error = condition_groups(&text, 100).unwrap_err();
    assert_eq!(
        error.to_string(),
        "maximum condition groups reached (limit: 100). Reduce the number of OR conditions in the query"
    );
    assert!(condition_groups(&text, 101).is_ok());
    assert_eq!(condition_groups(&text, 0), Err(error));
    // Products count too, and a branch without condition still asks for everything.
    let product = format!("{{ {} }}", ["(.a = 1 || .b = 2)"; 8].join(" && "));
    assert!(condition_groups(&product, 100).is_err());
    let with_empty = format!("{{ {} || .x }}", alternatives.join(" || "));
    assert_eq!(
        condition_groups(&with_empty, 100),
        Ok(ConditionGroups::MatchAll)
    );
}
