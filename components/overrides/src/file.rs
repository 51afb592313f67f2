//! Reading the runtime file.

use std::{io::Read, sync::Arc};

use flate2::read::GzDecoder;

use tempo_config::{Problem, parse_runtime_overrides_with};

use crate::{Error, TenantOverrides, overrides::RuntimeTable, rules};

/// A larger file is not read.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Changes the text before it is parsed: expansion of environment variables.
pub type Expand = Arc<dyn Fn(&str) -> Result<String, String> + Send + Sync>;

/// A further check of an entry: names of forwarders, of columns. Answers the paths of settings
/// below the tenant, and what is wrong with each.
pub type Check = Arc<dyn Fn(&TenantOverrides) -> Vec<Problem> + Send + Sync>;

/// Where the runtime file is and how it is read.
#[derive(Clone)]
pub(crate) struct RuntimeFile {
    pub(crate) path: String,
    pub(crate) allow_legacy: bool,
    pub(crate) expand: Option<Expand>,
    pub(crate) check: Option<Check>,
}

impl RuntimeFile {
    /// The bytes of the file as they lie there.
    pub(crate) async fn read(&self) -> Result<Vec<u8>, Error> {
        if self.path.contains("://") {
            return Err(Error::file(
                &self.path,
                "URLs are not supported; mount the file and give its path",
            ));
        }
        let failed = |error: std::io::Error| Error::file(&self.path, error);
        let length = tokio::fs::metadata(&self.path).await.map_err(failed)?.len();
        if length > MAX_FILE_BYTES {
            return Err(Error::file(
                &self.path,
                format_args!("it has {length} bytes, more than {MAX_FILE_BYTES}"),
            ));
        }
        tokio::fs::read(&self.path).await.map_err(failed)
    }

    /// The entries that these bytes mean.
    pub(crate) fn parse(&self, bytes: &[u8]) -> Result<RuntimeTable, Error> {
        let unpacked;
        let bytes = if self.path.ends_with(".gz") {
            unpacked = self.unpack(bytes)?;
            &unpacked
        } else {
            bytes
        };
        let mut text =
            std::str::from_utf8(bytes).map_err(|error| Error::file(&self.path, error))?;
        let expanded;
        if let Some(expand) = &self.expand {
            expanded = expand(text).map_err(|error| Error::file(&self.path, error))?;
            text = &expanded;
        }
        let check = |entry: &TenantOverrides| {
            let mut problems = rules::entry_problems(entry);
            if let Some(check) = &self.check {
                problems.extend(check(entry));
            }
            problems
        };
        let table = parse_runtime_overrides_with(text, self.allow_legacy, &check)
            .map_err(|error| Error::file(&self.path, error))?;
        Ok(table
            .into_iter()
            .map(|(tenant, entry)| (tenant, Arc::new(entry)))
            .collect())
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let mut unpacked = Vec::new();
        GzDecoder::new(bytes)
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut unpacked)
            .map_err(|error| Error::file(&self.path, error))?;
        if unpacked.len() as u64 > MAX_FILE_BYTES {
            return Err(Error::file(
                &self.path,
                format_args!("it unpacks to more than {MAX_FILE_BYTES} bytes"),
            ));
        }
        Ok(unpacked)
    }
}
