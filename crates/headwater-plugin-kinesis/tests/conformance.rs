//! The stream source against its contract, for both ways to fetch records: on an emulator in this process, and on the
//! server of `AWS_ENDPOINT_URL_KINESIS`.

mod job;
mod local;
mod server;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use futures::FutureExt;
use headwater_core::plugin::OpenContext;
use headwater_core::stream::StreamSource;
use headwater_core::{Error, Result, SplitId};
use headwater_testkit::stream::{Record, StreamFixture};
use headwater_testkit::{Clause, Stop, applying, named, run, stream};

use server::wire::{answer, before, body_of};
use server::{Server, Stream, options, shard_id};

/// How many records were in the answers to those who poll, by the name of the stream.
type Answered = Arc<Mutex<BTreeMap<String, usize>>>;

#[derive(Clone)]
struct Kinesis {
    server: Server,
    consumer: &'static str,
    /// Where it is counted.
    answered: Option<Answered>,
}

#[async_trait]
impl StreamFixture for Kinesis {
    type Stream = Stream;

    async fn create(&self, splits: usize) -> Result<Stream> {
        if splits == 0 {
            return Err(Error::unsupported("a stream has at least one shard"));
        }
        self.server.create(splits).await
    }

    async fn open(&self, stream: &Stream, context: &OpenContext) -> Result<Arc<dyn StreamSource>> {
        stream.open(self.consumer, context)
    }

    fn split(&self, _: &Stream, index: usize) -> SplitId {
        SplitId::from(shard_id(index).as_str())
    }

    async fn produce(&self, stream: &Stream, split: usize, records: &[Record]) -> Result<()> {
        let values = records.iter().map(|record| record.json().into_bytes()).collect::<Vec<_>>();
        stream.put(split, &values).await
    }

    async fn end_split(&self, stream: &Stream, split: usize) -> Result<Vec<usize>> {
        stream.split(split).await
    }

    // A subscription sends until the sockets are full, which hold many times what the suite gives for a buffer. How
    // much of that the reader takes is shown in `tests/streams/reading.rs`.
    fn handed_out(&self, stream: &Stream) -> Option<usize> {
        let answered = self.answered.as_ref().filter(|_| self.consumer == "polling")?;
        Some(answered.lock().expect("no test panics with it").get(&stream.name).copied().unwrap_or_default())
    }
}

/// Puts something before the server that counts the records in answers.
fn counting(answered: Answered) -> impl FnOnce(Router) -> Router + Send + 'static {
    move |app| {
        before(app, move |call, next| {
            let answered = Arc::clone(&answered);
            Box::pin(async move {
                let asked = call.shard().filter(|_| call.operation == "GetRecords");
                let response = call.pass(next).await;
                let Some((stream, _)) = asked else { return response };
                match body_of(response).await {
                    Ok(body) => {
                        let records = body["Records"].as_array().map_or(0, Vec::len);
                        *answered.lock().expect("no test panics with it").entry(stream).or_default() += records;
                        answer(&body)
                    }
                    Err(refused) => refused,
                }
            })
        })
    }
}

/// What does not apply to a stream: it has no end, no shard without a parent is added to it, one reader has all shards,
/// and the service itself says when records arrive.
const INAPPLICABLE: [&str; 7] = [
    "stream::finishes-when-all-is-delivered",
    "stream::finished-for-ever",
    "stream::new-split-begins-at-its-beginning",
    "stream::readers-share-splits",
    "stream::revoked-when-acknowledged",
    "stream::start-at-a-time",
    "stream::stored-times-come-along",
];

/// What applies where it is counted what is handed out.
const UNSEEN: &str = "stream::stalled-holds-its-buffer-at-the-most";

fn clauses(label: &str, server: &Server, answered: Option<&Answered>) -> Vec<Clause> {
    let suite = |consumer| {
        let fixture = Kinesis { server: server.clone(), consumer, answered: answered.cloned() };
        let unseen: &[&str] = if answered.is_some() && consumer == "polling" { &[] } else { &[UNSEEN] };
        let inapplicable = [&INAPPLICABLE[..], unseen].concat();
        named(&format!("{label}{consumer}"), applying(stream::suite(fixture), &inapplicable))
    };
    suite("polling").into_iter().chain(suite("fan_out")).collect()
}

/// What is left out on kinesis-local.
const LEFT_OUT: &str = "stream::random-lives";

/// Has a clause say why it is left out, where it is.
fn bearable(clause: Clause) -> Clause {
    if !clause.name().ends_with(LEFT_OUT) {
        return clause;
    }
    let skipped = || async { Err(Stop::Skipped("it answers too slowly for so many lives in two minutes".into())) };
    Clause::new(clause.name(), clause.quote(), move || skipped().boxed())
}

fn main() -> ExitCode {
    let answered = Answered::default();
    let server = Server::start(options(), counting(Arc::clone(&answered)));
    let mut clauses = clauses("", &server, Some(&answered));
    match Server::given() {
        Some(given) => {
            let others = self::clauses("kinesis-local ", &given, None).into_iter();
            clauses.extend(others.map(bearable));
            clauses.extend(local::clauses(&given));
        }
        // As the lines of tests would be, for whoever counts what was not run.
        None => {
            let others = ["the same clauses on kinesis-local".to_owned()];
            for name in others.into_iter().chain(local::names()) {
                println!("test [needs kinesis-local] {name} ... ignored");
            }
        }
    }
    run(clauses)
}
