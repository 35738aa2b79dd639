//! The client, and the questions that are asked about a stream.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{Credentials, Region, StalledStreamProtectionConfig};
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{ChildShard, HashKeyRange, Shard, ShardIteratorType};
use headwater_core::{Error, ErrorKind, Micros, Position, Result};

use crate::config::{KinesisConfig, stream_of_arn};
use crate::cursor::Begin;
use crate::error::{EXPIRED_ITERATOR, EXPIRED_TOKEN, INVALID_ARGUMENT, code, kinesis};
use crate::kpl::HashKeys;
use crate::position::{Place, Sequence, Within};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take: one of 10 MB on a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a listing is begun anew because its token expired.
const LISTINGS: usize = 10;

/// One stream, and the client to ask about it.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) client: Client,
    /// What the definition gave: the ARN where there is one.
    pub(crate) name: Option<String>,
    pub(crate) arn: Option<String>,
}

/// What is known of a stream as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) arn: String,
    pub(crate) created: Micros,
    pub(crate) retention: Micros,
    pub(crate) active: bool,
}

/// A shard in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) shard: String,
    pub(crate) parents: Vec<String>,
    pub(crate) closed: bool,
    /// No record of a closed shard has a greater sequence number.
    pub(crate) end: Option<Sequence>,
    pub(crate) hash_keys: Option<HashKeys>,
}

/// Why no records came.
#[derive(Debug)]
pub(crate) enum NoRecords {
    /// The iterator is not taken, whatever is wrong with it: one that is made anew from the position may be.
    Refused(Error),
    /// Something else, which the iterator survives.
    Failed(Error),
}

impl From<NoRecords> for Error {
    fn from(reason: NoRecords) -> Self {
        match reason {
            NoRecords::Refused(error) | NoRecords::Failed(error) => error,
        }
    }
}

