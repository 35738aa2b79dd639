//! Records of one shard on their way into the queue, however they were fetched.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::types::Record;
use headwater_core::stream::{Lag, StreamBatch, StreamEvent};
use headwater_core::{Error, Micros, Position, Result};

use crate::batch::BatchBuilder;
use crate::coordinator::Shared;
use crate::cursor::{Begin, Cursor};
use crate::pace::size;
use crate::queue::Room;

/// A shard's end is told this often while nothing comes, so that after a crash its silence loses no position. Each time it
/// is a new position, which makes a piece in each log: a reader that leaves notes it apart.
const MARK: Micros = 3_600_000_000;
/// The most room that is reserved for one answer: what a shard gives in a second.
const ANSWER: usize = 2_000_000;
/// What a record may weigh as long as none has been seen.
const UNSEEN: usize = 1 << 20;
/// What a record takes in memory beside its data and its key.
const OVERHEAD: usize = 256;
/// Kinesis gives no more records at once.
pub(crate) const MOST_RECORDS: usize = 10_000;

/// Hands over what a shard gives.
#[derive(Debug)]
pub(crate) struct Delivery {
    shard: String,
    cursor: Cursor,
    shared: Arc<Shared>,
    /// The engine knows that everything there is was read.
    told_end: bool,
    marked: Micros,
    /// What a record weighs, about.
    weight: usize,
}

impl Delivery {
    pub(crate) fn new(shard: String, cursor: Cursor, shared: Arc<Shared>) -> Self {
        Self { shard, cursor, shared, told_end: false, marked: 0, weight: UNSEEN }
    }

