//! Tag names and tag values.

use std::sync::Arc;

use tempo_api::{
    BadRequest,
    combine::{CollectLimits, TagNamesCombiner, TagValuesCombiner},
    job::{DataPlace, Job, JobError, JobOutput},
    params::{QueryParams, TagScope, TimeRange},
};
use tempo_proto::tempopb::{
    SearchTagValuesRequest, SearchTagValuesV2Response, SearchTagsRequest, TagValue,
};

use tempo_traceql::{
    Attribute, Intrinsic,
    ast::{Kind, Status},
};

use crate::{
    error::QueryError,
    frontend::Frontend,
    metrics::Op,
    run::{Combine, Origin, PlannedJob, Query, unexpected_output},
    shard::{block_range, plan_tags, whole_seconds},
    tenants::Tenants,
    weight::Weighed,
};

/// Which version of the API asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

impl Frontend {
    /// Starts collecting tag names. The first version of the API has no scopes: all names come in
    /// one.
    pub(crate) fn tag_names(
        &self,
        tenants: &Tenants,
        mut request: SearchTagsRequest,
        params: &QueryParams,
        url: &str,
        version: Version,
    ) -> Result<Query<TagNamesCombiner>, QueryError> {
        let limits = self.limits.read_limits(&tenants.joined());
        self.check_query_size(&request.query)?;
        let groups =
            check_condition_groups(&request.query, limits.max_condition_groups_per_tag_query);
        match version {
            // The first version does not know the error: a filter with too many groups filters
            // nothing.
            Version::V1 if groups.is_err() => request.query.clear(),
            Version::V1 => {}
            Version::V2 => groups?,
        }
        let scope = TagScope::parse(&request.scope)?;
        let range = self.tag_range(tenants, params, url)?;
        (request.start, request.end) = (range.start, range.end);
        let mut combiner = TagNamesCombiner::new(
            CollectLimits {
                max_bytes: limits.max_bytes_per_tag_values_query,
                max_items: request.max_tags_per_scope,
                max_stale_items: request.stale_values_threshold,
            },
            version == Version::V2,
        );
        if scope == TagScope::Intrinsic || version == Version::V2 && scope == TagScope::All {
            combiner.add_intrinsics();
        }
        // Intrinsics are known without looking, and traces have no attributes of their own.
        let jobs = if matches!(scope, TagScope::Intrinsic | TagScope::Trace) {
            Vec::new()
        } else {
            let request = Arc::new(request);
            self.plan_tag_jobs(tenants, range, |place| Job::TagNames {
                request: Arc::clone(&request),
                max_bytes: limits.max_bytes_per_tag_values_query,
                place,
            })?
        };
        Ok(self.collect(tenants, jobs, combiner))
    }

    /// Starts collecting the values of a tag. In the first version of the API a filter has no
    /// effect.
    pub(crate) fn tag_values(
        &self,
        tenants: &Tenants,
        mut request: SearchTagValuesRequest,
        params: &QueryParams,
        url: &str,
        version: Version,
    ) -> Result<Query<TagValuesCombiner>, QueryError> {
        let limits = self.limits.read_limits(&tenants.joined());
        self.check_query_size(&request.query)?;
        let mut fixed = Vec::new();
        if version == Version::V1 {
            fixed.extend(fixed_values_v1(&request.tag_name));
            request.tag_name = traceql_name(&request.tag_name);
        }
        let attribute = tempo_traceql::parse_identifier(&request.tag_name)
            .map_err(|error| BadRequest(format!("please provide a valid tagName: {error}")))?;
        let known = fixed_values(&attribute);
        let are_fixed = !known.is_empty();
        fixed.extend(known);
        match version {
            Version::V1 => request.query.clear(),
            Version::V2 => {
                check_condition_groups(&request.query, limits.max_condition_groups_per_tag_query)?;
            }
        }
        let range = self.tag_range(tenants, params, url)?;
        (request.start, request.end) = (range.start, range.end);
        let mut combiner = TagValuesCombiner::new(CollectLimits {
            max_bytes: limits.max_bytes_per_tag_values_query,
            max_items: request.max_tag_values,
            max_stale_items: request.stale_value_threshold,
        });
        combiner.add(SearchTagValuesV2Response {
            tag_values: fixed,
            metrics: None,
        });
        let request = Arc::new(request);
        let jobs = if are_fixed {
            Vec::new()
        } else {
            self.plan_tag_jobs(tenants, range, |place| Job::TagValues {
                request: Arc::clone(&request),
                max_bytes: limits.max_bytes_per_tag_values_query,
                place,
            })?
        };
        Ok(self.collect(tenants, jobs, combiner))
    }

    fn collect<C>(&self, tenants: &Tenants, jobs: Vec<PlannedJob>, combiner: C) -> Query<C> {
        self.count_jobs(Op::Metadata, jobs.len());
        let concurrent = self.config.search.concurrent_jobs;
        Query {
            combiner,
            jobs: self
                .runner
                .start(tenants.names(), jobs, Weighed::Tags, concurrent),
        }
    }

