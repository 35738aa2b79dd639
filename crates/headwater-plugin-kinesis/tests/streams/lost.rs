//! Positions that retention has removed, and shards to which nothing comes for long.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use headwater_core::stream::{Progress, StartPosition};
use headwater_core::{ErrorKind, Position};

use crate::job::{Ahead, Job, Load, open_context};
use crate::reading::up_to;
use crate::server::wire::{Call, before, refuse};
use crate::server::{Server, Stream, options};

const HOUR: i64 = 3_600_000_000;
const CONSUMERS: [&str; 2] = ["polling", "fan_out"];

/// What the server makes of positions.
#[derive(Debug, Clone)]
enum Kept {
    All,
    /// The record with this sequence number and what follows: Kinesis begins there, where it is asked for what was before.
    From(String),
    /// Records, but it takes no sequence number.
    Unknown,
}

type Keeps = Arc<Mutex<Kept>>;

impl Kept {
    /// Has a call begin where there are records. False where it is refused.
    fn begin(&self, call: &mut Call) -> bool {
        let (kind, number) = match call.operation.as_str() {
            "GetShardIterator" => ("ShardIteratorType", "StartingSequenceNumber"),
            "SubscribeToShard" => ("Type", "SequenceNumber"),
            _ => return true,
        };
        let position = match call.operation.as_str() {
            "GetShardIterator" => &mut call.body,
            _ => &mut call.body["StartingPosition"],
        };
        match self {
            Self::From(first) if position[number].is_null() || up_to(&position[number], first) => {
                position[kind] = "AT_SEQUENCE_NUMBER".into();
                position[number] = first.as_str().into();
                if let Some(fields) = position.as_object_mut() {
                    fields.remove("Timestamp");
                }
                true
            }
            Self::Unknown => position[number].is_null(),
            _ => true,
        }
    }
}

/// A server that keeps what it is told to.
fn keeping() -> (Server, Keeps) {
    let keeps: Keeps = Arc::new(Mutex::new(Kept::All));
    let shared = Arc::clone(&keeps);
    let server = Server::start(options(), move |app| {
        before(app, move |mut call, next| {
            let taken = shared.lock().unwrap().begin(&mut call);
            Box::pin(async move {
                if !taken {
                    return refuse(StatusCode::BAD_REQUEST, "InvalidArgumentException");
                }
                call.pass(next).await
            })
        })
    });
    (server, keeps)
}

fn job(stream: &Stream, consumer: &str, lost: &str) -> Job {
    let options = [("consumer", consumer), ("on_position_lost", lost)];
    Job::new(stream.open_with(&options, &open_context()).unwrap())
}

