//! Where a partition is read on: from its checkpoint, else by `start`.
//!
//! The group hands a partition over in a callback that must not wait. So the partition is taken over unread, what is to be
//! known is asked here, for as long as it takes, and the polling thread then reads on from what was found.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_core::stream::{OnPositionLost, Progress, StartPosition};
use headwater_core::{Error, ErrorKind, Position, Result};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::REQUEST_TIMEOUT;
use crate::config::KafkaConfig;
use crate::mark::{self, Mark, note_object};
use crate::member::{Member, Taken};
use crate::splits::{before, next_offset, split};
use crate::stream::{blocking, partitions};
use crate::trouble::Troubled;

/// How long the ends of one partition are waited for before the others are read on without it.
const ENDS_TIMEOUT: Duration = Duration::from_secs(3);
/// How many partitions are asked for at once.
const ASKED_AT_ONCE: usize = 32;
/// How long the store of the checkpoints may take before it is asked again.
const CHECKPOINTS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a topic may be unknown before it is gone: a broker that has just come back may not know it yet.
const UNKNOWN_TOPIC: Duration = Duration::from_secs(30);

/// A partition that was taken over, and where it is read on.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) taken: Taken,
    pub(crate) position: Position,
    /// Records before it are gone that were not read.
    pub(crate) lost: bool,
    /// A record that was committed before, where it is still there.
    pub(crate) anchor: Option<Mark>,
}

/// The first and the next offset of a partition.
type Ends = (i64, i64);

