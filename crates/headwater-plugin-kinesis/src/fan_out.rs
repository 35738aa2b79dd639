//! Reading a shard by a subscription to it: enhanced fan-out.

use std::time::Duration;

use aws_sdk_kinesis::types::{ConsumerStatus, ShardIteratorType, StartingPosition, SubscribeToShardEventStream};
use headwater_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::client::{Stream, date_time, micros, too_early};
use crate::cursor::Begin;
use crate::delivery::{Delivery, MOST_RECORDS};
use crate::error::{IN_USE, INVALID_ARGUMENT, NOT_FOUND, code, kinesis};
use crate::pace::Trouble;
use crate::polling::{self, wait_for};

/// A shard is subscribed to once in this time.
const BETWEEN: Duration = Duration::from_secs(5);
/// A subscription that says nothing for so long is dead: also without records it says something every few seconds.
const SILENCE: Duration = Duration::from_secs(30);
/// For so long a subscription is continued where the last one ended, without looking for the last record.
const CONTINUED: Duration = Duration::from_secs(3600);
/// How long a consumer may take to become active.
const ACTIVATION: Duration = Duration::from_secs(120);
/// After so many events that have no records, of a closed shard that is read up to now, the event with the children is not
/// waited for any longer: some servers never send it.
const UNTOLD: usize = 2;

/// The group as a consumer that the stream knows.
#[derive(Debug, Clone)]
pub(crate) struct FanOut {
    arn: String,
}