#[tokio::test]
async fn a_position_that_retention_has_removed_stops_the_job_or_is_stepped_over() {
    for consumer in CONSUMERS {
        let (server, keeps) = keeping();
        let stream = server.create(1).await.unwrap();
        let mut load = Load { keys: 1, sent: 0 };
        load.send(&stream, 6).await.unwrap();
        let numbers = stream.sequence_numbers(0).await.unwrap();
        // The emulator's subscriptions begin with its oldest record, wherever they are to begin. So what was read last is
        // taken to be a record that it never had: one before the first that is kept.
        let mut other = job(&stream, consumer, "fail");
        other.batch_records = 1;
        other.live(5, usize::MAX).await.unwrap();
        let Some(Progress::Through(kept)) = other.progress(0) else { panic!("no checkpoint") };
        let mut gone = kept.as_bytes().to_vec();
        *gone.last_mut().unwrap() -= 1;
        // The next one that was not read yet is gone too; or the server does not know the number of the last one.
        let cases = [(Kept::From(numbers[4].clone()), vec![4, 5]), (Kept::Unknown, vec![3, 4, 5])];
        for (kept, left) in cases {
            for (lost, left) in [("fail", vec![]), ("earliest", left)] {
                let mut job = job(&stream, consumer, lost);
                job.batch_records = 1;
                *keeps.lock().unwrap() = Kept::All;
                job.live(3, usize::MAX).await.unwrap();
                if matches!(kept, Kept::From(_)) {
                    job.resume(0, Position::new(gone.clone()));
                }
                *keeps.lock().unwrap() = kept.clone();
                let went_on = job.live(3 + left.len().max(1), usize::MAX).await;
                assert_eq!(job.by_key()["key-0"], [vec![0, 1, 2], left].concat(), "{consumer}, {lost}, {kept:?}");
                let stopped = (lost == "fail").then_some(ErrorKind::PositionLost);
                assert_eq!(went_on.err().map(|error| error.kind()), stopped, "{consumer}, {lost}, {kept:?}");
                let told = usize::from(lost == "earliest");
                assert_eq!(job.lost.len(), told, "batches that say that records are gone: {consumer}, {kept:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_shard_of_which_nothing_was_read_is_lost_when_nobody_looks_for_longer_than_retention() {
    let server = Server::plain();
    for consumer in CONSUMERS {
        for start in [StartPosition::Earliest, StartPosition::Latest] {
            let stream = server.create(1).await.unwrap();
            let mut jobs = ["fail", "earliest", "fail"].map(|lost| job(&stream, consumer, lost));
            for job in &mut jobs {
                job.start = start;
                // It is handed out, and its end is said to be there.
                job.live(1, 2).await.unwrap();
            }
            let mut load = Load { keys: 1, sent: 0 };
            load.send(&stream, 2).await.unwrap();
            // The emulator keeps records for a day, by a clock that these jobs have not.
            let [late, goes_on, in_time] = &mut jobs;
            (late.clock, goes_on.clock) = (Arc::new(Ahead::by(25 * HOUR)), Arc::new(Ahead::by(25 * HOUR)));
            in_time.clock = Arc::new(Ahead::by(23 * HOUR));
            let error = late.live(1, usize::MAX).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PositionLost, "{consumer}, {start:?}");
            assert!(late.processed.is_empty(), "{consumer}, {start:?}");
            goes_on.live(2, usize::MAX).await.unwrap();
            in_time.live(2, usize::MAX).await.unwrap();
            assert_eq!((goes_on.lost.len(), in_time.lost.len()), (1, 0), "{consumer}, {start:?}");
            // Who has never been there reads what there is.
            let mut first = job(&stream, consumer, "fail");
            first.clock = Arc::new(Ahead::by(25 * HOUR));
            first.live(2, usize::MAX).await.unwrap();
            for job in [goes_on, in_time, &mut first] {
                assert_eq!(job.by_key(), load.expected(), "{consumer}, {start:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_reader_that_leaves_notes_when_it_last_saw_the_end() {
    let server = Server::plain();
    for consumer in CONSUMERS {
        let stream = server.create(1).await.unwrap();
        let mut job = job(&stream, consumer, "fail");
        let ahead = Arc::new(Ahead::by(0));
        job.clock = Arc::<Ahead>::clone(&ahead);
        // From then on each answer asks for the time, and nothing else does.
        job.refresh = Duration::from_secs(3600);
        let mut reader = job.subscribe().await.unwrap();
        // It is handed out, and its end is said to be there.
        job.read(&mut *reader, usize::MAX, 2).await.unwrap();
        // Less than the time after which that is said again.
        ahead.set(HOUR * 5 / 6);
        ahead.asked().await;
        reader.close().await.unwrap();
        let mut load = Load { keys: 1, sent: 0 };
        load.send(&stream, 1).await.unwrap();
        // Longer than the emulator keeps records after the end was said to be there, not after it was last seen.
        ahead.set(HOUR * 24 + HOUR / 2);
        job.live(1, usize::MAX).await.unwrap();
        assert_eq!(job.by_key(), load.expected(), "{consumer}");
    }
}
