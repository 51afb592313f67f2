//! `kafka`: what is in the log, and who has still to read it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempo_backend::Timestamp;
use tempo_config::Config;
use tempo_ingest::{KafkaConfig, Offsets, PartitionConsumer, Polled, Record, StartAt};

use super::{
    CliError,
    arguments::Arguments,
    output::{Output, Progress, size},
    store::{blocking, config_file, config_text},
};
use crate::settings;

/// The group under which brokers are asked; nothing is committed.
const NOBODY: &str = "tempo-cli";

const DEFAULT_RECORDS: usize = 20;

/// Longest wait for the next record.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(500);

const LAG_COLUMNS: [&str; 8] = [
    "partition",
    "oldest",
    "next",
    "records",
    "group",
    "committed",
    "lag",
    "first_unread",
];

const RECORD_COLUMNS: [&str; 6] = ["offset", "time", "tenant", "size", "traces", "problem"];

pub(super) async fn lag(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let config = kafka_config(arguments)?;
    let groups: Vec<String> = arguments.values("group").map(str::to_owned).collect();
    let rows = blocking(move || lag_rows(&config, groups)).await?;
    output.rows(&LAG_COLUMNS, rows);
    Ok(())
}

/// A row for each partition and group that has committed something of it; one without a group for a
/// partition of which nobody has.
fn lag_rows(config: &KafkaConfig, named: Vec<String>) -> Result<Vec<Value>, CliError> {
    let offsets = Offsets::new(config, NOBODY).map_err(CliError::failed)?;
    let partitions: Vec<i32> = (0..partition_count(&offsets, config)?).collect();
    let groups = match named.is_empty() {
        true => offsets.groups().map_err(CliError::failed)?,
        false => named,
    };
    let mut committed = Vec::with_capacity(groups.len());
    for group in groups {
        let of_group = Offsets::new(config, &group).map_err(CliError::failed)?;
        let found = of_group.committed(&partitions).map_err(CliError::failed)?;
        committed.push((group, found));
    }
    let mut progress = Progress::new("partitions", partitions.len());
    let mut rows = Vec::new();
    for partition in partitions {
        let marks = offsets.watermarks(partition).map_err(CliError::failed)?;
        let first = rows.len();
        let row = || {
            json!({
                "partition": partition,
                "oldest": marks.low,
                "next": marks.high,
                "records": marks.high - marks.low,
            })
        };
        for (group, found) in &committed {
            let Some(at) = found.get(&partition) else {
                continue;
            };
            let mut row = row();
            row["group"] = json!(group);
            row["committed"] = json!(at.offset);
            row["lag"] = json!((marks.high - at.offset.max(marks.low)).max(0));
            if at.offset < marks.high {
                row["first_unread"] = json!(time_of(config, partition, at.offset)?);
            }
            rows.push(row);
        }
        if rows.len() == first {
            rows.push(row());
        }
        progress.step();
    }
    Ok(rows)
}

/// When the record at an offset, or the oldest one after it, was made.
fn time_of(config: &KafkaConfig, partition: i32, offset: i64) -> Result<Option<String>, CliError> {
    let mut time = None;
    read(config, partition, offset, 1, &mut |record| {
        time = Some(time_text(record));
    })?;
    Ok(time)
}

pub(super) async fn records(
    partition: &str,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    let config = kafka_config(arguments)?;
    let partition: i32 = partition
        .parse()
        .map_err(|_| CliError::Usage(format!("partition {partition}: not a number")))?;
    let limit = arguments.number("limit", DEFAULT_RECORDS)?;
    let offset = arguments.value("offset").map(|text| {
        text.parse::<i64>()
            .map_err(|_| CliError::Usage(format!("--offset {text}: not a number")))
    });
    let offset = offset.transpose()?;
    let rows = blocking(move || record_rows(&config, partition, offset, limit)).await?;
    let problems = rows.iter().filter(|row| !row["problem"].is_null()).count();
    output.rows(&RECORD_COLUMNS, rows);
    match problems {
        0 => Ok(()),
        _ => Err(CliError::Problems(problems)),
    }
}

