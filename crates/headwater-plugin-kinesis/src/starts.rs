//! Where the shards begin that were there when the job first started, or was reset.
//!
//! It is decided once, noted beside the checkpoints before anything is read, and holds for ever: also for the children
//! among them, whose turn comes when their parents are finished, maybe in another life of the job.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_core::stream::{ReaderContext, StartPosition};
use headwater_core::{Error, ErrorKind, Micros, Result};
use tokio::time::Instant;

use crate::client::{Listed, Stream, micros};
use crate::cursor::Begin;
use crate::delivery::MOST_RECORDS;
use crate::notes;
use crate::pace::{Answer, Pace, patiently, size};
use crate::position::{Place, Sequence, Within};

/// The name of the note.
const NOTE: &str = "first-shards";
/// So far back is looked for the newest record. It covers clocks that differ, and arrival times that are rounded.
const LOOK_BACK: Micros = 10_000_000;
/// How far this machine's clock may be ahead of the service's, about.
const AHEAD: Micros = 3_600_000_000;

/// What becomes of a shard that has no checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum First {
    /// It is read from here on.
    Begins(Place),
    /// It was closed before what is to be read began: it counts as read to its end.
    Skipped,
}

/// Where the shards begin that were there at the first start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Starts(BTreeMap<String, First>);

impl Starts {
    /// What was decided at the first start; now, where this is it.
    pub(crate) async fn load(stream: &Stream, listing: &[Listed], context: &ReaderContext) -> Result<Self> {
        if let Some(note) = context.checkpoints.noted(NOTE).await? {
            return Self::read(&note);
        }
        if context.checkpoints.started().await? {
            return Ok(Self::default());
        }
        let mut starts = BTreeMap::new();
        for listed in listing {
            let first = match context.start {
                StartPosition::At(time) if time > 0 => First::Begins(Place::since(time)),
                StartPosition::Latest if listed.closed => First::Skipped,
                StartPosition::Latest => First::Begins(newest(stream, &listed.shard, context).await?),
                StartPosition::Earliest | StartPosition::At(_) => First::Begins(Place::Start),
            };
            starts.insert(listed.shard.clone(), first);
        }
        let starts = Self(starts);
        context.checkpoints.note(&[(NOTE.to_owned(), starts.write())]).await?;
        Ok(starts)
    }

    /// What becomes of a shard; one that came later begins at its beginning.
    pub(crate) fn of(&self, shard: &str) -> &First {
        self.0.get(shard).unwrap_or(&First::Begins(Place::Start))
    }

    /// Whether what is left in a parent that is gone and has no checkpoint was not to be read: it was left out, or was gone
    /// already when its child was first seen.
    pub(crate) fn leave_out(&self, parent: &str, child: &str) -> bool {
        match self.0.get(parent) {
            Some(first) => *first == First::Skipped,
            None => self.0.contains_key(child),
        }
    }

    /// Of each shard its position, or `-`.
    fn write(&self) -> Bytes {
        notes::write(self.0.iter().map(|(shard, first)| match first {
            First::Begins(place) => (shard, place.position().to_string()),
            First::Skipped => (shard, "-".to_owned()),
        }))
    }

    fn read(note: &[u8]) -> Result<Self> {
        let first = |text: &str| match text {
            "-" => Ok(First::Skipped),
            position => notes::place(position).map(First::Begins),
        };
        notes::read(note, "begin", first).map(Self)
    }

    #[cfg(test)]
    pub(crate) fn of_shards<const N: usize>(shards: [(&str, First); N]) -> Self {
        Self(shards.map(|(shard, first)| (shard.to_owned(), first)).into())
    }
}

/// Behind the newest record of a shard. Kinesis has no name for that place: so the last seconds are read, and where
/// nothing came in them, it is the time at which they begin.
async fn newest(stream: &Stream, shard: &str, context: &ReaderContext) -> Result<Place> {
    let (time, mut iterator) = look_back(stream, shard, context.clock.now()).await?;
    let mut pace = Pace::new();
    let mut place = Place::since(time);
    loop {
        pace.wait().await;
        pace.called(Instant::now());
        let read = || async { stream.records(&iterator, None).await.map_err(Error::from) };
        let answer = patiently(read).await?;
        for record in &answer.records {
            // Some servers begin earlier than they are asked to.
            let old = record.approximate_arrival_timestamp().map(micros).is_some_and(|arrival| arrival < time);
            if let Some(sequence) = Sequence::parse(record.sequence_number()).filter(|_| !old) {
                place = Place::Record(sequence, Within::Whole { seen: None });
            }
        }
        let bytes = answer.records.iter().map(size).sum();
        pace.answered(Instant::now(), bytes, Answer::Behind);
        // Records may come faster than they are asked for: not to be behind is enough, also with an answer that holds some.
        let is_behind = answer.millis_behind_latest != Some(0) || answer.records.len() >= MOST_RECORDS;
        match answer.next_shard_iterator {
            Some(next) if is_behind => iterator = next,
            // From here on it shows whether something can have gone, also where nothing came.
            _ => return Ok(if place == Place::since(time) { place.at_end(context.clock.now()) } else { place }),
        }
    }
}

/// An iterator that begins before `now`, and when it begins. What lies in the future by the service's clock is refused:
/// then it begins earlier.
async fn look_back(stream: &Stream, shard: &str, now: Micros) -> Result<(Micros, String)> {
    let mut back = LOOK_BACK;
    loop {
        let time = now.saturating_sub(back).max(1);
        let begin = Begin::At(time);
        let refused = patiently(|| async {
            match stream.iterator(shard, &begin).await {
                Err(error) if error.kind() == ErrorKind::Invalid => Ok(Err(error)),
                other => other.map(Ok),
            }
        });
        match refused.await? {
            Ok(iterator) => return Ok((time, iterator)),
            Err(error) if back >= AHEAD => return Err(error),
            Err(_) => back *= 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_was_to_be_read_unless_it_was_left_out_or_gone_before() {
        let starts = Starts::of_shards([
            ("skipped", First::Skipped),
            ("begins", First::Begins(Place::since(7))),
            ("child", First::Begins(Place::Start)),
        ]);
        assert!(starts.leave_out("skipped", "child"));
        assert!(starts.leave_out("skipped", "later"));
        assert!(starts.leave_out("before", "child"));
        assert!(!starts.leave_out("begins", "child"));
        assert!(!starts.leave_out("later", "later still"), "both came while nobody looked");
    }

    #[test]
    fn notes_read_back() {
        let starts = Starts::of_shards([
            ("shardId-000000000000", First::Skipped),
            ("shardId-000000000001", First::Begins(Place::Start)),
            ("shardId-000000000002", First::Begins(Place::since(7))),
        ]);
        assert_eq!(Starts::read(&starts.write()).unwrap(), starts);
        assert_eq!(Starts::read(b"").unwrap(), Starts::default());
        for wrong in [&b"shardId-000000000000"[..], b"a xyz", b"\xff -"] {
            assert!(Starts::read(wrong).is_err());
        }
    }
}
