//! How far a shard has been read, and how the records behind that become batches.

use std::cmp::Ordering;

use aws_sdk_kinesis::types::Record;
use headwater_core::stream::{OnPositionLost, StreamBatch};
use headwater_core::{Error, ErrorKind, Micros, Position, Result};

use crate::batch::{BatchBuilder, Row};
use crate::client::micros;
use crate::kpl::{self, HashKeys, Unpacked};
use crate::position::{Place, Sequence, Within};

/// Where the stream is asked to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Begin {
    /// At the oldest record.
    Horizon,
    /// At the first record that arrived at this time or later.
    At(Micros),
    /// At the record with this sequence number.
    Sequence(String),
}

/// A batch, what it holds in memory, and when its last record arrived.
pub(crate) struct Ready {
    pub(crate) batch: StreamBatch,
    pub(crate) bytes: usize,
    pub(crate) arrival: Option<Micros>,
}

/// How far a shard has been read.
#[derive(Debug)]
pub(crate) struct Cursor {
    shard: String,
    place: Place,
    /// The record of `place` is known to be there still, or nothing is lost if it is not.
    ///
    /// Kinesis begins at the oldest record where a sequence number or a time has been removed, and says nothing. So reading
    /// begins *at* the last record that is done, and where that one does not come, it is gone. Where there is none, it
    /// counts when the end of the shard was last seen; where it never was, nothing of the shard was read, and there is
    /// nothing to prove.
    proven: bool,
    /// The server does not take the position: reading begins at the oldest record.
    anew: bool,
    /// Records behind `place` may be gone, and nobody was told.
    lost: bool,
    retention: Micros,
    on_position_lost: OnPositionLost,
    /// Those of the shard, where they are known.
    hash_keys: Option<HashKeys>,
}

impl Cursor {
    /// `retention` is how long the stream keeps records.
    pub(crate) fn new(shard: &str, place: Place, retention: Micros, on_position_lost: OnPositionLost) -> Self {
        let proven = !can_be_gone(&place);
        let shard = shard.to_owned();
        Self { shard, place, proven, anew: false, lost: false, retention, on_position_lost, hash_keys: None }
    }

    /// With what leaves out the records of aggregates that come again in other shards.
    pub(crate) fn with_hash_keys(self, hash_keys: Option<HashKeys>) -> Self {
        Self { hash_keys, ..self }
    }

