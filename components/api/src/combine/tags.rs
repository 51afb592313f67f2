//! Merging tag names and tag values.

use std::collections::BTreeMap;

use tempo_proto::tempopb::{
    MetadataMetrics, SearchTagValuesResponse, SearchTagValuesV2Response, SearchTagsResponse,
    SearchTagsV2Response, SearchTagsV2Scope, TagValue,
};

use super::distinct::{Distinct, Limits};

const INTRINSIC: &str = "intrinsic";

/// The names that every span has, as offered to people who write queries; sorted.
pub fn intrinsic_names() -> impl Iterator<Item = &'static str> {
    [
        "duration",
        "event:name",
        "event:timeSinceStart",
        "instrumentation:name",
        "instrumentation:version",
        "kind",
        "link:spanID",
        "link:traceID",
        "name",
        "rootName",
        "rootServiceName",
        "span:duration",
        "span:id",
        "span:kind",
        "span:name",
        "span:parentID",
        "span:status",
        "span:statusMessage",
        "status",
        "statusMessage",
        "trace:duration",
        "trace:id",
        "trace:rootName",
        "trace:rootService",
        "traceDuration",
    ]
    .into_iter()
}

/// When collecting ends; 0 means never.
#[derive(Debug, Clone, Copy, Default)]
pub struct CollectLimits {
    /// Bytes of all collected texts together.
    pub max_bytes: u64,
    /// Items: names per scope, or values.
    pub max_items: u32,
    /// Items in a row that are known already.
    pub max_stale_items: u32,
}

/// The tag names found so far, by scope.
#[derive(Debug)]
pub struct TagNamesCombiner {
    limits: CollectLimits,
    by_scope: bool,
    scopes: BTreeMap<String, Distinct<String>>,
    bytes: u64,
    full: bool,
    inspected_bytes: u64,
}

impl TagNamesCombiner {
    /// No names yet. Without `by_scope` all names count as of one scope, so that the limit of
    /// items is one for all.
    pub fn new(limits: CollectLimits, by_scope: bool) -> Self {
        Self {
            limits,
            by_scope,
            scopes: BTreeMap::new(),
            bytes: 0,
            full: false,
            inspected_bytes: 0,
        }
    }

    /// Adds the intrinsics, which no limit keeps out.
    pub fn add_intrinsics(&mut self) {
        for name in intrinsic_names() {
            self.add_name(INTRINSIC, name.to_owned());
        }
    }

    /// Adds the answer of one job.
    pub fn add(&mut self, response: SearchTagsV2Response) {
        if let Some(metrics) = response.metrics {
            self.inspected_bytes = self.inspected_bytes.saturating_add(metrics.inspected_bytes);
        }
        for scope in response.scopes {
            for tag in scope.tags {
                self.add_name(&scope.name, tag);
            }
        }
    }

    fn add_name(&mut self, scope: &str, name: String) {
        let scope = if self.by_scope { scope } else { "" };
        let bytes = name.len();
        let max_bytes = self.limits.max_bytes;
        if self.full || max_bytes > 0 && self.bytes + bytes as u64 > max_bytes {
            self.full = true;
            return;
        }
        let limits = if scope == INTRINSIC {
            Limits::default()
        } else {
            Limits {
                max_bytes: 0,
                max_items: self.limits.max_items,
                max_stale_items: self.limits.max_stale_items,
            }
        };
        let names = self
            .scopes
            .entry(scope.to_owned())
            .or_insert_with(|| Distinct::new(limits));
        if names.add(name, bytes) {
            self.bytes += bytes as u64;
        }
        self.full |= names.is_full();
    }

    /// Whether a limit was hit, so that further jobs are in vain.
    pub fn is_complete(&self) -> bool {
        self.full
    }

    /// Bytes read by all jobs so far.
    pub fn inspected_bytes(&self) -> u64 {
        self.inspected_bytes
    }

    /// Everything found, scopes and names sorted.
    pub fn finish(&self) -> SearchTagsV2Response {
        let scopes = self
            .scopes
            .iter()
            .map(|(name, names)| SearchTagsV2Scope {
                name: name.clone(),
                tags: names.sorted(),
            })
            .filter(|scope| !scope.tags.is_empty())
            .collect();
        SearchTagsV2Response {
            scopes,
            metrics: metadata_metrics(self.inspected_bytes),
        }
    }

    /// What was found since the last call.
    pub fn take_changes(&mut self) -> SearchTagsV2Response {
        let scopes = self
            .scopes
            .iter_mut()
            .map(|(name, names)| SearchTagsV2Scope {
                name: name.clone(),
                tags: names.take_new(),
            })
            .filter(|scope| !scope.tags.is_empty())
            .collect();
        SearchTagsV2Response {
            scopes,
            metrics: metadata_metrics(self.inspected_bytes),
        }
    }

    /// An answer without scopes, as the first version of the API has it.
    pub fn flatten(response: SearchTagsV2Response) -> SearchTagsResponse {
        let mut tag_names: Vec<String> = response
            .scopes
            .into_iter()
            .flat_map(|scope| scope.tags)
            .collect();
        tag_names.sort_unstable();
        tag_names.dedup();
        SearchTagsResponse {
            tag_names,
            metrics: response.metrics,
        }
    }
}

/// The values of one tag found so far.
#[derive(Debug)]
pub struct TagValuesCombiner {
    /// Type and text.
    values: Distinct<(String, String)>,
    inspected_bytes: u64,
}

