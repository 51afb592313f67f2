//! Azure Blob Storage.

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::{
    Environment, Hints, Remote, client_options, connector, not_built, part_bytes, required,
    retry_config,
};
use crate::{
    AzureConfig, Backend, BackendConfig, Error, RetryConfig,
    backend::{StoreKind, WriteSettings},
    metrics::RequestMetrics,
};

/// Blocks that Azure accepts in one blob.
const MAX_BLOCKS: usize = 50_000;

/// Variables of the workload's identity, handed to the library as they are.
const WORKLOAD_VARIABLES: [&str; 4] = [
    "AZURE_CLIENT_ID",
    "AZURE_TENANT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
];

pub(super) async fn open(
    config: &BackendConfig,
    azure: &AzureConfig,
    metrics: RequestMetrics,
    environment: Environment<'_>,
) -> Result<Backend, Error> {
    let section = config.section.as_str();
    let container = required(section, "azure.container_name", &azure.container_name)?;
    let account = or_variable(
        &azure.storage_account_name,
        environment,
        "AZURE_STORAGE_ACCOUNT",
    );
    required(section, "azure.storage_account_name", &account)?;
    let url = service_url(&account, &azure.endpoint_suffix);
    let connector = connector(metrics, azure.hedge);
    let last_status = connector.last_status.clone();
    let builder = MicrosoftAzureBuilder::new()
        .with_account(&account)
        .with_container_name(container)
        .with_client_options(client_options().with_allow_http(url.starts_with("http://")))
        .with_endpoint(url)
        .with_retry(retry_config(&RetryConfig {
            max_attempts: 4,
            ..RetryConfig::default()
        }))
        .with_http_connector(connector);
    let store = with_credentials(builder, azure, environment, section)?
        .build()
        .map_err(|error| not_built(section, "azure", &error))?;
    let remote = Remote {
        store,
        kind: StoreKind::Azure,
        prefix: azure.prefix.clone(),
        writes: WriteSettings {
            part_bytes: part_bytes(azure.buffer_size_bytes),
            parts_in_flight: azure.max_buffers.max(1),
            max_parts: MAX_BLOCKS,
            ..WriteSettings::default()
        },
        list_blocks_concurrency: 1,
        last_status,
    };
    let hints = Hints {
        endpoint: "azure.endpoint_suffix",
        bucket: "azure.container_name",
        credentials: "azure.storage_account_key",
        tls: "azure.endpoint_suffix",
    };
    remote.check(config, hints).await
}

fn or_variable(value: &str, environment: Environment<'_>, name: &str) -> String {
    if value.is_empty() {
        environment(name).unwrap_or_default()
    } else {
        value.to_owned()
    }
}

/// The account's URL. A suffix that does not begin with `blob.` is an emulator, which has the
/// account in the path.
fn service_url(account: &str, suffix: &str) -> String {
    if suffix.starts_with("blob.") {
        format!("https://{account}.{suffix}")
    } else {
        format!("http://{suffix}/{account}")
    }
}

fn with_credentials(
    mut builder: MicrosoftAzureBuilder,
    azure: &AzureConfig,
    environment: Environment<'_>,
    section: &str,
) -> Result<MicrosoftAzureBuilder, Error> {
    if azure.use_federated_token {
        for name in WORKLOAD_VARIABLES {
            let key: Result<AzureConfigKey, _> = name.to_ascii_lowercase().parse();
            if let (Ok(key), Some(value)) = (key, environment(name)) {
                builder = builder.with_config(key, value);
            }
        }
        if !azure.user_assigned_id.is_empty() {
            builder = builder.with_client_id(&azure.user_assigned_id);
        }
        return Ok(builder.with_credential_type("workload_identity"));
    }
    if azure.use_managed_identity {
        if !azure.user_assigned_id.is_empty() {
            builder = builder.with_client_id(&azure.user_assigned_id);
        }
        return Ok(builder.with_credential_type("managed_identity"));
    }
    let key = or_variable(
        azure.storage_account_key.expose(),
        environment,
        "AZURE_STORAGE_KEY",
    );
    if key.is_empty() {
        return Err(Error::config(
            format!("{section}.azure.storage_account_key"),
            "it is not set; set it or AZURE_STORAGE_KEY, or use_managed_identity, or \
             use_federated_token",
        ));
    }
    Ok(builder
        .with_access_key(key)
        .with_credential_type("access_key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_has_the_account_in_the_path() {
        assert_eq!(
            service_url("a", "blob.core.windows.net"),
            "https://a.blob.core.windows.net"
        );
        assert_eq!(
            service_url("a", "127.0.0.1:10000"),
            "http://127.0.0.1:10000/a"
        );
    }

    #[test]
    fn missing_credentials_name_every_way_to_give_them() {
        let error = with_credentials(
            MicrosoftAzureBuilder::new(),
            &AzureConfig::default(),
            &|_| None,
            "storage.trace",
        )
        .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("storage.trace.azure.storage_account_key"),
            "{text}"
        );
        assert!(text.contains("use_federated_token"), "{text}");
    }
}