    pub(crate) fn position(&self) -> Position {
        self.place.position()
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Where to begin when reading starts, or starts anew.
    pub(crate) fn begin(&mut self) -> Begin {
        if self.anew {
            return Begin::Horizon;
        }
        self.proven = !can_be_gone(&self.place);
        match &self.place {
            Place::Start | Place::Time { from: ..=0, .. } | Place::Gone => Begin::Horizon,
            Place::Time { from, .. } => Begin::At(*from),
            Place::Record(sequence, _) => Begin::Sequence(sequence.to_string()),
        }
    }

    /// The server does not take the position. Gives the error that stands, or a passing one where the source is told to
    /// go on: then reading begins at the oldest record.
    pub(crate) fn refused(&mut self, error: Error) -> Error {
        if self.on_position_lost == OnPositionLost::Fail {
            return error;
        }
        tracing::warn!(shard = self.shard, %error, "going on at the oldest record; what was between is lost");
        (self.anew, self.proven, self.lost) = (true, true, true);
        error.temporary()
    }

    /// Takes the next records, those that are done among them, and gives what is new in batches of at most so many
    /// records and bytes; one record may exceed the bytes alone.
    ///
    /// # Errors
    /// `PositionLost` where retention has removed the position and the source is told to fail then.
    pub(crate) fn take(&mut self, records: &[Record], now: Micros, most: usize, bytes: usize) -> Result<Vec<Ready>> {
        let before = self.place.clone();
        let mut gathering = Gathering { most: most.max(1), limit: bytes, ..Gathering::default() };
        for record in records {
            self.add(record, now, &mut gathering)?;
        }
        if self.place != before {
            self.anew = false;
            gathering.finish(&self.shard, self.place.position());
        }
        if let Some(first) = gathering.ready.first_mut() {
            first.batch.lost = self.has_lost();
        }
        Ok(gathering.ready)
    }

    fn add(&mut self, record: &Record, now: Micros, gathering: &mut Gathering) -> Result<()> {
        let text = record.sequence_number();
        let sequence = Sequence::parse(text).ok_or_else(|| {
            Error::unexpected(format!("`{text}` is no sequence number"))
                .with_context("shard", &self.shard)
                .with_plugin("kinesis")
        })?;
        let arrival = record.approximate_arrival_timestamp().map(micros);
        // How many records of an aggregate are done already.
        let mut done = 0;
        match &self.place {
            Place::Start => {}
            // Some servers begin earlier than they are asked to.
            Place::Time { from, .. } if arrival.is_some_and(|arrival| arrival < *from) => return Ok(()),
            Place::Time { .. } if self.proven => {}
            Place::Time { .. } => self.lost(now)?,
            Place::Gone => return Ok(()),
            Place::Record(last, within) => match sequence.cmp(last) {
                Ordering::Less => return Ok(()),
                Ordering::Greater if self.proven => {}
                Ordering::Greater => self.lost(now)?,
                Ordering::Equal => {
                    self.proven = true;
                    match within {
                        Within::Sub(sub) => done = sub.saturating_add(1),
                        Within::Plain | Within::Whole { .. } => return Ok(()),
                    }
                }
            },
        }
        let data = record.data().as_ref();
        let row = |place: &Place, key, value, sub_sequence| (place.position(), key, value, sub_sequence);
        let mut push = |(position, key, value, sub_sequence)| {
            gathering.add(&self.shard, Row { position, value, key, arrival, sequence: text, sub_sequence });
        };
        match kpl::unpack(data) {
            None => {
                self.place = Place::Record(sequence, Within::Plain);
                push(row(&self.place, record.partition_key(), data, None));
            }
            Some(unpacked) => {
                let comes_again = |unpacked: &Unpacked| {
                    let of = record.partition_key().zip(self.hash_keys.as_ref());
                    of.is_some_and(|(key, hash_keys)| unpacked.comes_again(key, hash_keys))
                };
                for (sub, unpacked) in (0..).zip(&unpacked).skip_while(|(sub, _)| *sub < done) {
                    if comes_again(unpacked) {
                        continue;
                    }
                    let place = Place::Record(sequence.clone(), Within::Sub(sub));
                    push(row(&place, Some(&unpacked.key), &unpacked.data, Some(sub)));
                }
                self.place = Place::Record(sequence, Within::Whole { seen: None });
            }
        }
        Ok(())
    }

    /// Whether records may be gone behind what was handed out last, which nobody was told; once.
    pub(crate) fn has_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Notes that at `now` nothing is left in the shard.
    ///
    /// # Errors
    /// As [`Cursor::take`].
    pub(crate) fn at_end(&mut self, now: Micros) -> Result<()> {
        if !self.proven {
            self.lost(now)?;
        }
        // What is known to have been empty until yesterday can lose its last record to retention and nothing else.
        self.place = self.place.at_end(now);
        Ok(())
    }

    /// The last record that is done is not there any more, or there was none: decides whether others may be gone.
    fn lost(&mut self, now: Micros) -> Result<()> {
        self.proven = true;
        // Whatever came after `seen` is younger than what retention removes.
        if self.place.seen().is_some_and(|seen| seen > now.saturating_sub(self.retention)) {
            return Ok(());
        }
        let position = self.place.position();
        match self.on_position_lost {
            OnPositionLost::Fail => {
                self.proven = false;
                Err(Error::new(
                    ErrorKind::PositionLost,
                    "retention has removed the record up to which the shard was read, or what may have come since its \
                     end was last seen; `on_position_lost: earliest` goes on at the oldest record",
                )
                .with_context("shard", &self.shard)
                .with_context("position", position)
                .with_plugin("kinesis"))
            }
            OnPositionLost::Earliest => {
                tracing::warn!(
                    shard = self.shard,
                    %position,
                    "the position to read on from is gone: going on at the oldest record; what was between is lost"
                );
                self.lost = true;
                Ok(())
            }
        }
    }
}

/// Whether retention can have removed what was to be read behind a place, and the place tells. `earliest` and a time
/// mean what is there of it when it is read.
fn can_be_gone(place: &Place) -> bool {
    matches!(place, Place::Record(..) | Place::Time { seen: Some(_), .. })
}

/// Batches in the making.
#[derive(Default)]
struct Gathering {
    builder: BatchBuilder,
    bytes: usize,
    last: Option<(Position, Option<Micros>)>,
    ready: Vec<Ready>,
    most: usize,
    limit: usize,
}

impl Gathering {
    fn add(&mut self, shard: &str, row: Row<'_>) {
        let bytes = row.bytes();
        if self.builder.len() >= self.most || (self.builder.len() > 0 && self.bytes + bytes > self.limit) {
            let through = self.last.as_ref().map_or(Position::START, |(position, _)| position.clone());
            self.finish(shard, through);
        }
        self.builder.add(&row);
        self.bytes += bytes;
        self.last = Some((row.position, row.arrival));
    }

    fn finish(&mut self, shard: &str, through: Position) {
        let batch = self.builder.finish(shard, through, None);
        let arrival = self.last.take().and_then(|(_, arrival)| arrival);
        self.ready.push(Ready { batch, bytes: std::mem::take(&mut self.bytes), arrival });
    }
}

#[cfg(test)]
pub(crate) mod tests;