impl Stream {
    /// Reads credentials and region from where the SDK looks for them. Asks nothing of the stream yet.
    pub(crate) async fn connect(config: &KinesisConfig) -> Result<Self> {
        let emulator = config.endpoint_url.as_deref().is_some_and(is_loopback);
        let given = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let region = config
            .region
            .clone()
            .or_else(|| config.stream_arn.as_deref().and_then(stream_of_arn).map(|(region, _)| region.to_owned()));
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            // Retries are ours: those of the SDK would hide throttling.
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .operation_attempt_timeout(REQUEST_TIMEOUT)
                    .build(),
            );
        // An emulator takes any credentials and any region: none need to be set up for it.
        if emulator && !given("AWS_ACCESS_KEY_ID") && !given("AWS_PROFILE") {
            loader = loader.credentials_provider(Credentials::new("emulator", "emulator", None, None, "emulator"));
        }
        match region {
            Some(region) => loader = loader.region(Region::new(region)),
            None if emulator && !given("AWS_REGION") && !given("AWS_DEFAULT_REGION") => {
                loader = loader.region(Region::from_static("us-east-1"));
            }
            None => {}
        }
        let shared = loader.load().await;
        if shared.region().is_none() {
            return Err(Error::invalid("there is no region: give the option `region`, or set `AWS_REGION`")
                .with_plugin("kinesis"));
        }
        let mut builder = aws_sdk_kinesis::config::Builder::from(&shared)
            // A subscription may be silent: its reader watches over it.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(url) = &config.endpoint_url {
            builder = builder.endpoint_url(url);
        }
        if let Some(role) = &config.role_arn {
            let provider = AssumeRoleProvider::builder(role).session_name("headwater").configure(&shared).build().await;
            builder = builder.credentials_provider(provider);
        }
        let arn = config.stream_arn.clone();
        let name = config.stream_name.clone().filter(|_| arn.is_none());
        Ok(Self { client: Client::from_conf(builder.build()), name, arn })
    }

    /// Asks for what is known of the stream as a whole.
    pub(crate) async fn describe(&self) -> Result<Facts> {
        let request = self.client.describe_stream_summary();
        let answer = request.set_stream_name(self.name.clone()).set_stream_arn(self.arn.clone()).send().await;
        let answer = answer.map_err(|error| kinesis(error, "ask about the stream"))?;
        let summary = answer.stream_description_summary.ok_or_else(|| {
            Error::unexpected("the answer says nothing of the stream").with_plugin("kinesis").temporary()
        })?;
        let hours = i64::from(summary.retention_period_hours.max(0));
        Ok(Facts {
            arn: summary.stream_arn,
            created: micros(&summary.stream_creation_timestamp),
            retention: hours * 3_600_000_000,
            active: matches!(summary.stream_status.as_str(), "ACTIVE" | "UPDATING"),
        })
    }

    /// All shards that retention has not removed, oldest first.
    pub(crate) async fn list(&self) -> Result<Vec<Listed>> {
        'listing: for _ in 0..LISTINGS {
            let mut found = Vec::new();
            let mut token: Option<String> = None;
            loop {
                let request = self.client.list_shards();
                // A token stands for the stream and is refused beside its name.
                let request = match token.take() {
                    Some(token) => request.next_token(token),
                    None => request.set_stream_name(self.name.clone()).set_stream_arn(self.arn.clone()),
                };
                let answer = match request.send().await {
                    Ok(answer) => answer,
                    Err(error) if code(&error) == Some(EXPIRED_TOKEN) => continue 'listing,
                    Err(error) => return Err(kinesis(error, "list the shards")),
                };
                found.extend(answer.shards.unwrap_or_default().into_iter().map(Listed::from));
                token = answer.next_token;
                if token.is_none() {
                    found.sort_by(|a: &Listed, b: &Listed| a.shard.cmp(&b.shard));
                    return Ok(found);
                }
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "listings of the shards expire before they end").with_plugin("kinesis"))
    }

    /// The next records, at most so many.
    pub(crate) async fn records(&self, iterator: &str, limit: Option<usize>) -> Result<GetRecordsOutput, NoRecords> {
        let limit = limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX));
        let request = self.client.get_records().shard_iterator(iterator).set_stream_arn(self.arn.clone());
        let error = match request.set_limit(limit).send().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let refused = matches!(code(&error), Some(EXPIRED_ITERATOR | INVALID_ARGUMENT));
        let error = kinesis(error, "read records");
        Err(if refused { NoRecords::Refused(error.temporary()) } else { NoRecords::Failed(error) })
    }

    /// An iterator that begins there.
    ///
    /// # Errors
    /// `PositionLost` for a sequence number that is not of this stream. `Invalid` and temporary for a time in the future.
    pub(crate) async fn iterator(&self, shard: &str, begin: &Begin) -> Result<String> {
        let request = self.client.get_shard_iterator().shard_id(shard);
        let request = request.set_stream_name(self.name.clone()).set_stream_arn(self.arn.clone());
        let request = match begin {
            Begin::Horizon => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
            Begin::At(time) => request.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(date_time(*time)),
            Begin::Sequence(number) => {
                request.shard_iterator_type(ShardIteratorType::AtSequenceNumber).starting_sequence_number(number)
            }
        };
        let error = match request.send().await {
            Ok(answer) => {
                return answer.shard_iterator.ok_or_else(|| {
                    Error::unexpected("the answer holds no iterator").with_plugin("kinesis").temporary()
                });
            }
            Err(error) => error,
        };
        let refused = code(&error) == Some(INVALID_ARGUMENT);
        let error = kinesis(error, format_args!("begin to read the shard `{shard}`"));
        Err(match begin {
            Begin::At(time) if refused => too_early(error, *time),
            Begin::Sequence(number) if refused => {
                let message =
                    format!("the shard `{shard}` does not know the sequence number `{number}` to read on from");
                Error::new(ErrorKind::PositionLost, message).with_plugin("kinesis").with_source(error)
            }
            _ => error,
        })
    }
}

impl Listed {
    /// Behind the last record, as of `now`. Nothing is between it and the end of a closed shard.
    pub(crate) fn behind_all(&self, now: Micros) -> Place {
        let end = self.end.clone().map(|end| Place::Record(end, Within::Whole { seen: Some(now) }));
        end.unwrap_or(Place::since(now))
    }

