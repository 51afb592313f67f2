//! The command line, as Go's flag package reads it.
//!
//! `-flag`, `--flag`, `-flag=value` and `-flag value` mean the same; a flag that is on or off
//! takes a value only behind `=`. Tempo's flags have names of their own or follow the YAML: the
//! flag `-live-store.max-trace-idle` is the key `live_store.max_trace_idle`.

mod names;

use std::fmt::Write;

use crate::blocks::root::RawConfig;
use crate::document::{Content, Entry, Mark, Node};
use crate::nearest::nearest;
use crate::value::{Block, Value};
use names::{ACTIONS, FAMILIES, NAMED, WITHOUT_EFFECT};

pub use names::DEFAULT_HEALTH_URL;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandLine {
    /// What to do.
    pub action: Action,
    /// The file to read.
    pub config_file: Option<String>,
    /// Whether `${VAR}` in the file is replaced.
    pub expand_env: bool,
    /// Settings: flag, key, values in the order given.
    settings: Vec<(String, String, Vec<String>)>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Action {
    /// Run the components.
    #[default]
    Run,
    /// Check the configuration; exit code 1 for errors and warnings.
    Verify,
    /// Print the version.
    Version,
    /// Print [`help`].
    Help,
    /// Ask whether the process at this address is ready; exit code 1 if not.
    Health {
        /// The address.
        url: String,
    },
}

/// The command line is wrong: exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; see -help")]
pub struct CommandLineError(String);

impl CommandLine {
    /// Reads the arguments behind the program's name.
    pub fn parse<S: AsRef<str>>(
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Self, CommandLineError> {
        let schema = RawConfig::default();
        let mut line = Self::default();
        let mut health_url = DEFAULT_HEALTH_URL.to_owned();
        let mut health = false;
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let argument = argument.as_ref();
            let Some(flag) = argument
                .strip_prefix("--")
                .or_else(|| argument.strip_prefix('-'))
                .filter(|flag| !flag.is_empty() && !flag.starts_with(['-', '=']))
            else {
                return Err(CommandLineError(format!(
                    "unexpected argument {argument:?}; settings begin with a dash"
                )));
            };
            let (name, given) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let known = Known::find(name, &schema).ok_or_else(|| unknown_flag(name, &schema))?;
            let value = match given {
                Some(value) => value,
                None if known.is_switch() => "true".to_owned(),
                None => match arguments.next() {
                    Some(value) => value.as_ref().to_owned(),
                    None => {
                        return Err(CommandLineError(format!("flag -{name} needs a value")));
                    }
                },
            };
            match known {
                Known::Setting { path, .. } => line.add_setting(name, path, value),
                Known::WithoutEffect => {}
                Known::Action { .. } => match name {
                    "config.file" => line.config_file = Some(value).filter(|v| !v.is_empty()),
                    "config.expand-env" => line.expand_env = switch(name, &value)?,
                    "config.verify" => line.choose(Action::Verify, switch(name, &value)?),
                    "version" => line.choose(Action::Version, switch(name, &value)?),
                    "help" | "h" => line.choose(Action::Help, switch(name, &value)?),
                    "health.url" => health_url = value,
                    _ => health = switch(name, &value)?,
                },
            }
        }
        if health && line.action == Action::Run {
            line.action = Action::Health { url: health_url };
        }
        Ok(line)
    }

    /// The first action given counts, help above all.
    fn choose(&mut self, action: Action, chosen: bool) {
        if chosen && (self.action == Action::Run || action == Action::Help) {
            self.action = action;
        }
    }

    fn add_setting(&mut self, flag: &str, path: String, value: String) {
        match self
            .settings
            .iter_mut()
            .find(|(_, known, _)| *known == path)
        {
            Some((_, _, values)) => values.push(value),
            None => self.settings.push((flag.to_owned(), path, vec![value])),
        }
    }

    /// Whether a flag switches the key on.
    pub(crate) fn sets(&self, path: &str) -> bool {
        self.settings.iter().any(|(_, known, values)| {
            known == path && values.last().is_some_and(|value| value == "true")
        })
    }

    /// The settings as documents: flag and tree.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (&str, Node)> {
        let schema = RawConfig::default();
        self.settings.iter().map(move |(flag, path, values)| {
            let is_list =
                find(&schema, path).is_some_and(|(value, _)| value.type_name().starts_with("list"));
            let content = if is_list {
                list(values)
            } else {
                // As in Go, the last one counts.
                Content::plain(values.last().map_or("", String::as_str))
            };
            (flag.as_str(), nested(path, content))
        })
    }
}

/// What is known under the name of a flag.
enum Known {
    Setting { path: String, is_switch: bool },
    Action { takes_value: bool },
    WithoutEffect,
}

impl Known {
    fn find(name: &str, schema: &RawConfig) -> Option<Self> {
        if let Some((_, takes_value, _)) = ACTIONS.iter().find(|(known, ..)| *known == name) {
            return Some(Self::Action {
                takes_value: *takes_value,
            });
        }
        if WITHOUT_EFFECT.contains(&name) {
            return Some(Self::WithoutEffect);
        }
        let path = match NAMED.iter().find(|(_, known, ..)| *known == name) {
            Some((_, _, path, _)) => (*path).to_owned(),
            None => FAMILIES.iter().find_map(|(flags, keys)| {
                let rest = name.strip_prefix(flags)?;
                Some(format!("{keys}{}", rest.replace('-', "_")))
            })?,
        };
        let (value, _) = find(schema, &path)?;
        if value.block().is_some() {
            return None;
        }
        Some(Self::Setting {
            is_switch: value.type_name() == "true or false",
            path,
        })
    }

