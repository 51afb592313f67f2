//! Resources, scopes and the row itself: what stands around the spans of a trace.

use tempo_model::TraceId;
use tempo_table::shape::ServiceStats;

use super::{
    columns::Columns,
    trace::{Trace, TraceTemplates},
};

/// Appends the resources and scopes of a trace, and counts its spans per service.
pub(super) fn push_frame(
    columns: &mut Columns,
    trace: &Trace<'_>,
    templates: &TraceTemplates,
    stats: &mut ServiceStats<u32>,
) {
    let (mut resource_rep, mut scope_rep) = (0, 0);
    for group in &trace.resources {
        let template = templates.resources.get(group.template);
        let resources = &mut columns.resources;
        resources.reps.push(resource_rep);
        resources.services.codes.push(template.name);
        resources
            .dropped_attributes
            .push(template.dropped_attributes);
        resources
            .attributes
            .push_owner(resource_rep, &template.sorted);
        for (column, value) in resources.spare.iter_mut().zip(&template.spare) {
            column.push(value);
        }
        for scope in trace.scopes_of(group) {
            let scopes = &mut columns.scopes;
            let scope_template = templates.scopes.get(scope.template);
            scopes.reps.push(scope_rep);
            scopes.names.codes.push(scope_template.name);
            scopes.versions.codes.push(scope_template.version);
            scopes
                .dropped_attributes
                .push(scope_template.dropped_attributes);
            scopes.span_counts.push(scope.spans as i32);
            let attributes = match &scope_template.as_sent {
                Some(as_sent) if !group.sorts_scopes() => as_sent,
                _ => &scope_template.sorted,
            };
            scopes.attributes.push_owner(scope_rep, attributes);
            stats.add(template.name, scope.spans, scope.errors);
            scope_rep = 2;
        }
        resource_rep = 1;
        scope_rep = 1;
    }
}

/// Appends what a trace has once: its id, times and root, and the statistics of its services,
/// sorted by name.
pub(super) fn push_row(
    columns: &mut Columns,
    id: TraceId,
    trace: &Trace<'_>,
    templates: &TraceTemplates,
    stats: &ServiceStats<u32>,
) {
    let Columns {
        traces, resources, ..
    } = columns;
    let services = &resources.services.dict;
    traces.ids.extend_from_slice(id.as_bytes());
    traces.starts.push(trace.extent.start_unix_nano());
    traces.ends.push(trace.extent.end_unix_nano());
    traces.durations.push(trace.extent.duration_nano());
    let (root_service, root_name): (&[u8], &[u8]) = match trace.root() {
        Some((span, resource)) => {
            let template = templates.resources.get(resource);
            (services.bytes(template.name), span.name)
        }
        None => (&[], &[]),
    };
    traces.root_services.push(root_service);
    traces.root_names.push(root_name);

    let first = traces.stats_spans.len();
    let mut entries: Vec<_> = stats.entries().iter().collect();
    entries.sort_unstable_by_key(|entry| services.bytes(entry.service));
    for entry in entries {
        let rep = u8::from(traces.stats_spans.len() > first);
        traces.stats_reps.push(rep);
        traces.stats_services.push(services.bytes(entry.service));
        traces.stats_spans.push(entry.spans);
        traces.stats_errors.push(entry.errors);
    }
}
