//! Words and flags of a subcommand.

use super::CliError;

/// Flags that take a value.
const WITH_VALUE: [&str; 21] = [
    "config-file",
    "backend",
    "bucket",
    "s3-endpoint",
    "s3-user",
    "s3-pass",
    "format",
    "num-attr",
    "max-blocks",
    "min-compaction-level",
    "start",
    "end",
    "limit",
    "tenant",
    "trace-id",
    "percentage",
    "scheduler",
    "kafka-address",
    "topic",
    "group",
    "offset",
];

/// Flags that do not.
const SWITCHES: [&str; 3] = ["include-compacted", "insecure-skip-verify", "dry-run"];

/// A parsed command line.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    words: Vec<String>,
    flags: Vec<(&'static str, String)>,
}

impl Arguments {
    pub(super) fn parse(line: &[String]) -> Result<Self, CliError> {
        let mut arguments = Self::default();
        let mut rest = line.iter();
        while let Some(argument) = rest.next() {
            let flag = match argument.as_str() {
                "-c" => "config-file",
                text => match text.strip_prefix("--") {
                    Some(flag) if !flag.is_empty() => flag,
                    _ => {
                        arguments.words.push(argument.clone());
                        continue;
                    }
                },
            };
            let (name, given) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            if let Some(name) = SWITCHES.into_iter().find(|known| *known == name) {
                if given.is_some() {
                    return Err(CliError::Usage(format!("flag --{name} takes no value")));
                }
                arguments.flags.push((name, String::new()));
                continue;
            }
            let Some(name) = WITH_VALUE.into_iter().find(|known| *known == name) else {
                return Err(CliError::Usage(format!("unknown flag --{name}")));
            };
            let value = given
                .or_else(|| rest.next().cloned())
                .ok_or_else(|| CliError::Usage(format!("flag --{name} needs a value")))?;
            arguments.flags.push((name, value));
        }
        Ok(arguments)
    }

    /// What is not a flag.
    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    /// The last value of a flag.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values(name).last()
    }

    /// All values of a flag.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let flags = self.flags.iter();
        flags
            .filter(move |(known, _)| *known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a switch is given.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The number of a flag, or what stands in for it.
    pub(super) fn number(&self, name: &str, default: usize) -> Result<usize, CliError> {
        self.value(name).map_or(Ok(default), |text| {
            text.parse()
                .map_err(|_| CliError::Usage(format!("--{name} {text}: not a number")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Arguments, CliError> {
        let line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        Arguments::parse(&line)
    }

    #[test]
    fn words_and_flags_may_be_mixed() {
        let arguments = parse(&[
            "list",
            "--bucket",
            "b",
            "blocks",
            "-c",
            "f",
            "--include-compacted",
            "t",
            "--limit=3",
        ])
        .unwrap();
        assert_eq!(arguments.words(), ["list", "blocks", "t"]);
        assert_eq!(arguments.value("bucket"), Some("b"));
        assert_eq!(arguments.value("config-file"), Some("f"));
        assert!(arguments.is_set("include-compacted"));
        assert_eq!(arguments.number("limit", 9).unwrap(), 3);
        assert_eq!(arguments.number("num-attr", 9).unwrap(), 9);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, problem) in [
            (vec!["list", "--nothing"], "unknown flag --nothing"),
            (vec!["list", "--bucket"], "--bucket needs a value"),
            (vec!["list", "--dry-run=x"], "--dry-run takes no value"),
        ] {
            let error = parse(&line).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        let arguments = parse(&["--limit", "x"]).unwrap();
        assert!(arguments.number("limit", 1).is_err());
    }
}
