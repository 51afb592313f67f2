//! The subcommands: looking at blocks, checking them, asking them, without a running Tempo; and at
//! the records in Kafka.
//!
//! Owns the command line of what is not a server, and how answers are printed: tables for people,
//! JSON for programs, progress on standard error. Names are those of `tempo-cli`. Must never change
//! a bucket, nor what a consumer group has committed.

mod analyse;
mod arguments;
mod check;
mod kafka;
mod list;
mod output;
mod query;
mod redact;
mod store;
mod view;

use std::process::ExitCode;

use self::{arguments::Arguments, output::Output};

/// Why a subcommand did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A wrong command line: exit code 2.
    #[error("{0}; see `tempo help`")]
    Usage(String),
    /// Anything else: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Something was found that is not as it must be, and printed: exit code 1.
    #[error("{0} problems found")]
    Problems(usize),
}

impl CliError {
    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

const HELP: &str = "\
Subcommands (without one, tempo runs the components of -target):

  list tenants                                tenants of the bucket
  list blocks TENANT [--include-compacted]    blocks, by the end of their spans
  list block TENANT BLOCK                     what a block says about itself
  list index TENANT                           what the tenant index holds
  list compaction-summary TENANT              blocks per compaction level
  list cache-summary TENANT                   bloom filter shards per day and level
  view schema TENANT BLOCK                    columns of a block and their sizes
  analyse block TENANT BLOCK [--num-attr 20]  attributes by the bytes of their values
  analyse blocks TENANT [--num-attr 20] [--max-blocks 10] [--min-compaction-level 3]
  check block TENANT BLOCK                    whether a block is sound
  check bucket [TENANT]                       whether all blocks and indexes are
  query trace-id ID TENANT                    a trace as JSON
  query trace-summary ID TENANT               where the parts of a trace are, and what it is
  query search TRACEQL TENANT [--start T] [--end T] [--limit 20]
  query search NAME VALUE START END TENANT    traces by an attribute, times in RFC 3339
  redact SCHEDULER --tenant TENANT --trace-id ID [--trace-id ID ...] [--dry-run]
                                              asks a backend-scheduler (host:port)
  kafka lag [--group NAME ...]                records per partition, and how many each consumer
                                              group has still to read
  kafka records PARTITION [--offset N] [--limit 20]
                                              what records hold; the last ones without --offset

Where the blocks are:
  -c, --config-file FILE      a configuration of tempo
  --backend local|s3|gcs|azure --bucket NAME  (for local: the folder)
  --s3-endpoint HOST:PORT --s3-user KEY --s3-pass SECRET --insecure-skip-verify

Where Kafka is:
  -c, --config-file FILE      a configuration of tempo, for logins and certificates, too
  --kafka-address HOST:PORT --topic NAME

Output:
  --format table|json         table is the default
";

/// The words that begin a subcommand.
const VERBS: [&str; 9] = [
    "list", "view", "analyse", "analyze", "check", "query", "redact", "kafka", "help",
];

/// Does the subcommand of a command line; `None` when it has none.
pub(crate) fn run(line: &[String]) -> Option<ExitCode> {
    let verb = line.first()?;
    if !VERBS.contains(&verb.as_str()) {
        return None;
    }
    Some(match execute(line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tempo: {error}");
            ExitCode::from(match error {
                CliError::Usage(_) => crate::USAGE,
                CliError::Failed(_) | CliError::Problems(_) => crate::FAILURE,
            })
        }
    })
}

fn execute(line: &[String]) -> Result<(), CliError> {
    let arguments = Arguments::parse(line)?;
    let output = Output::new(&arguments)?;
    let words: Vec<&str> = arguments.words().iter().map(String::as_str).collect();
    if words.first() == Some(&"help") {
        output.text(HELP);
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::failed)?;
    let done = runtime.block_on(async {
        match words.as_slice() {
            ["list", "tenants"] => list::tenants(&arguments, &output).await,
            ["list", "blocks", tenant] => list::blocks(tenant, &arguments, &output).await,
            ["list", "block", tenant, block] => {
                list::block(tenant, block, &arguments, &output).await
            }
            ["list", "index", tenant] => list::index(tenant, &arguments, &output).await,
            ["list", "compaction-summary", tenant] => {
                list::compaction_summary(tenant, &arguments, &output).await
            }
            ["list", "cache-summary", tenant] => {
                list::cache_summary(tenant, &arguments, &output).await
            }
            ["view", "schema", tenant, block] => {
                view::schema(tenant, block, &arguments, &output).await
            }
            ["analyse" | "analyze", "block", tenant, block] => {
                analyse::block(tenant, block, &arguments, &output).await
            }
            ["analyse" | "analyze", "blocks", tenant] => {
                analyse::blocks(tenant, &arguments, &output).await
            }
            ["check", "block", tenant, block] => {
                check::block(tenant, block, &arguments, &output).await
            }
            ["check", "bucket"] => check::bucket(None, &arguments, &output).await,
            ["check", "bucket", tenant] => check::bucket(Some(tenant), &arguments, &output).await,
            ["query", "trace-id", id, tenant] => {
                query::trace(id, tenant, &arguments, &output).await
            }
            ["query", "trace-summary", id, tenant] => {
                query::trace_summary(id, tenant, &arguments, &output).await
            }
            ["query", "search", query, tenant] => {
                query::search(query, tenant, &arguments, &output).await
            }
            ["query", "search", name, value, start, end, tenant] => {
                let tag = query::Tag {
                    name,
                    value,
                    start,
                    end,
                };
                query::search_tag(tag, tenant, &arguments, &output).await
            }
            ["kafka", "lag"] => kafka::lag(&arguments, &output).await,
            ["kafka", "records", partition] => kafka::records(partition, &arguments, &output).await,
            ["redact", scheduler] => redact::submit(scheduler, &arguments, &output).await,
            _ => Err(CliError::Usage(format!(
                "unknown command or wrong number of arguments: {}",
                words.join(" ")
            ))),
        }
    });
    // Threads that still read are of no interest any more.
    runtime.shutdown_background();
    done
}
