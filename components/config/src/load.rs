//! From text and flags to a configuration.

use std::ops::Deref;

use crate::blocks::clients::RingStore;
use crate::blocks::legacy_overrides::to_scoped;
use crate::blocks::root::RawConfig;
use crate::document::{self, Content, Node};
use crate::error::{Error, Issue};
use crate::expand::expand;
use crate::flags::CommandLine;
use crate::render::Rendered;
use crate::target::Target;
use crate::value::{Decoder, SetKey, Status, Value};
use crate::warnings::{self, Warning};

/// A configuration that was read and checked. The values are those of [`RawConfig`].
#[derive(Debug, Clone)]
pub struct Config {
    raw: RawConfig,
    set: Vec<SetKey>,
    has_legacy_overrides: bool,
}

impl Deref for Config {
    type Target = RawConfig;
    fn deref(&self) -> &RawConfig {
        &self.raw
    }
}

/// What of the configuration to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenderMode {
    /// Everything as it is.
    Effective,
    /// What differs from the defaults.
    Diff,
    /// The defaults.
    Defaults,
}

impl RenderMode {
    /// The value of `mode` in `/status/config`.
    pub fn parse(mode: &str) -> Option<Self> {
        Some(match mode {
            "" => Self::Effective,
            "diff" => Self::Diff,
            "defaults" => Self::Defaults,
            _ => return None,
        })
    }
}

impl Config {
    /// Puts the flags on the text on the defaults, and checks the result.
    ///
    /// `text` is the file that `-config.file` names, read by the caller; `variable` answers what
    /// is set in the environment and is asked only with `-config.expand-env`.
    pub fn load(
        text: Option<&str>,
        flags: &CommandLine,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let mut raw = RawConfig::default();
        let mut set = Vec::new();
        let mut issues = Vec::new();
        let mut has_legacy_overrides = false;
        if let Some(text) = text {
            let expanded;
            let text = if flags.expand_env {
                expanded = expand(text, variable)?;
                &expanded
            } else {
                text
            };
            let mut root = document::parse(text).map_err(|issue| Error::Issues(vec![issue]))?;
            let allowed = flags.sets("overrides.enable_legacy_overrides");
            has_legacy_overrides = scope_overrides(&mut root, allowed, &mut issues);
            let mut decoder = Decoder::new(None);
            raw.merge(&root, &mut decoder);
            issues.append(&mut decoder.issues);
            set.append(&mut decoder.set);
        }
        for (flag, node) in flags.settings() {
            let mut decoder = Decoder::new(Some(flag));
            raw.merge(&node, &mut decoder);
            issues.append(&mut decoder.issues);
            set.append(&mut decoder.set);
        }
        if !issues.is_empty() {
            return Err(Error::Issues(issues));
        }
        let mut config = Self {
            raw,
            set,
            has_legacy_overrides,
        };
        config.force_monolith();
        let problems = warnings::problems(&config);
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(Error::Invalid(problems))
        }
    }

    /// In a monolith rings are within the process.
    fn force_monolith(&mut self) {
        if self.raw.target != Target::All {
            return;
        }
        // One that others read, by its reserved partition, must be found from outside.
        let is_read_by_others = self.raw.live_store.partition_ring.partition_id >= 0;
        for (ring, is_found_outside) in [
            (&mut self.raw.metrics_generator.ring, false),
            (&mut self.raw.live_store.ring, is_read_by_others),
        ] {
            ring.kvstore.store = RingStore::InMemory;
            if !is_found_outside {
                "127.0.0.1".clone_into(&mut ring.instance_addr);
            }
        }
        self.raw.live_store.partition_ring.kvstore.store = RingStore::InMemory;
        self.raw.backend_worker.ring.kvstore.store = RingStore::None;
    }

    /// Whether requests name their tenant.
    pub fn multitenancy(&self) -> bool {
        self.raw.multitenancy_enabled || self.raw.auth_enabled
    }

    /// Whether the overrides were written in the flat form of Tempo 1.
    pub fn has_legacy_overrides(&self) -> bool {
        self.has_legacy_overrides
    }

    /// Whether the text or a flag sets this key, be it to its default.
    pub fn is_set(&self, path: &str) -> bool {
        self.set.iter().any(|key| key.path == path)
    }

    /// The keys that were set but mean nothing in this version, in the order of setting: logged
    /// once at start. Of a list only its own key is named.
    pub fn ineffective_keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        for key in self.set.iter().filter(|key| key.status != Status::Used) {
            let path = key
                .path
                .split_once('[')
                .map_or(&*key.path, |(list, _)| list);
            if !keys.iter().any(|known| known == path) {
                keys.push(path.to_owned());
            }
        }
        keys
    }

    /// What is suspect: logged at start, and a failure of `-config.verify`.
    pub fn warnings(&self) -> Vec<Warning> {
        warnings::warnings(self)
    }

    /// The configuration as YAML; secrets are masked.
    pub fn render(&self, mode: RenderMode) -> String {
        let effective = self.raw.render();
        let shown = match mode {
            RenderMode::Effective => effective,
            RenderMode::Defaults => RawConfig::default().render(),
            RenderMode::Diff => effective
                .difference(&RawConfig::default().render())
                .unwrap_or(Rendered::Map(Vec::new())),
        };
        shown.to_yaml()
    }
}

/// Brings flat overrides to today's form. Whether there were any; not being allowed is an issue
/// of each key.
fn scope_overrides(root: &mut Node, allowed_by_flag: bool, issues: &mut Vec<Issue>) -> bool {
    let Content::Map(entries) = &mut root.content else {
        return false;
    };
    let Some(overrides) = entries.iter_mut().find(|entry| entry.key == "overrides") else {
        return false;
    };
    let Content::Map(settings) = &mut overrides.value.content else {
        return false;
    };
    let allowed = allowed_by_flag
        || settings.iter().any(|entry| {
            entry.key == "enable_legacy_overrides"
                && matches!(&entry.value.content, Content::Scalar { text, .. } if text == "true")
        });
    let mixed = settings.iter().any(|entry| entry.key == "defaults");
    let (scoped, legacy) = to_scoped(std::mem::take(settings), Some("defaults"));
    *settings = scoped;
    for key in &legacy {
        let message = if mixed {
            format!(
                "the flat form can't be mixed with `defaults`; write defaults.{}",
                key.scoped
            )
        } else if allowed {
            continue;
        } else {
            format!(
                "the flat form of Tempo 1; write defaults.{}, or set overrides.enable_legacy_overrides for the time being",
                key.scoped
            )
        };
        let path = format!("overrides.{}", key.key);
        issues.push(Issue::of_key(path, key.mark, message));
    }
    !legacy.is_empty()
}