    /// Whether everything up to the end of the shard, which is closed, is done.
    pub(crate) fn is_done(&self, position: &Position) -> bool {
        let end = self.end.clone().map(|end| Place::Record(end, Within::Whole { seen: None }));
        end.is_some_and(|end| *position >= end.position())
    }
}

impl From<Shard> for Listed {
    fn from(shard: Shard) -> Self {
        let range = shard.sequence_number_range;
        let begin = range.as_ref().and_then(|range| Sequence::parse(&range.starting_sequence_number));
        let end = range.and_then(|range| range.ending_sequence_number);
        let parents = shard.parent_shard_id.into_iter().chain(shard.adjacent_parent_shard_id).collect();
        let closed = end.is_some();
        // An end before the beginning is none. kinesis-local gives the same number to every closed shard, and it is less than
        // those of all records: whoever believed it would take a shard for read that is not.
        let end =
            end.and_then(|end| Sequence::parse(&end)).filter(|end| begin.as_ref().is_none_or(|begin| begin <= end));
        let hash_keys = shard.hash_key_range.as_ref().and_then(hash_keys);
        Self { shard: shard.shard_id, parents, closed, end, hash_keys }
    }
}

impl From<&ChildShard> for Listed {
    fn from(child: &ChildShard) -> Self {
        let (shard, parents) = (child.shard_id.clone(), child.parent_shards.clone());
        let hash_keys = child.hash_key_range.as_ref().and_then(hash_keys);
        Self { shard, parents, closed: false, end: None, hash_keys }
    }
}

/// The range as numbers; `None` where it holds none.
fn hash_keys(range: &HashKeyRange) -> Option<HashKeys> {
    Some(range.starting_hash_key.parse().ok()?..=range.ending_hash_key.parse().ok()?)
}

/// Microseconds since the Unix epoch.
pub(crate) fn micros(time: &DateTime) -> Micros {
    i64::try_from(time.as_nanos().div_euclid(1000)).unwrap_or(i64::MAX)
}

/// A time for a request: of whole milliseconds, as arrival times are.
pub(crate) fn date_time(time: Micros) -> DateTime {
    DateTime::from_millis(time.div_euclid(1000))
}

/// What it means that a time to begin at is refused. It passes: by the service's clock it will be that late.
pub(crate) fn too_early(error: Error, time: Micros) -> Error {
    let message = format!(
        "the service does not take the time `{}` to begin at: by its clock it is in the future; if it is not, set this \
         machine's clock right",
        date_time(time)
    );
    Error::invalid(message).with_plugin("kinesis").with_source(error).temporary()
}

/// Whether an endpoint is on this machine.
fn is_loopback(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use aws_sdk_kinesis::types::SequenceNumberRange;

    use super::*;

    #[test]
    fn an_end_before_the_beginning_is_not_believed() {
        let listed = |end: Option<&str>| {
            let mut range = SequenceNumberRange::builder().starting_sequence_number("49680683473840492208330995951682");
            range = range.set_ending_sequence_number(end.map(str::to_owned));
            Listed::from(Shard::builder().shard_id("a").sequence_number_range(range.build().unwrap()).build().unwrap())
        };
        let position = |sequence: &str| {
            let sequence = Sequence::parse(sequence).unwrap();
            Place::Record(sequence, Within::Whole { seen: None }).position()
        };
        let some = position("49680683473840492208330995951700");
        for (end, closed, done) in [
            (None, false, false),
            (Some("49680683473840492208330995951700"), true, true),
            (Some("49680683473840492208330995951701"), true, false),
            (Some("9223372036854775807"), true, false),
        ] {
            let listed = listed(end);
            assert_eq!((listed.closed, listed.is_done(&some)), (closed, done), "{end:?}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for url in ["http://127.0.0.1:4567", "http://localhost", "http://localhost:4566/x", "http://[::1]:4567"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["https://kinesis.eu-west-1.amazonaws.com", "http://localhost.example.org", "http://10.0.0.1:1", "x"]
        {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn times_keep_their_milliseconds() {
        let time = 1_700_000_000_123_456;
        assert_eq!(micros(&date_time(time)), 1_700_000_000_123_000);
    }
}