    pub(crate) fn shard(&self) -> &str {
        &self.shard
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Up to where records were handed over.
    pub(crate) fn position(&self) -> Position {
        self.cursor.position()
    }

    /// Where to begin reading, also once more.
    pub(crate) fn begin(&mut self) -> Begin {
        self.cursor.begin()
    }

    /// The server does not take the position to begin at; gives what that means.
    pub(crate) fn refused(&mut self, error: Error) -> Error {
        self.cursor.refused(error)
    }

    pub(crate) fn now(&self) -> Micros {
        self.shared.context.clock.now()
    }

    /// Waits for room for the next answer; gives it with the most records that are likely to fit.
    pub(crate) async fn room(&self) -> (Room, usize) {
        // Several shards are asked at once, also where the buffer is small.
        let bytes = ANSWER.min(self.shared.context.buffer_bytes / 4).max(1);
        let records = (bytes / self.weight.max(1)).clamp(1, MOST_RECORDS);
        (self.shared.queue.reserve(bytes).await, records)
    }

    /// Waits until there is any room, without reserving it: for what comes when it likes, and as much as it likes.
    pub(crate) async fn space(&self) -> Room {
        self.shared.queue.reserve(0).await
    }

    /// Hands records over; `behind` is how far they are behind the newest one, in milliseconds, and `full` says that
    /// others may follow all the same. Gives the bytes that came, as the shard counts them.
    ///
    /// # Errors
    /// `PositionLost` where the position is gone and the source is told to fail then.
    pub(crate) fn hand_over(
        &mut self,
        room: &mut Room,
        records: &[Record],
        behind: Option<i64>,
        full: bool,
    ) -> Result<usize> {
        let now = self.now();
        let context = &self.shared.context;
        let bytes = records.iter().map(size).sum::<usize>();
        if records.is_empty() && behind == Some(0) {
            self.cursor.at_end(now)?;
            self.shared.ends().seen(&self.shard, self.cursor.place());
            let lost = self.cursor.has_lost();
            if lost || !self.told_end || now.saturating_sub(self.marked) >= MARK {
                let lag = Lag { time: Some(Duration::ZERO), ..Lag::default() };
                room.batch(self.empty(Some(lag), lost), 0);
                self.told_end = true;
                self.marked = now;
            }
            return Ok(0);
        }
        let lag = behind.map(|behind| Lag { time: Some(milliseconds(behind)), ..Lag::default() });
        if records.is_empty() && self.told_end && lag.is_some_and(|lag| !lag.is_zero()) {
            // Something has come, and is not here yet.
            room.batch(self.empty(lag, false), 0);
            self.told_end = false;
        }
        let ready = self.cursor.take(records, now, context.batch_records, context.buffer_bytes)?;
        // An aggregate becomes many rows, and a record that was done before none.
        let rows = ready.iter().map(|ready| ready.bytes).sum::<usize>();
        let held = rows.max(bytes.saturating_add(records.len().saturating_mul(OVERHEAD)));
        if let Some(weight) = held.checked_div(records.len()) {
            // Quick to grow, slow to shrink.
            self.weight = if self.weight == UNSEEN { weight } else { weight.max((self.weight * 3 + weight) / 4) };
        }
        let newest = ready.last().and_then(|last| last.arrival);
        let last = ready.len().saturating_sub(1);
        self.told_end &= records.is_empty();
        for (index, mut one) in ready.into_iter().enumerate() {
            one.batch.lag = behind.map(|behind| {
                let inside =
                    newest.zip(one.arrival).map_or(0, |(newest, arrival)| newest.saturating_sub(arrival).max(0));
                let time = milliseconds(behind) + Duration::from_micros(u64::try_from(inside).unwrap_or(0));
                let more = index < last || full;
                Lag { time: Some(if more { time.max(Duration::from_millis(1)) } else { time }), ..Lag::default() }
            });
            self.told_end = one.batch.lag.is_some_and(|lag| lag.is_zero());
            room.batch(one.batch, one.bytes);
        }
        Ok(bytes)
    }

    /// The shard is closed and everything in it was handed over.
    ///
    /// # Errors
    /// As [`Delivery::hand_over`].
    pub(crate) fn ended(&mut self) -> Result<()> {
        self.cursor.at_end(self.now())?;
        if self.cursor.has_lost() {
            self.shared.queue.event(StreamEvent::Batch(self.empty(None, true)));
        }
        Ok(())
    }

    /// A batch that says how far the shard is read.
    fn empty(&self, lag: Option<Lag>, lost: bool) -> StreamBatch {
        let mut batch = BatchBuilder::default().finish(&self.shard, self.cursor.position(), lag);
        batch.lost = lost;
        batch
    }
}

/// A time in milliseconds; none where it is negative.
fn milliseconds(time: i64) -> Duration {
    Duration::from_millis(u64::try_from(time).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use aws_sdk_kinesis::Client;
    use aws_sdk_kinesis::config::{BehaviorVersion, Region};
    use aws_sdk_kinesis::primitives::{Blob, DateTime};
    use futures::FutureExt;
    use headwater_core::ErrorKind;
    use headwater_core::stream::{FixedCheckpoints, OnPositionLost, ReaderContext, StartPosition};
    use headwater_core::time::ManualClock;

    use super::*;
    use crate::client::{Facts, Stream};
    use crate::cursor::tests::aggregates;
    use crate::position::{Place, Sequence, Within};

    const DAY: Micros = 86_400_000_000;
    const SHARD: &str = "shardId-000000000000";

    /// A delivery that asks nothing of any server.
    fn delivery(buffer_bytes: usize) -> Delivery {
        delivery_of(cursor(), buffer_bytes)
    }

    fn delivery_of(cursor: Cursor, buffer_bytes: usize) -> Delivery {
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .build();
        let stream = Stream { client: Client::from_conf(config), name: None, arn: None };
        let facts = Facts { arn: String::new(), created: 0, retention: DAY, active: true };
        let context = ReaderContext {
            group: "tests.delivery".into(),
            start: StartPosition::Earliest,
            checkpoints: Arc::new(FixedCheckpoints::default()),
            buffer_bytes,
            batch_records: 1,
            refresh: Duration::from_secs(10),
            clock: Arc::new(ManualClock::new(DAY)),
        };
        let shared = Shared::new(stream, facts, None, OnPositionLost::Fail, context);
        Delivery::new(SHARD.into(), cursor, Arc::new(shared))
    }

    fn cursor() -> Cursor {
        Cursor::new(SHARD, Place::Start, DAY, OnPositionLost::Fail)
    }

    fn record(sequence: u64, arrived: DateTime, data: &[u8]) -> Record {
        let record = Record::builder().sequence_number(sequence.to_string()).partition_key("key");
        record.approximate_arrival_timestamp(arrived).data(Blob::new(data)).build().unwrap()
    }

    #[tokio::test]
    async fn a_shard_is_charged_for_data_and_keys_alone() {
        let mut delivery = delivery(1 << 20);
        let mut room = delivery.space().await;
        let records = [1, 2, 3].map(|sequence| record(sequence, DateTime::from_secs(1), b"data"));
        let bytes = delivery.hand_over(&mut room, &records, Some(0), false).unwrap();
        assert_eq!(bytes, 3 * ("data".len() + "key".len()));
    }

    #[tokio::test]
    async fn aggregates_are_asked_for_by_what_they_become() {
        let mut delivery = delivery(4 << 20);
        let records = (1..).zip(aggregates()).map(|(sequence, data)| record(sequence, DateTime::from_secs(1), &data));
        let records = records.collect::<Vec<_>>();
        let rows = cursor().take(&records, DAY, 1, 4 << 20).unwrap();
        let each = rows.iter().map(|row| row.bytes).sum::<usize>() / records.len();
        let mut room = delivery.space().await;
        delivery.hand_over(&mut room, &records, Some(0), false).unwrap();
        let (_, most) = delivery.room().await;
        // What is asked for at once gets a quarter of the buffer.
        assert!(most <= (1 << 20) / each, "{most} records of {each} bytes");
    }

    #[tokio::test]
    async fn a_batch_is_as_far_behind_as_its_last_record() {
        let mut delivery = delivery(1 << 20);
        let mut room = delivery.space().await;
        // Each becomes a batch. The second one is so far behind as the server says, the first one two seconds more.
        let records = [(1, 1), (2, 3)].map(|(number, second)| record(number, DateTime::from_secs(second), b"data"));
        delivery.hand_over(&mut room, &records, Some(5_000), false).unwrap();
        for seconds in [7, 5] {
            let Ok(StreamEvent::Batch(batch)) = delivery.shared().queue.next().await else { panic!("no batch") };
            assert_eq!(batch.lag, Some(Lag { time: Some(Duration::from_secs(seconds)), ..Lag::default() }));
        }
        // Others follow, also where the server calls it nothing.
        delivery.hand_over(&mut room, &[record(3, DateTime::from_secs(3), b"data")], Some(0), true).unwrap();
        let Ok(StreamEvent::Batch(batch)) = delivery.shared().queue.next().await else { panic!("no batch") };
        assert!(batch.lag.is_some_and(|lag| !lag.is_zero()), "{:?}", batch.lag);
    }

    #[tokio::test]
    async fn what_is_lost_at_the_end_of_a_shard_is_told() {
        let read = |place: &Place| {
            let mut delivery = delivery_of(Cursor::new(SHARD, place.clone(), DAY, OnPositionLost::Earliest), 1 << 20);
            delivery.begin();
            delivery
        };
        let told = |delivery: &Delivery, place: &Place| {
            let next = delivery.shared().queue.next().now_or_never();
            let Some(Ok(StreamEvent::Batch(batch))) = next else { panic!("no batch") };
            // The engine writes down what is news to it.
            assert!(batch.lost && batch.through > place.position(), "{place:?}: {batch:?}");
        };
        // Also inside an aggregate, which is gone.
        for within in [Within::Plain, Within::Sub(3)] {
            let place = Place::Record(Sequence::parse("7").unwrap(), within);
            let mut closed = read(&place);
            closed.ended().unwrap();
            told(&closed, &place);
            let mut open = read(&place);
            let mut room = open.space().await;
            open.hand_over(&mut room, &[], Some(0), false).unwrap();
            told(&open, &place);
        }
        // When it was said already that all is read.
        let place = Place::Record(Sequence::parse("7").unwrap(), Within::Plain);
        let mut later = read(&place);
        let mut room = later.space().await;
        later.hand_over(&mut room, &[record(7, DateTime::from_secs(1), b"data")], Some(0), false).unwrap();
        later.hand_over(&mut room, &[], Some(0), false).unwrap();
        drop(later.shared().queue.next().await);
        assert!(later.refused(Error::new(ErrorKind::PositionLost, "who is that?")).is_retryable());
        later.hand_over(&mut room, &[], Some(0), false).unwrap();
        told(&later, &place);
    }

    #[tokio::test]
    async fn a_shard_that_falls_behind_says_so_before_its_records_come() {
        let mut delivery = delivery(1 << 20);
        let mut room = delivery.space().await;
        // Nothing is there; something is, and does not come at once; and is not there any more.
        for behind in [0, 60_000, 50_000, 0] {
            delivery.hand_over(&mut room, &[], Some(behind), false).unwrap();
        }
        for seconds in [0, 60, 0] {
            let next = delivery.shared().queue.next().now_or_never();
            let Some(Ok(StreamEvent::Batch(batch))) = next else { panic!("no batch") };
            assert_eq!(batch.lag, Some(Lag { time: Some(Duration::from_secs(seconds)), ..Lag::default() }));
        }
    }

    #[tokio::test]
    async fn arrival_times_that_make_no_sense_are_no_trouble() {
        let mut delivery = delivery(1 << 20);
        let mut room = delivery.space().await;
        // As long ago as can be said, and later than can be said.
        let records = [
            record(1, DateTime::from_secs(i64::MIN / 1_000_000), b"first"),
            record(2, DateTime::from_secs(i64::MAX), b"last"),
        ];
        delivery.hand_over(&mut room, &records, Some(0), false).unwrap();
        let Ok(StreamEvent::Batch(first)) = delivery.shared().queue.next().await else { panic!("no batch") };
        let lag = first.lag.and_then(|lag| lag.time);
        assert_eq!(lag, Some(Duration::from_micros(i64::MAX.unsigned_abs())), "between the two");
    }
}
