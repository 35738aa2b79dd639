//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::api::{Features, Micros, PushTarget, StartPosition, parse_time};

/// An embeddable streaming feature store: streams in, fresh features and training sets out.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// The definition file.
    #[arg(short, long, global = true, default_value = "headwater.yaml", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs: one JSON document.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a definition file with sample data to start from.
    Init,
    /// Show what `apply` would change.
    Plan,
    /// Make the definitions those that every command uses.
    Apply,
    /// Read streams into the stores, until stopped by SIGTERM or Ctrl-C.
    Ingest(IngestArgs),
    /// Move where a source is read on: forward skips, back reads again into a new generation.
    Reset(ResetArgs),
    /// Write the newest batch rows of an interval, both ends inclusive, to the online store; build windows of batch rows
    /// up to before END.
    Materialize(MaterializeArgs),
    /// Write batch rows up to END to the online store, from where the last run ended; build windows anew.
    MaterializeIncremental(MaterializeIncrementalArgs),
    /// Push rows of a source to the views it feeds.
    Push(PushArgs),
    /// Print the newest feature values of some entities.
    GetOnlineFeatures(OnlineArgs),
    /// Write a point-in-time correct training set.
    GetHistoricalFeatures(HistoricalArgs),
    /// Show views, jobs and how far each split is.
    Status,
    /// Look at records that could not be used, or try them again.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Compare what is served of a view with what its history says. Fails where they differ.
    Verify(VerifyArgs),
    /// Merge small files of the offline store.
    Compact,
    /// List the plugins of this build.
    Plugins,
    /// Remove everything that this project keeps: online tables, logs and the registry file.
    Teardown,
}

#[derive(Debug, Args)]
pub(crate) struct IngestArgs {
    /// The sources to read; all stream sources where none is named.
    pub(crate) sources: Vec<String>,
    /// Stop once everything that is there now has been read.
    #[arg(long)]
    pub(crate) until_caught_up: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// The stream source.
    pub(crate) source: String,
    /// `earliest`, `latest`, or a time.
    #[arg(long, value_parser = start)]
    pub(crate) to: StartPosition,
}

#[derive(Debug, Args)]
pub(crate) struct MaterializeArgs {
    /// The first event time.
    #[arg(value_parser = time, allow_hyphen_values = true)]
    pub(crate) start: Micros,
    /// The last event time.
    #[arg(value_parser = time, allow_hyphen_values = true)]
    pub(crate) end: Micros,
    /// The views; all with a batch source where none is named.
    #[arg(long, value_delimiter = ',', value_name = "VIEW,…")]
    pub(crate) views: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct MaterializeIncrementalArgs {
    /// The last event time.
    #[arg(value_parser = time, allow_hyphen_values = true)]
    pub(crate) end: Micros,
    /// The views; all with a batch source where none is named.
    #[arg(long, value_delimiter = ',', value_name = "VIEW,…")]
    pub(crate) views: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The push or stream source.
    pub(crate) source: String,
    /// The rows: Parquet, CSV or NDJSON, by extension.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Where they go: `online`, `offline` or `online_and_offline`.
    #[arg(long, default_value = "online", value_parser = target)]
    pub(crate) to: PushTarget,
}

/// Which features.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct FeatureArgs {
    /// The features: `view:feature`, or `view` for all of a view.
    #[arg(long, value_delimiter = ',', value_name = "VIEW:FEATURE,…")]
    features: Option<Vec<String>>,
    /// The feature service.
    #[arg(long, value_name = "SERVICE")]
    feature_service: Option<String>,
}

impl FeatureArgs {
    pub(crate) fn features(&self) -> Features {
        match (&self.features, &self.feature_service) {
            (_, Some(service)) => Features::service(service),
            (Some(names), None) => Features::names(names),
            // Clap asks for one of them.
            (None, None) => Features::Names(Vec::new()),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct OnlineArgs {
    #[command(flatten)]
    pub(crate) features: FeatureArgs,
    /// The join keys as JSON, such as '{"driver_id": [1001, 1002]}', or @FILE with such JSON.
    #[arg(long, value_name = "JSON|@FILE")]
    pub(crate) entities: String,
    /// Call features `view__feature`.
    #[arg(long)]
    pub(crate) full_feature_names: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HistoricalArgs {
    /// The entity rows, with join keys and an event time: Parquet, CSV or NDJSON, by extension.
    #[arg(long, value_name = "FILE")]
    pub(crate) entity_df: PathBuf,
    #[command(flatten)]
    pub(crate) features: FeatureArgs,
    /// Where the training set goes: Parquet or CSV, by extension.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Call features `view__feature`.
    #[arg(long)]
    pub(crate) full_feature_names: bool,
    /// Use a row only from its created time on.
    #[arg(long)]
    pub(crate) filter_by_created_timestamp: bool,
    /// Memory that the join may use, such as `512MB`; a quarter of the machine's by default.
    #[arg(long, value_parser = bytes, value_name = "SIZE")]
    pub(crate) memory_limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The feature view.
    pub(crate) view: String,
    /// How many entities to compare at most.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) sample: usize,
    /// Draw the same entities again: what an earlier run printed.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How long to wait for a running job to publish its log, and to write online what is in it, such as `30s`.
    #[arg(long, default_value = "90s", value_parser = length, value_name = "DURATION")]
    pub(crate) wait: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// List them.
    List,
    /// Feed them to their views again.
    Replay,
}

fn time(text: &str) -> Result<Micros, String> {
    parse_time(text).map_err(|error| error.to_string())
}

fn length(text: &str) -> Result<Duration, String> {
    crate::api::Duration::parse(text).map(crate::api::Duration::to_std)
}

fn start(text: &str) -> Result<StartPosition, String> {
    match text {
        "earliest" => Ok(StartPosition::Earliest),
        "latest" => Ok(StartPosition::Latest),
        text => time(text)
            .map(StartPosition::At)
            .map_err(|_| "write `earliest`, `latest` or a time such as `2026-01-31T08:30:00Z`".into()),
    }
}

fn target(text: &str) -> Result<PushTarget, String> {
    text.parse().map_err(|error: crate::api::Error| error.to_string())
}

fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "write a number of bytes, or one with a unit such as `512MB` or `2GB`".to_owned();
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let scale: u64 = match unit.trim() {
        "" | "b" => 1,
        "kb" | "k" | "kib" => 1 << 10,
        "mb" | "m" | "mib" => 1 << 20,
        "gb" | "g" | "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(scale).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Cli, bytes};

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_read() {
        for (text, expected) in [("1", 1), ("2KB", 2048), ("512 mb", 536_870_912), ("1GiB", 1 << 30)] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "MB", "1.5GB", "-1", "1XB", "99999999999999GB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
