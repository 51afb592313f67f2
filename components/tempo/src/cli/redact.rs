//! `redact`: asks a backend-scheduler to remove traces.

use serde_json::json;
use tempo_model::TraceId;
use tempo_proto::tempopb::{
    RedactionMode, SubmitRedactionRequest, backend_scheduler_client::BackendSchedulerClient,
};
use tonic::{Request, metadata::MetadataValue};

use super::{CliError, arguments::Arguments, output::Output};

pub(super) async fn submit(
    scheduler: &str,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    let tenant = arguments
        .value("tenant")
        .ok_or_else(|| CliError::Usage("--tenant is missing".to_owned()))?;
    let mut trace_ids = Vec::new();
    for text in arguments.values("trace-id") {
        let id: TraceId = text
            .parse()
            .map_err(|error| CliError::Usage(format!("trace id {text}: {error}")))?;
        trace_ids.push(id.as_bytes().to_vec());
    }
    let mode = if arguments.is_set("dry-run") {
        RedactionMode::DryRun
    } else {
        RedactionMode::Apply
    };
    let mut request = Request::new(SubmitRedactionRequest {
        tenant_id: tenant.to_owned(),
        trace_ids,
        mode: mode.into(),
        ..Default::default()
    });
    let value = MetadataValue::try_from(tenant)
        .map_err(|error| CliError::Usage(format!("--tenant {tenant}: {error}")))?;
    request.metadata_mut().insert("x-scope-orgid", value);
    let mut client = BackendSchedulerClient::connect(format!("http://{scheduler}"))
        .await
        .map_err(|error| CliError::Failed(format!("{scheduler}: {error}")))?;
    let answer = client
        .submit_redaction(request)
        .await
        .map_err(|status| CliError::Failed(format!("{}: {}", status.code(), status.message())))?
        .into_inner();
    output.object(json!({
        "batch_id": answer.batch_id,
        "jobs_created": answer.jobs_created,
    }));
    Ok(())
}
