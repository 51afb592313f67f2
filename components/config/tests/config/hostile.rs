//! Texts that are meant to hurt.

use proptest::prelude::*;
use tempo_config::{CommandLine, Config, parse_runtime_overrides};

use crate::load;

#[test]
fn deep_and_wide_documents() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        format!("a: {}", "[".repeat(1000)),
    ] {
        assert!(load(&text).is_err());
    }
    // Aliases that double with every line.
    let mut laughs = String::from("a0: &a0 [x, x]\n");
    for n in 1..40 {
        laughs.push_str(&format!("a{n}: &a{n} [*a{}, *a{}]\n", n - 1, n - 1));
    }
    let error = load(&laughs).unwrap_err().to_string();
    assert!(error.ends_with("more than 200000 values"), "{error}");
}

proptest! {
    #[test]
    fn mutated_files_do_not_panic(
        at in any::<prop::sample::Index>(),
        len in 0usize..40,
        noise in "[ -~\\n\u{e9}{}\\[\\]:#&*|>'\"%@`$-]{0,12}",
    ) {
        let mut text: Vec<char> = include_str!("../../testdata/monolith-s3.yaml").chars().collect();
        let from = at.index(text.len());
        let to = (from + len).min(text.len());
        text.splice(from..to, noise.chars());
        let text: String = text.into_iter().collect();
        let flags = CommandLine::parse(["-config.expand-env"]).unwrap();
        let _ = Config::load(Some(&text), &flags, &|_| Some("x".to_owned()));
        let _ = parse_runtime_overrides(&text, true);
    }

    #[test]
    fn random_flags_do_not_panic(arguments in prop::collection::vec("-{0,3}[a-z.=-]{0,20}", 0..4)) {
        let _ = CommandLine::parse(&arguments);
    }

    #[test]
    fn random_variables_do_not_panic(text in "[${}:/#%^,\\\\a-c*?\\[\\]0-9-]{0,30}") {
        let _ = tempo_config::expand(&text, &|name| Some(name.to_owned()));
    }
}