    fn tag_range(
        &self,
        tenants: &Tenants,
        params: &QueryParams,
        url: &str,
    ) -> Result<TimeRange, QueryError> {
        let range = self.clamp(params)?;
        self.check_url(url)?;
        if range.end < range.start {
            return Err(QueryError::Bad(BadRequest(format!(
                "http parameter start must be before end. received start={} end={}",
                range.start, range.end
            ))));
        }
        for tenant in tenants.names() {
            self.check_duration(range, &self.limits.read_limits(tenant))?;
        }
        Ok(range)
    }

    fn plan_tag_jobs(
        &self,
        tenants: &Tenants,
        range: TimeRange,
        job: impl Fn(DataPlace) -> Job,
    ) -> Result<Vec<PlannedJob>, QueryError> {
        let search = &self.config.search;
        let division = self.division(tenants, search.query_backend_after)?;
        let recent_from = whole_seconds(division.recent_from_nanos);
        let blocks_until = whole_seconds(division.blocks_until_nanos);
        let mut jobs = Vec::new();
        for (index, tenant) in tenants.names().iter().enumerate() {
            let blocks = self.blocks_of(tenant, block_range(range, blocks_until));
            let places = plan_tags(range, recent_from, blocks, search.target_bytes_per_job);
            jobs.extend(places.into_iter().map(|place| PlannedJob {
                tenant: index,
                shard: 0,
                job: job(place),
            }));
        }
        Ok(jobs)
    }
}

impl Combine for TagNamesCombiner {
    fn add(&mut self, output: JobOutput, _: Origin) -> Result<(), JobError> {
        let JobOutput::TagNames(response) = output else {
            return Err(unexpected_output());
        };
        self.add(response);
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.is_complete()
    }
}

impl Combine for TagValuesCombiner {
    fn add(&mut self, output: JobOutput, _: Origin) -> Result<(), JobError> {
        let JobOutput::TagValues(response) = output else {
            return Err(unexpected_output());
        };
        self.add(response);
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.is_complete()
    }
}

fn check_condition_groups(query: &str, max_groups: usize) -> Result<(), BadRequest> {
    tempo_traceql::condition_groups(query, max_groups)
        .map(|_| ())
        .map_err(|error| BadRequest(error.to_string()))
}

/// The values of what can have no others, whatever the data.
fn fixed_values(attribute: &Attribute) -> Vec<TagValue> {
    let names: Vec<&str> = match attribute {
        Attribute::Intrinsic(Intrinsic::Status) => [Status::Error, Status::Ok, Status::Unset]
            .map(Status::name)
            .to_vec(),
        Attribute::Intrinsic(Intrinsic::Kind) => [
            Kind::Client,
            Kind::Server,
            Kind::Producer,
            Kind::Consumer,
            Kind::Internal,
            Kind::Unspecified,
        ]
        .map(Kind::name)
        .to_vec(),
        _ => Vec::new(),
    };
    names
        .into_iter()
        .map(|name| TagValue {
            r#type: "keyword".to_owned(),
            value: name.to_owned(),
        })
        .collect()
}

/// Values that the first version of the API knows without looking, in addition to what is found.
fn fixed_values_v1(tag_name: &str) -> impl Iterator<Item = TagValue> {
    let values: &[&str] = match tag_name {
        "status.code" => &["unset", "ok", "error"],
        "error" => &["true"],
        _ => &[],
    };
    values.iter().map(|value| TagValue {
        r#type: "string".to_owned(),
        value: (*value).to_owned(),
    })
}

/// What the unscoped tag names of the first version mean in TraceQL.
fn traceql_name(tag_name: &str) -> String {
    match tag_name {
        "name" | "rootName" | "rootServiceName" | "trace:id" | "span:id" => tag_name.to_owned(),
        "status.code" => "status".to_owned(),
        "root.name" => "rootName".to_owned(),
        "root.service.name" => "rootServiceName".to_owned(),
        "service.name" | "cluster" | "namespace" | "pod" | "container" | "k8s.namespace.name"
        | "k8s.cluster.name" | "k8s.pod.name" | "k8s.container.name" => {
            format!("resource.{tag_name}")
        }
        "http.method" | "http.url" | "http.status_code" => format!("span.{tag_name}"),
        other => {
            let escaped = other.replace('\\', "\\\\").replace('"', "\\\"");
            format!(".\"{escaped}\"")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_tag_names_are_identifiers_of_traceql() {
        for (old, new) in [
            ("name", "name"),
            ("service.name", "resource.service.name"),
            ("http.url", "span.http.url"),
            ("status.code", "status"),
            ("root.name", "rootName"),
            ("foo", ".\"foo\""),
            ("a \"b\\c", ".\"a \\\"b\\\\c\""),
        ] {
            assert_eq!(traceql_name(old), new);
            assert!(
                tempo_traceql::parse_identifier(new).is_ok(),
                "{new} is no identifier"
            );
        }
    }
}