/// Finds out where partitions are read on, and tells the member. Ends early where they are taken away again.
pub(crate) async fn resolve(member: Arc<Member>, mut open: Vec<Taken>) {
    let mut pause = Duration::from_millis(100);
    loop {
        open.retain(|taken| member.awaits(taken));
        if open.is_empty() || member.queue.is_closed() {
            return;
        }
        match attempt(&member, &open).await {
            Ok((found, failed)) => {
                open.retain(|taken| !found.iter().any(|found| found.taken == *taken));
                member.found(found);
                match failed {
                    Some(error) if !error.is_retryable() => return member.queue.error(error),
                    Some(error) => member.queue.error(error),
                    None => {}
                }
            }
            Err(error) => {
                let passing = error.is_retryable();
                member.queue.error(error);
                if !passing {
                    return;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Asks once for each of these partitions. Gives those that are known, and the worst of what kept the others from it.
async fn attempt(member: &Arc<Member>, open: &[Taken]) -> Result<(Vec<Found>, Option<Error>)> {
    let mut checkpoints = BTreeMap::new();
    for taken in open {
        let progress = ask(member.context.checkpoints.resume(&split(taken.partition))).await?;
        checkpoints.insert(taken.partition, progress);
    }
    let first = match checkpoints.values().any(Option::is_none) {
        true => first_start(member).await?,
        false => None,
    };
    let mut ends = ends(member, open).await?;
    let mut failed: Option<Error> = None;
    let mut fail = |error: Error| {
        let worse = failed.as_ref().is_none_or(Error::is_retryable);
        if worse {
            failed = Some(error);
        }
    };
    let mut found = Vec::new();
    let (mut marks, mut resumed) = (BTreeMap::new(), BTreeMap::new());
    for taken in open {
        let number = taken.partition;
        let (low, high) = match ends.remove(&number) {
            Some(Ok(ends)) => ends,
            Some(Err(error)) => {
                fail(error);
                continue;
            }
            None => continue,
        };
        let checkpoint = match checkpoints.remove(&number).flatten() {
            Some(Progress::Through(position)) => position,
            Some(Progress::End) => before(high),
            // A partition that was not there at the first start begins at its beginning.
            None => match first.as_ref().and_then(|first| first.offsets.get(&number)) {
                Some(offset) => before(*offset),
                None => {
                    found.push(Found { taken: *taken, position: before(low), lost: false, anchor: None });
                    continue;
                }
            },
        };
        match in_range(&member.config, number, &checkpoint, (low, high)) {
            Ok(position) => {
                let note = ask(member.context.checkpoints.noted(&Mark::name(number))).await?;
                let mark = note.map(|note| Mark::from_note(&note)).transpose()?;
                marks.extend(mark.map(|mark| (number, mark)));
                resumed.insert(number, (low, high));
                let (lost, anchor) = (position != checkpoint, mark.filter(|mark| mark.offset >= low));
                found.push(Found { taken: *taken, position, lost, anchor });
            }
            Err(error) => fail(error),
        }
    }
    for (number, error) in not_the_same(member, &marks, &resumed).await? {
        fail(error);
        found.retain(|found| found.taken.partition != number);
    }
    Ok((found, failed))
}

/// Those of these partitions, given with their ends, that are not the ones that were read: the record that was marked as
/// committed lies behind the end, or is another one now. Where it is gone, nothing is concluded.
async fn not_the_same(
    member: &Arc<Member>,
    marks: &BTreeMap<i32, Mark>,
    ends: &BTreeMap<i32, Ends>,
) -> Result<Vec<(i32, Error)>> {
    let mut faults = Vec::new();
    let mut there = BTreeMap::new();
    for (&number, mark) in marks {
        match ends.get(&number) {
            Some((_, high)) if mark.offset >= *high => {
                let why = format!("partition {number} ends at offset {high}, before the last committed record");
                faults.push((number, made_anew(why)));
            }
            Some((low, _)) if mark.offset >= *low => drop(there.insert(number, *mark)),
            _ => {}
        }
    }
    faults.extend(replaced(member, there).await?);
    Ok(faults)
}

/// Those of these marks whose record is another one now.
async fn replaced(member: &Arc<Member>, marks: BTreeMap<i32, Mark>) -> Result<Vec<(i32, Error)>> {
    let (config, group, asked) = (Arc::clone(&member.config), member.context.group.clone(), marks.clone());
    let fault = |number: i32| {
        let offset = marks.get(&number).map_or(0, |mark| mark.offset);
        let what = format!("the record at offset {offset} of partition {number}");
        (number, made_anew(format!("{what} is another one than was committed there")))
    };
    Ok(blocking(move || mark::differing(&config, &group, &asked)).await?.into_iter().map(fault).collect())
}

/// Whether a position can be read on from: it, or what `on_position_lost` makes of it.
///
/// # Errors
/// `PositionLost` where it is gone and the source is told to fail then, and where the topic is another one.
pub(crate) fn in_range(config: &KafkaConfig, number: i32, position: &Position, (low, high): Ends) -> Result<Position> {
    let Some(next) = next_offset(position) else {
        return Err(Error::corrupt(format!("the checkpoint `{position}` is no offset"))
            .with_plugin("kafka")
            .with_context("partition", number));
    };
    if next > high {
        return Err(made_anew(format!(
            "partition {number} ends at offset {high}, before the checkpoint at offset {next}"
        )));
    }
    if next >= low {
        return Ok(position.clone());
    }
    let lost = format!("retention has removed the records from offset {next} to {low} of partition {number}");
    match config.on_position_lost {
        OnPositionLost::Fail => Err(Error::new(
            ErrorKind::PositionLost,
            format!("{lost}; `on_position_lost: earliest` would go on at the oldest record"),
        )
        .with_plugin("kafka")),
        OnPositionLost::Earliest => {
            tracing::error!(topic = config.topic, "{lost}; going on at offset {low}");
            Ok(before(low))
        }
    }
}

/// The topic is not the one that was read. Its offsets say nothing of what was dealt with, so nothing goes on by itself.
fn made_anew(why: String) -> Error {
    Error::new(
        ErrorKind::PositionLost,
        format!("{why}: the topic was re-created or cut off; a `reset` of the source reads it from its beginning"),
    )
    .with_plugin("kafka")
}

/// The ends of partitions, as far as they can be had; `None` where the reader is gone.
async fn ends(member: &Arc<Member>, open: &[Taken]) -> Result<BTreeMap<i32, Result<Ends>>> {
    let numbers = open.iter().map(|taken| taken.partition).collect();
    of_each(member, numbers, |consumer, topic, number| {
        consumer.fetch_watermarks(topic, number, ENDS_TIMEOUT).map_err(|error| {
            explain(consumer, error, "ask for the ends of a partition").with_context("partition", number)
        })
    })
    .await
}

/// Asks for something of each partition, of several at once.
async fn of_each<T: Send + 'static>(
    member: &Arc<Member>,
    numbers: Vec<i32>,
    question: fn(&BaseConsumer<Member>, &str, i32) -> Result<T>,
) -> Result<BTreeMap<i32, Result<T>>> {
    let mut answers = BTreeMap::new();
    for some in numbers.chunks(ASKED_AT_ONCE) {
        let mut asking = JoinSet::new();
        for &number in some {
            let Some(consumer) = member.consumer() else { return Ok(answers) };
            let config = Arc::clone(&member.config);
            asking.spawn_blocking(move || (number, question(&consumer, &config.topic, number)));
        }
        while let Some(answer) = asking.join_next().await {
            let (number, answer) = answer.map_err(|error| {
                Error::unexpected("a call of the Kafka client panicked").with_plugin("kafka").with_source(error)
            })?;
            answers.insert(number, answer);
        }
    }
    Ok(answers)
}

fn explain(consumer: &BaseConsumer<Member>, error: KafkaError, doing: &'static str) -> Error {
    consumer.context().trouble().explain(error, doing)
}

/// Waits for an answer of the engine.
async fn ask<T>(question: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(CHECKPOINTS_TIMEOUT, question).await.map_err(|_| {
        Error::new(ErrorKind::Unavailable, "the checkpoints could not be read in time").with_plugin("kafka")
    })?
}

/// Where the partitions that there were at the first start begin. Noted for all of them at once, by whoever starts first:
/// a partition is then read from there by whatever worker gets it, and however late.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FirstStart {
    pub(crate) start: StartPosition,
    pub(crate) offsets: BTreeMap<i32, i64>,
}

impl FirstStart {
    const NOTE: &str = "kafka first start";
    const FORMAT_VERSION: u64 = 1;

    fn word(start: StartPosition) -> Value {
        match start {
            StartPosition::Earliest => json!("earliest"),
            StartPosition::Latest => json!("latest"),
            StartPosition::At(time) => json!(time),
        }
    }

    pub(crate) fn to_note(&self) -> Bytes {
        let offsets = self.offsets.iter().map(|(number, offset)| json!([number, offset])).collect::<Vec<_>>();
        let (version, start) = (Self::FORMAT_VERSION, Self::word(self.start));
        json!({"version": version, "start": start, "offsets": offsets}).to_string().into()
    }

    pub(crate) fn from_note(note: &[u8]) -> Result<Self> {
        let note = note_object(note, Self::FORMAT_VERSION)?;
        let corrupt = || Error::corrupt("the note of the first start cannot be read").with_plugin("kafka");
        let start = match note.get("start") {
            Some(Value::String(word)) if word == "latest" => StartPosition::Latest,
            Some(Value::String(word)) if word == "earliest" => StartPosition::Earliest,
            Some(Value::Number(time)) => StartPosition::At(time.as_i64().ok_or_else(corrupt)?),
            _ => return Err(corrupt()),
        };
        let entry = |entry: &Value| -> Option<(i32, i64)> {
            let number = i32::try_from(entry.get(0)?.as_i64()?).ok()?;
            Some((number, entry.get(1)?.as_i64()?))
        };
        let offsets = note.get("offsets").and_then(Value::as_array).ok_or_else(corrupt)?;
        let offsets = offsets.iter().map(entry).collect::<Option<_>>().ok_or_else(corrupt)?;
        Ok(Self { start, offsets })
    }
}

/// Where partitions without a checkpoint begin; `None` where all of them begin at their beginning.
async fn first_start(member: &Arc<Member>) -> Result<Option<FirstStart>> {
    let (start, checkpoints) = (member.context.start, &member.context.checkpoints);
    if start == StartPosition::Earliest {
        return Ok(None);
    }
    // In this order: whoever started the stream noted how before the first checkpoint was there.
    let started = ask(checkpoints.started()).await?;
    let noted = ask(checkpoints.noted(FirstStart::NOTE)).await?;
    let noted = noted.map(|note| FirstStart::from_note(&note)).transpose()?;
    match noted {
        Some(noted) if started || noted.start == start => return Ok(Some(noted)),
        None if started => return Ok(None),
        _ => {}
    }
    let Some(consumer) = member.consumer() else { return Ok(None) };
    let config = Arc::clone(&member.config);
    let numbers = blocking(move || partitions(&consumer, &config.topic)).await?;
    // The ends before the times: a record that is stored meanwhile lies behind its partition's end, so that a partition
    // which had none of that time begins before it. The other way round the end might have moved beyond it.
    let ends = of_each(member, numbers.clone(), |consumer, topic, number| {
        consumer.fetch_watermarks(topic, number, REQUEST_TIMEOUT).map_err(|error| {
            explain(consumer, error, "ask for the end of a partition").with_context("partition", number)
        })
    })
    .await?;
    // A reader that is gone has not asked for all of them.
    let Some(consumer) = member.consumer() else { return Ok(None) };
    let config = Arc::clone(&member.config);
    let times = blocking(move || match start {
        StartPosition::At(time) => offsets_at(&consumer, &config.topic, &numbers, time),
        StartPosition::Earliest | StartPosition::Latest => Ok(BTreeMap::new()),
    })
    .await?;
    let mut offsets = BTreeMap::new();
    for (number, ends) in ends {
        let (_, high) = ends?;
        offsets.insert(number, times.get(&number).copied().unwrap_or(high));
    }
    let first = FirstStart { start, offsets };
    ask(checkpoints.note(&[(FirstStart::NOTE.to_owned(), first.to_note())])).await?;
    Ok(Some(first))
}

/// The first record of each partition that was stored at `time` or later; a partition without one is left out. Blocks.
fn offsets_at(consumer: &BaseConsumer<Member>, topic: &str, numbers: &[i32], time: i64) -> Result<BTreeMap<i32, i64>> {
    // Kafka's times are milliseconds: the first one that is not before `time`, and none before 1970.
    let millis = (time.div_euclid(1000) + i64::from(time.rem_euclid(1000) != 0)).max(0);
    let failed = |error| explain(consumer, error, "ask for the offset of a time");
    let mut asked = TopicPartitionList::new();
    for number in numbers {
        asked.add_partition_offset(topic, *number, Offset::Offset(millis)).map_err(failed)?;
    }
    let found = consumer.offsets_for_times(asked, REQUEST_TIMEOUT).map_err(failed)?;
    let mut offsets = BTreeMap::new();
    for element in found.elements() {
        element.error().map_err(failed)?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(element.partition(), offset);
        }
    }
    Ok(offsets)
}

/// librdkafka has asked for an offset that is not there. Finds out why: fails for good, or has the group joined anew, so
/// that what was lost is dealt with as at a start.
pub(crate) async fn out_of_range(member: Arc<Member>) {
    let reading = member.reading();
    let taken: Vec<Taken> = reading.iter().map(|(taken, _)| *taken).collect();
    match ends(&member, &taken).await {
        Err(error) => member.queue.error(error),
        Ok(ends) => {
            for (taken, next) in &reading {
                let Some(Ok(ends)) = ends.get(&taken.partition) else { continue };
                if let Err(error) = in_range(&member.config, taken.partition, &before(*next), *ends) {
                    return member.queue.error(error);
                }
            }
        }
    }
    // Not at once, so that a broker that keeps on saying so is not asked without a pause.
    tokio::time::sleep(Duration::from_millis(500)).await;
    member.join_anew();
}

/// A broker does not know the topic or a partition, or speaks of fewer records than there were. Fails for good where that
/// stays so, and where the topic is another one when it is known again.
pub(crate) async fn doubtful_topic(member: Arc<Member>) {
    let until = tokio::time::Instant::now() + UNKNOWN_TOPIC;
    while !member.queue.is_closed() {
        let patient = tokio::time::Instant::now() < until;
        match still_there(&member).await {
            Ok(()) => return,
            Err(error) if error.is_retryable() || (error.kind() == ErrorKind::NotFound && patient) => {}
            Err(error) => return member.queue.error(error),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Whether the topic has the partitions that are this member's, and they are the ones that it reads.
async fn still_there(member: &Arc<Member>) -> Result<()> {
    let Some(consumer) = member.consumer() else { return Ok(()) };
    let config = Arc::clone(&member.config);
    let there = blocking(move || partitions(&consumer, &config.topic)).await?;
    if let Some(gone) = member.taken().into_iter().find(|number| !there.contains(number)) {
        return Err(Error::not_found(format!("the topic has no partition {gone} any more")).with_plugin("kafka"));
    }
    // Before the ends: what is read and committed meanwhile may lie behind an end that was told a moment ago.
    let (reading, anchors) = (member.reading(), member.anchors());
    let taken: Vec<Taken> = reading.iter().map(|(taken, _)| *taken).collect();
    let mut known = BTreeMap::new();
    for (number, ends) in ends(member, &taken).await? {
        known.insert(number, ends?);
    }
    for (taken, next) in &reading {
        let number = taken.partition;
        if let Some((_, high)) = known.get(&number).filter(|(_, high)| next > high) {
            let why = format!("partition {number} ends at offset {high}, and was read to offset {next}");
            return Err(made_anew(why));
        }
    }
    let marks = anchors.into_iter().map(|(number, (anchor, _))| (number, anchor)).collect();
    not_the_same(member, &marks, &known).await?.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
}

/// Looks at records that were committed some time ago, while others are read. librdkafka reads on in a topic that was made
/// anew where it left off in the old one, and says nothing where the new one has as many records by then.
pub(crate) async fn look_back(member: Arc<Member>) {
    let anchors = member.anchors();
    let marks = anchors.iter().map(|(number, (anchor, _))| (*number, *anchor)).collect();
    match replaced(&member, marks).await.map(|faults| faults.into_iter().next()) {
        Ok(Some((_, error))) => member.queue.error(error),
        // What was committed before this look was committed in the same topic.
        Ok(None) => member.anchored(anchors.into_iter().filter_map(|(number, (_, newest))| Some((number, newest?)))),
        Err(error) => tracing::debug!(topic = member.config.topic, %error, "committed records were not looked at"),
    }
}
