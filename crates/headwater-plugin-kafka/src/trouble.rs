//! What librdkafka says of its connections.
//!
//! A question to brokers that are away, or that do not let the client in, ends with a bare "timed out". Why comes beside it,
//! as events on the client's queue: they are kept here, to be told with the question's error.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use headwater_core::{Error, ErrorKind};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::error::kafka;

/// How long what was said counts. librdkafka says the same again after 30 seconds.
const RECENT: Duration = Duration::from_secs(40);
/// How long the events of a client are waited for that has reported a failure already.
const LISTEN: Duration = Duration::from_millis(20);
/// The most events that are looked at after one failure.
const MOST: usize = 100;

/// What was last said of connections, and whether one was good.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    last: Mutex<Option<Said>>,
    let_in: AtomicBool,
}

#[derive(Debug, Clone)]
struct Said {
    when: Instant,
    /// The brokers do not let the client in, or it does not trust them: trying again does not help.
    refused: bool,
    why: String,
}

impl Trouble {
    /// An error that librdkafka reports.
    pub(crate) fn error(&self, error: &KafkaError, why: &str) {
        let refused = match error.rdkafka_error_code() {
            // That all of them are away says less than why one is.
            Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::PartitionEOF) => return,
            Some(RDKafkaErrorCode::SSL) => true,
            Some(RDKafkaErrorCode::Authentication) => is_refusal(why),
            _ => false,
        };
        self.said(refused, why);
    }

    /// A line of librdkafka's log. It does not report each connection that was closed as an error, but logs it.
    pub(crate) fn log(&self, facility: &str, line: &str) {
        if facility == "FAIL" {
            // Its thread stands before it, which is called after the broker that comes behind.
            let line =
                line.strip_prefix("[thrd:").and_then(|line| line.split_once("]: ")).map_or(line, |(_, line)| line);
            self.said(is_refusal(line), line);
        }
    }

    fn said(&self, refused: bool, why: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // A broker that hangs up after it has refused the client says less than the refusal.
        let says_more = |said: &Said| said.refused && !refused && said.when.elapsed() < RECENT;
        if !last.as_ref().is_some_and(says_more) {
            *last = Some(Said { when: Instant::now(), refused, why: why.to_owned() });
        }
    }

    /// The brokers have answered.
    pub(crate) fn let_in(&self) {
        self.let_in.store(true, Ordering::Relaxed);
    }

    /// The error for what `error` has kept from being done. A client that is refused from the start is configured wrongly;
    /// one that was let in before goes on as soon as it is let in again.
    pub(crate) fn explain(&self, error: KafkaError, doing: &'static str) -> Error {
        use RDKafkaErrorCode as Code;
        let of_connection = matches!(error.rdkafka_error_code(), Some(Code::Authentication | Code::SSL));
        let plain = kafka(error.clone(), doing);
        if !of_connection && plain.kind() != ErrorKind::Unavailable {
            return plain;
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match last.filter(|said| said.when.elapsed() < RECENT) {
            Some(Said { refused: true, why, .. }) => {
                let message = format!("cannot {doing}, for there is no connection that both sides accept: {why}");
                let refusal = Error::new(ErrorKind::PermissionDenied, message).with_plugin("kafka");
                if self.let_in.load(Ordering::Relaxed) { refusal.temporary() } else { refusal }
            }
            Some(Said { why, .. }) => {
                // librdkafka hints at it only where the very first request was met so; brokers with SASL answer that one.
                let stranger = !self.let_in.load(Ordering::Relaxed) && why.contains("connection closed by peer");
                let hint = if stranger {
                    "; brokers that ask for SASL or TLS hang up on clients without: see `security.protocol`"
                } else {
                    ""
                };
                Error::new(ErrorKind::Unavailable, format!("cannot {doing}: {why}{hint}"))
                    .with_plugin("kafka")
                    .with_source(error)
            }
            None => plain.temporary(),
        }
    }
}

/// Whether a broker has refused the client, or the client a broker, for what it has shown. A connection that broke off
/// meanwhile is no refusal, nor is a token that could not be had.
fn is_refusal(why: &str) -> bool {
    ["SASL authentication error", "Unsupported SASL mechanism", "certificate verify failed", " alert "]
        .iter()
        .any(|words| why.contains(words))
}

/// A context that keeps what is said.
pub(crate) trait Troubled: ConsumerContext {
    fn trouble(&self) -> &Trouble;
}

/// Lets a client hear what it was told. Only for one that nobody else polls and that reads nothing.
pub(crate) fn listen<C: Troubled>(consumer: &BaseConsumer<C>) {
    for _ in 0..MOST {
        if consumer.poll(LISTEN).is_none() {
            return;
        }
    }
}

/// The context of a client that asks questions.
#[derive(Debug, Default)]
pub(crate) struct Outsider(Trouble);

impl Troubled for Outsider {
    fn trouble(&self) -> &Trouble {
        &self.0
    }
}

impl ClientContext for Outsider {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.0.log(facility, line);
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, why: &str) {
        self.0.error(&error, why);
    }
}

impl ConsumerContext for Outsider {}

/// Passes a line of librdkafka's log on. What matters of it comes as an error, too, and is told as one.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    tracing::debug!(target: "librdkafka", ?level, facility, "{line}");
}