    fn is_switch(&self) -> bool {
        match self {
            Self::Setting { is_switch, .. } => *is_switch,
            Self::Action { takes_value } => !takes_value,
            Self::WithoutEffect => false,
        }
    }
}

fn switch(name: &str, value: &str) -> Result<bool, CommandLineError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(CommandLineError(format!(
            "flag -{name}: expected true or false, found {other:?}"
        ))),
    }
}

fn unknown_flag(name: &str, schema: &RawConfig) -> CommandLineError {
    let all = all_flags(schema);
    let hint = nearest(name, all.iter().map(String::as_str))
        .map_or(String::new(), |near| format!("; did you mean -{near}?"));
    CommandLineError(format!("unknown flag -{name}{hint}"))
}

/// Every flag there is.
fn all_flags(schema: &RawConfig) -> Vec<String> {
    let mut flags: Vec<String> = ACTIONS
        .iter()
        .map(|(name, ..)| *name)
        .chain(NAMED.iter().map(|(_, name, ..)| *name))
        .chain(WITHOUT_EFFECT.iter().copied())
        .map(str::to_owned)
        .collect();
    for (family, keys) in FAMILIES {
        if let Some((value, _)) = find(schema, keys.trim_end_matches('.'))
            && let Some(block) = value.block()
        {
            collect(block, family, &mut flags);
        }
    }
    flags
}

fn collect(block: &dyn Block, prefix: &str, flags: &mut Vec<String>) {
    for field in block.fields() {
        let name = format!("{prefix}{}", field.key.replace('_', "-"));
        match field.value.block() {
            Some(inner) => collect(inner, &format!("{name}."), flags),
            None => flags.push(name),
        }
    }
}

/// The value under a key, and what it means.
fn find<'a>(root: &'a dyn Block, path: &str) -> Option<(&'a dyn Value, &'static [&'static str])> {
    let (key, rest) = match path.split_once('.') {
        Some((key, rest)) => (key, Some(rest)),
        None => (path, None),
    };
    let field = root.fields().into_iter().find(|field| field.key == key)?;
    match rest {
        None => Some((field.value, field.meaning)),
        Some(rest) => find(field.value.block()?, rest),
    }
}

/// All values of a flag that was repeated.
fn list(values: &[String]) -> Content {
    Content::List(
        values
            .iter()
            .map(|value| Node {
                content: Content::plain(value),
                mark: Mark::default(),
            })
            .collect(),
    )
}

/// The tree with one value under a key.
fn nested(path: &str, content: Content) -> Node {
    let mark = Mark::default();
    path.rsplit('.')
        .fold(Node { content, mark }, |value, key| Node {
            content: Content::Map(vec![Entry {
                key: key.to_owned(),
                mark,
                value,
            }]),
            mark,
        })
}

/// What `-help` prints: the flags by group, with their defaults.
pub fn help() -> String {
    let schema = RawConfig::default();
    let mut text = String::from(
        "tempo receives traces over OTLP, keeps them in an object store and answers queries.\n\
         \n\
         Try it without any configuration:\n\
         \n\
         \x20 tempo -storage.trace.backend=local -storage.trace.local.path=/tmp/tempo/blocks \\\n\
         \x20       -live-store.wal.path=/tmp/tempo/wal\n\
         \n\
         Usually a file says what to do, and flags say it better: built-in defaults, then the\n\
         file, then flags. Flags are written -flag=value or -flag value, with one dash or two.\n",
    );
    let _ = writeln!(text, "\nGeneral");
    for (name, takes_value, meaning) in ACTIONS.iter().filter(|(name, ..)| *name != "h") {
        let value = if *takes_value { " <value>" } else { "" };
        let default = match *name {
            "health.url" => format!(" Default {DEFAULT_HEALTH_URL}."),
            _ => String::new(),
        };
        let _ = writeln!(text, "  -{name}{value}\n        {meaning}{default}");
    }
    let mut group = "";
    for (flag_group, name, path, meaning) in NAMED {
        if *flag_group != group {
            group = flag_group;
            let _ = writeln!(text, "\n{group}");
        }
        let Some((value, _)) = find(&schema, path) else {
            continue;
        };
        let kind = match value.type_name() {
            kind if kind == "true or false" => String::new(),
            kind if kind.starts_with("one of") => " <name>".to_owned(),
            kind => format!(" <{kind}>"),
        };
        let default = match value.render().inline() {
            default if default.is_empty() || default == "\"\"" || default == "[]" => String::new(),
            default => format!(" Default {default}."),
        };
        let _ = writeln!(text, "  -{name}{kind}\n        {meaning}{default}");
    }
    let _ = writeln!(text, "\nSettings of the file as flags");
    for (flags, keys) in FAMILIES {
        let _ = writeln!(
            text,
            "  -{flags}<key>  {}<key>, with dashes for underscores",
            keys
        );
    }
    text.push_str(
        "\nAll settings with their defaults are in docs/reference/configuration.md; the effective\n\
         ones are served at /status/config.\n",
    );
    text
}
