//! Reading a shard by asking for its records.

use std::time::Duration;

use headwater_core::{ErrorKind, Micros, Result};
use tokio::time::{Instant, sleep};

use crate::client::NoRecords;
use crate::cursor::Begin;
use crate::delivery::Delivery;
use crate::pace::{Answer, Pace, Trouble};

/// Iterators die after five minutes: older ones than this are not used.
const ITERATOR_LIFE: Duration = Duration::from_secs(240);

/// Where the next records lie.
struct ShardIterator {
    text: String,
    made: Instant,
    /// It was asked for by the position, and no records were fetched with it yet.
    fresh: bool,
}

/// Reads a shard to its end.
///
/// # Errors
/// What waiting does not help against. Everything else is tried again without end.
pub(crate) async fn read(delivery: &mut Delivery) -> Result<()> {
    let mut pace = Pace::new();
    let mut trouble = Trouble::new();
    let mut iterator: Option<ShardIterator> = None;
    loop {
        pace.wait().await;
        // While there is no room the iterator may die: it is made anew from the position.
        let (mut room, limit) = delivery.room().await;
        let current = match iterator.take().filter(|current| current.made.elapsed() < ITERATOR_LIFE) {
            Some(current) => current,
            None => match make_iterator(delivery).await {
                Ok(text) => ShardIterator { text, made: Instant::now(), fresh: true },
                Err(error) => {
                    drop(room);
                    trouble.wait(delivery.shard(), error, &delivery.shared().queue).await?;
                    continue;
                }
            },
        };
        pace.called(Instant::now());
        let answer = match delivery.shared().stream.records(&current.text, Some(limit)).await {
            Ok(answer) => answer,
            Err(NoRecords::Refused(_)) if !current.fresh => {
                // It is too old. Waiting does not make it younger; another one is made at once, from the position.
                delivery.shared().queue.passing();
                continue;
            }
            Err(NoRecords::Refused(error)) => {
                drop(room);
                trouble.wait(delivery.shard(), error, &delivery.shared().queue).await?;
                continue;
            }
            Err(NoRecords::Failed(error)) => {
                // The iterator is as good as before, and gives the same records again. One made anew would begin behind
                // the last record once more: two calls, both of which can fail too, to be where this one is already.
                iterator = Some(current);
                drop(room);
                trouble.wait(delivery.shard(), error, &delivery.shared().queue).await?;
                continue;
            }
        };
        trouble.over(&delivery.shared().queue);
        let records = answer.records;
        let full = records.len() >= limit;
        let bytes = delivery.hand_over(&mut room, &records, answer.millis_behind_latest, full)?;
        drop(room);
        let caught_up = answer.millis_behind_latest == Some(0) && !full;
        pace.answered(
            Instant::now(),
            bytes,
            match (caught_up, records.is_empty()) {
                (false, _) => Answer::Behind,
                (true, false) => Answer::Records,
                (true, true) => Answer::Nothing,
            },
        );
        match answer.next_shard_iterator {
            Some(text) => iterator = Some(ShardIterator { text, made: Instant::now(), fresh: false }),
            None => {
                delivery.ended()?;
                delivery.shared().children(answer.child_shards.as_deref().unwrap_or_default());
                return Ok(());
            }
        }
    }
}

async fn make_iterator(delivery: &mut Delivery) -> Result<String> {
    let begin = delivery.begin();
    if let Begin::At(time) = begin {
        wait_for(delivery, time).await;
    }
    let made = delivery.shared().stream.iterator(delivery.shard(), &begin).await;
    made.map_err(|error| if error.kind() == ErrorKind::PositionLost { delivery.refused(error) } else { error })
}

/// Waits until it is `time`: no server begins in the future.
pub(crate) async fn wait_for(delivery: &Delivery, time: Micros) {
    loop {
        let left = u64::try_from(time.saturating_sub(delivery.now())).unwrap_or(0);
        if left == 0 {
            return;
        }
        sleep(Duration::from_micros(left).min(Duration::from_secs(1))).await;
    }
}