fn record_rows(
    config: &KafkaConfig,
    partition: i32,
    offset: Option<i64>,
    limit: usize,
) -> Result<Vec<Value>, CliError> {
    let offsets = Offsets::new(config, NOBODY).map_err(CliError::failed)?;
    let count = partition_count(&offsets, config)?;
    if !(0..count).contains(&partition) {
        return Err(CliError::Usage(format!(
            "partition {partition}: topic '{}' has {count}, from 0",
            config.topic
        )));
    }
    let start = match offset {
        Some(offset) => offset,
        None => {
            let marks = offsets.watermarks(partition).map_err(CliError::failed)?;
            let last = i64::try_from(limit).unwrap_or(i64::MAX);
            marks.high.saturating_sub(last).max(marks.low)
        }
    };
    let mut rows = Vec::new();
    read(config, partition, start, limit, &mut |record| {
        rows.push(record_row(record));
    })?;
    Ok(rows)
}

fn record_row(record: &Record<'_>) -> Value {
    let bytes = record.value().len() as u64;
    let mut row = json!({
        "offset": record.offset(),
        "time": time_text(record),
        "tenant": String::from_utf8_lossy(record.key()),
        "size": size(bytes),
        "size_bytes": bytes,
    });
    match record.request() {
        Ok(request) => {
            let ids: Vec<String> = request.traces().map(|(id, _)| id.to_string()).collect();
            row["traces"] = json!(ids.len());
            row["trace_ids"] = json!(ids);
        }
        Err(error) => row["problem"] = json!(error.to_string()),
    }
    row
}

/// Shows up to `limit` records, as far as there are any.
fn read(
    config: &KafkaConfig,
    partition: i32,
    offset: i64,
    limit: usize,
    show: &mut dyn FnMut(&Record<'_>),
) -> Result<(), CliError> {
    if limit == 0 {
        return Ok(());
    }
    let start = StartAt::Offset(offset.max(0));
    let consumer = PartitionConsumer::open(config, partition, start).map_err(CliError::failed)?;
    let (mut shown, mut heard) = (0, Instant::now());
    while shown < limit {
        match consumer.poll(POLL).map_err(CliError::failed)? {
            Polled::Record(record) => {
                show(&record);
                shown += 1;
                heard = Instant::now();
            }
            Polled::EndOfPartition => break,
            Polled::Nothing if heard.elapsed() < PATIENCE => {}
            Polled::Nothing => {
                return Err(CliError::Failed(format!(
                    "no answer for {PATIENCE:?} while reading partition {partition} of topic '{}' at {}",
                    config.topic, config.address
                )));
            }
        }
    }
    Ok(())
}

fn time_text(record: &Record<'_>) -> String {
    let nanos = record.timestamp_millis().saturating_mul(1_000_000);
    Timestamp::from_unix_nanos(nanos).to_string()
}

fn partition_count(offsets: &Offsets, config: &KafkaConfig) -> Result<i32, CliError> {
    let count = offsets.partition_count().map_err(CliError::failed)?;
    count.ok_or_else(|| CliError::Failed(format!("topic '{}' does not exist", config.topic)))
}

fn kafka_config(arguments: &Arguments) -> Result<KafkaConfig, CliError> {
    let config: Config = match (
        arguments.value("config-file"),
        arguments.value("kafka-address"),
    ) {
        (Some(_), Some(_)) => {
            return Err(CliError::Usage(
                "--config-file and --kafka-address cannot be given together".to_owned(),
            ));
        }
        (Some(path), None) => config_file(path)?,
        (None, Some(address)) => {
            let topic = arguments.value("topic");
            let topic = topic.ok_or_else(|| CliError::Usage("--topic is missing".to_owned()))?;
            let kafka = json!({ "address": address, "topic": topic });
            config_text(&json!({ "ingest": { "kafka": kafka } }).to_string())?
        }
        (None, None) => {
            return Err(CliError::Usage(
                "where is Kafka? give --config-file, or --kafka-address and --topic".to_owned(),
            ));
        }
    };
    settings::kafka(&config).map_err(CliError::failed)
}
