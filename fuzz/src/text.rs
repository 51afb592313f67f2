//! Texts that people write: queries and configuration.

use std::sync::{OnceLock, atomic::AtomicBool};

use tempo_config::{CommandLine, Config, RenderMode};
use tempo_distributor::regroup::{Bounds, Scratch, regroup};
use tempo_engine::{Limits, Plan, SearchOptions, search};
use tempo_table::{MemoryTable, MemoryTableBuilder};
use tempo_traceql::{parse, parse_identifier, parse_lenient, parse_without_rewrites};

/// Most columns that a search may hold, in bytes.
const MAX_COLUMN_BYTES: usize = 16 << 20;

/// Parses a query, prints it, parses it again, and runs it.
#[expect(clippy::panic, reason = "that is the check")]
pub fn traceql(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = parse_identifier(text);
    let _ = parse_lenient(text);
    if let Ok(query) = parse_without_rewrites(text) {
        let printed = query.to_string();
        match parse_without_rewrites(&printed) {
            Ok(again) => assert_eq!(again.to_string(), printed, "of {text:?}"),
            // Chains of one operator print as Tempo prints them, each link in parentheses, and
            // long ones are deeper nested than may be written.
            Err(error) if error.to_string().contains("levels deep") => {}
            Err(error) => panic!("{text:?} prints as {printed:?}, which fails: {error}"),
        }
    }
    let Ok(query) = parse(text) else { return };
    let Ok(plan) = Plan::new(&query) else { return };
    let cancel = AtomicBool::new(false);
    let options = SearchOptions {
        time_range_nano: None,
        max_traces: 20,
        max_spans_per_span_set: 3,
        most_recent: text.len() % 2 == 0,
        limits: Limits {
            max_column_bytes: MAX_COLUMN_BYTES,
            cancel: &cancel,
        },
    };
    if let Ok(output) = search(&plan, table(), &options) {
        assert!(output.traces.len() <= 20);
        for set in output.traces.iter().flat_map(|trace| &trace.span_sets) {
            assert!(set.spans.len() <= 3 && set.spans.len() <= set.matched as usize);
        }
    }
}

/// The traces that queries run on: those of two seeds of the target `otlp`.
#[expect(clippy::expect_used, reason = "the seeds are valid")]
fn table() -> &'static MemoryTable {
    static TABLE: OnceLock<MemoryTable> = OnceLock::new();
    TABLE.get_or_init(|| {
        let bounds = Bounds {
            max_attribute_bytes: usize::MAX,
            max_regrouped_bytes: usize::MAX,
        };
        let mut builder = MemoryTableBuilder::new();
        for request in [
            &include_bytes!("../corpus/otlp/every-attribute-type")[..],
            &include_bytes!("../corpus/otlp/split-trace")[..],
        ] {
            let regrouped = regroup(request, &bounds, &mut Scratch::default()).expect("a seed");
            for chunk in regrouped.traces {
                let pushed = builder.push_trace(chunk.id, &[&chunk.trace]);
                pushed.expect("a seed");
            }
        }
        builder.finish()
    })
}

/// Loads a configuration, with and without variables, and prints it. Arguments of the command line
/// may come first, one a line, ended by a zero byte.
pub fn yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (arguments, text) = text.split_once('\0').unwrap_or(("", text));
    let arguments = arguments.lines().filter(|line| !line.is_empty());
    let Ok(mut line) = CommandLine::parse(arguments) else {
        return;
    };
    let variable = |name: &str| match name {
        "EMPTY" => Some(String::new()),
        "NUMBER" => Some("7".to_owned()),
        "TEXT" => Some("a: [b, \"c\"]".to_owned()),
        "NESTED" => Some("${NUMBER}".to_owned()),
        _ => None,
    };
    for expand_env in [false, true] {
        line.expand_env = expand_env;
        let config = match Config::load(Some(text), &line, &variable) {
            Ok(config) => config,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        let _ = (config.warnings(), config.ineffective_keys());
        for mode in [RenderMode::Diff, RenderMode::Defaults] {
            config.render(mode);
        }
        check_rendered(&config);
    }
}

/// What is printed is a configuration again, and prints the same.
#[expect(clippy::panic, reason = "that is the check")]
fn check_rendered(config: &Config) {
    let printed = config.render(RenderMode::Effective);
    match Config::load(Some(&printed), &CommandLine::default(), &|_| None) {
        Ok(again) => assert_eq!(again.render(RenderMode::Effective), printed),
        Err(error) => panic!("the printed configuration does not load: {error}\n{printed}"),
    }
}