impl TagValuesCombiner {
    /// No values yet.
    pub fn new(limits: CollectLimits) -> Self {
        Self {
            values: Distinct::new(Limits {
                max_bytes: limits.max_bytes,
                max_items: limits.max_items,
                max_stale_items: limits.max_stale_items,
            }),
            inspected_bytes: 0,
        }
    }

    /// Adds the answer of one job.
    pub fn add(&mut self, response: SearchTagValuesV2Response) {
        if let Some(metrics) = response.metrics {
            self.inspected_bytes = self.inspected_bytes.saturating_add(metrics.inspected_bytes);
        }
        for value in response.tag_values {
            let bytes = value.r#type.len() + value.value.len();
            self.values.add((value.r#type, value.value), bytes);
        }
    }

    /// Whether a limit was hit, so that further jobs are in vain.
    pub fn is_complete(&self) -> bool {
        self.values.is_full()
    }

    /// Bytes read by all jobs so far.
    pub fn inspected_bytes(&self) -> u64 {
        self.inspected_bytes
    }

    /// Everything found, sorted by type and text.
    pub fn finish(&self) -> SearchTagValuesV2Response {
        self.response(self.values.sorted())
    }

    /// What was found since the last call.
    pub fn take_changes(&mut self) -> SearchTagValuesV2Response {
        let new = self.values.take_new();
        self.response(new)
    }

    fn response(&self, values: Vec<(String, String)>) -> SearchTagValuesV2Response {
        SearchTagValuesV2Response {
            tag_values: values
                .into_iter()
                .map(|(r#type, value)| TagValue { r#type, value })
                .collect(),
            metrics: metadata_metrics(self.inspected_bytes),
        }
    }

    /// An answer without types, as the first version of the API has it.
    pub fn flatten(response: SearchTagValuesV2Response) -> SearchTagValuesResponse {
        let mut tag_values: Vec<String> = response
            .tag_values
            .into_iter()
            .map(|value| value.value)
            .collect();
        tag_values.sort_unstable();
        tag_values.dedup();
        SearchTagValuesResponse {
            tag_values,
            metrics: response.metrics,
        }
    }
}

/// Tag answers tell the bytes read and nothing else, as in Tempo.
fn metadata_metrics(inspected_bytes: u64) -> Option<MetadataMetrics> {
    Some(MetadataMetrics {
        inspected_bytes,
        ..MetadataMetrics::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(scope: &str, tags: &[&str]) -> SearchTagsV2Response {
        SearchTagsV2Response {
            scopes: vec![SearchTagsV2Scope {
                name: scope.to_owned(),
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            }],
            metrics: metadata_metrics(5),
        }
    }

    #[test]
    fn names_are_distinct_per_scope_and_limited_but_for_intrinsics() {
        let mut combiner = TagNamesCombiner::new(
            CollectLimits {
                max_items: 2,
                ..CollectLimits::default()
            },
            true,
        );
        combiner.add_intrinsics();
        assert!(!combiner.is_complete());
        combiner.add(names("span", &["b", "a", "b"]));
        assert!(combiner.is_complete());
        combiner.add(names("resource", &["late"]));
        let answer = combiner.finish();
        let scopes: Vec<_> = answer
            .scopes
            .iter()
            .map(|scope| (scope.name.as_str(), scope.tags.len()))
            .collect();
        assert_eq!(scopes, [("intrinsic", 25), ("span", 2)]);
        assert_eq!(answer.metrics.as_ref().unwrap().inspected_bytes, 10);
        assert_eq!(combiner.take_changes().scopes.len(), 2);
        assert_eq!(combiner.take_changes().scopes.len(), 0);
        let flat = TagNamesCombiner::flatten(answer);
        assert_eq!(flat.tag_names.len(), 27);
        assert!(flat.tag_names.is_sorted());
    }

    #[test]
    fn names_without_scopes_share_one_limit() {
        let limits = CollectLimits {
            max_items: 3,
            ..CollectLimits::default()
        };
        let mut combiner = TagNamesCombiner::new(limits, false);
        combiner.add(names("span", &["b", "a"]));
        combiner.add(names("resource", &["b", "c", "d"]));
        assert_eq!(
            TagNamesCombiner::flatten(combiner.finish()).tag_names,
            ["a", "b", "c"]
        );
    }

    #[test]
    fn intrinsic_names_are_sorted() {
        assert!(intrinsic_names().is_sorted());
    }

    #[test]
    fn the_byte_limit_may_be_reached_by_names_but_not_by_values() {
        let limits = CollectLimits {
            max_bytes: 4,
            ..CollectLimits::default()
        };
        let mut combiner = TagNamesCombiner::new(limits, true);
        combiner.add(names("span", &["ab", "cd"]));
        assert!(!combiner.is_complete());
        combiner.add(names("span", &["e"]));
        assert!(combiner.is_complete());

        let value = |text: &str| SearchTagValuesV2Response {
            tag_values: vec![TagValue {
                r#type: "i".to_owned(),
                value: text.to_owned(),
            }],
            metrics: None,
        };
        let mut combiner = TagValuesCombiner::new(limits);
        combiner.add(value("1"));
        assert!(!combiner.is_complete());
        combiner.add(value("2"));
        assert!(combiner.is_complete());
        assert_eq!(
            TagValuesCombiner::flatten(combiner.finish()).tag_values,
            ["1"]
        );
    }
}