/// Registers the group as a consumer of the stream, where it is not one yet, and waits until it is active. It stays
/// registered: a later run goes on with it.
pub(crate) async fn register(stream: &Stream, stream_arn: &str, group: &str) -> Result<FanOut> {
    let name = consumer_name(group);
    let until = Instant::now() + ACTIVATION;
    let client = &stream.client;
    loop {
        let known = client.describe_stream_consumer().stream_arn(stream_arn).consumer_name(&name).send().await;
        match known {
            Ok(answer) => {
                let consumer = answer.consumer_description.ok_or_else(|| {
                    Error::unexpected("the answer says nothing of the consumer").with_plugin("kinesis").temporary()
                })?;
                if consumer.consumer_status == ConsumerStatus::Active {
                    return Ok(FanOut { arn: consumer.consumer_arn });
                }
            }
            Err(error) if code(&error) == Some(NOT_FOUND) => {
                let made = client.register_stream_consumer().stream_arn(stream_arn).consumer_name(&name);
                match made.send().await {
                    Ok(_) => {}
                    // Another worker was first.
                    Err(error) if code(&error) == Some(IN_USE) => {}
                    Err(error) => return Err(kinesis(error, format_args!("register the consumer `{name}`"))),
                }
            }
            Err(error) => return Err(kinesis(error, format_args!("ask about the consumer `{name}`"))),
        }
        if Instant::now() >= until {
            let message = format!("the consumer `{name}` is not active after {} s", ACTIVATION.as_secs());
            return Err(Error::new(ErrorKind::Unavailable, message).with_plugin("kinesis"));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// The name of a group's consumer: what Kinesis allows in one.
fn consumer_name(group: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    group.chars().map(letter).take(128).collect()
}

/// How a subscription ended.
enum Ended {
    /// Its time was over, or it broke: another one follows.
    Session,
    /// The shard is read to its end.
    Shard,
    /// The shard is closed, and the subscription does not say where it ends.
    Untold,
}

/// Reads a shard to its end.
///
/// # Errors
/// What waiting does not help against. Everything else is tried again without end.
pub(crate) async fn read(delivery: &mut Delivery, fan_out: FanOut) -> Result<()> {
    let mut trouble = Trouble::new();
    let mut session = Session { fan_out, continuation: None, not_before: Instant::now(), untold: 0 };
    loop {
        match session.run(delivery, &mut trouble).await {
            Ok(Ended::Session) => {}
            Ok(Ended::Shard) => return delivery.ended(),
            // Nothing is left, or little: an iterator certainly comes to the end.
            Ok(Ended::Untold) => return polling::read(delivery).await,
            Err(error) => trouble.wait(delivery.shard(), error, &delivery.shared().queue).await?,
        }
    }
}

struct Session {
    fan_out: FanOut,
    /// Where the last subscription got to, and when.
    continuation: Option<(String, Instant)>,
    not_before: Instant,
    /// How many events have said that nothing is left of a closed shard and not where it ends, over all subscriptions:
    /// some servers end one after a single such event, and begin the next one with records that were read.
    untold: usize,
}

impl Session {
    async fn run(&mut self, delivery: &mut Delivery, trouble: &mut Trouble) -> Result<Ended> {
        // Nothing is fetched before there is room for it, and no silence counted.
        delivery.space().await;
        sleep_until(self.not_before).await;
        let at = self.starting_position(delivery).await?;
        let of_time = at.timestamp().map(micros);
        let request = delivery.shared().stream.client.subscribe_to_shard().consumer_arn(&self.fan_out.arn);
        let request = request.shard_id(delivery.shard()).starting_position(at);
        // The first event is awaited in here, outside the time-outs of the client.
        let mut stream = match timeout(SILENCE, request.send()).await {
            Ok(Ok(answer)) => answer.event_stream,
            Err(_) => {
                let message =
                    format!("the subscription to the shard `{}` has said nothing for {SILENCE:?}", delivery.shard());
                return Err(Error::new(ErrorKind::Unavailable, message).with_plugin("kinesis"));
            }
            Ok(Err(error)) => {
                let refused = code(&error) == Some(INVALID_ARGUMENT);
                let error = kinesis(error, format_args!("subscribe to the shard `{}`", delivery.shard()));
                return Err(match (refused, self.continuation.take(), of_time) {
                    // A continuation that is not taken is done without.
                    (true, Some(_), _) => error.temporary(),
                    (true, None, Some(time)) => too_early(error, time),
                    (true, None, None) => {
                        let lost = Error::new(ErrorKind::PositionLost, "the position to read on from is not taken");
                        delivery.refused(lost.with_plugin("kinesis").with_source(error))
                    }
                    (false, continuation, _) => {
                        self.continuation = continuation;
                        error
                    }
                });
            }
        };
        self.not_before = Instant::now() + BETWEEN;
        let mut over = false;
        loop {
            let mut room = delivery.space().await;
            let event = match timeout(SILENCE, stream.recv()).await {
                Ok(Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)))) => event,
                Ok(Ok(Some(_))) => continue,
                Ok(Ok(None)) => return Ok(if over { Ended::Shard } else { Ended::Session }),
                Ok(Err(error)) => {
                    drop(room);
                    let doing = format_args!("go on with the subscription to the shard `{}`", delivery.shard());
                    let error = kinesis(error, doing);
                    if over {
                        return Ok(Ended::Shard);
                    }
                    return Err(error);
                }
                Err(_) => {
                    tracing::warn!(
                        shard = delivery.shard(),
                        "the subscription was silent for {SILENCE:?}: subscribing anew"
                    );
                    return Ok(Ended::Session);
                }
            };
            trouble.over(&delivery.shared().queue);
            let full = event.records.len() >= MOST_RECORDS;
            delivery.hand_over(&mut room, &event.records, Some(event.millis_behind_latest), full)?;
            let children = event.child_shards.unwrap_or_default();
            delivery.shared().children(&children);
            // The last event names the children and no continuation. A server that names them before goes on until
            // there are no records left.
            over = event.continuation_sequence_number.is_empty()
                || (!children.is_empty() && event.records.is_empty() && event.millis_behind_latest == 0);
            if event.continuation_sequence_number.is_empty() {
                return Ok(Ended::Shard);
            }
            self.continuation = Some((event.continuation_sequence_number, Instant::now()));
            let quiet = event.records.is_empty() && children.is_empty() && event.millis_behind_latest == 0;
            if quiet && delivery.shared().is_closed(delivery.shard()) {
                self.untold += 1;
            }
            if self.untold >= UNTOLD {
                return Ok(Ended::Untold);
            }
        }
    }

    async fn starting_position(&self, delivery: &mut Delivery) -> Result<StartingPosition> {
        let position = StartingPosition::builder();
        let position = match &self.continuation {
            // What lies there is skipped if it was read.
            Some((continuation, at)) if at.elapsed() < CONTINUED => {
                position.r#type(ShardIteratorType::AtSequenceNumber).sequence_number(continuation)
            }
            _ => match delivery.begin() {
                Begin::Horizon => position.r#type(ShardIteratorType::TrimHorizon),
                Begin::At(time) => {
                    wait_for(delivery, time).await;
                    position.r#type(ShardIteratorType::AtTimestamp).timestamp(date_time(time))
                }
                Begin::Sequence(number) => position.r#type(ShardIteratorType::AtSequenceNumber).sequence_number(number),
            },
        };
        position.build().map_err(|error| {
            Error::unexpected("the starting position is not complete").with_source(error).with_plugin("kinesis")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_is_named_after_its_group() {
        assert_eq!(consumer_name("driver_ranking.driver_stats_stream"), "driver_ranking.driver_stats_stream");
        assert_eq!(consumer_name("a b/ü"), "a_b__");
        assert_eq!(consumer_name(&"x".repeat(300)).len(), 128);
    }
}
