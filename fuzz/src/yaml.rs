//! The configuration that people write.

use tempo_config::{CommandLine, Config, RenderMode};

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
