//! The stream source against its contract, for both ways to fetch records: on an emulator in this process, and on the
//! server of `AWS_ENDPOINT_URL_KINESIS`.

mod job;
mod local;
mod server;

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use headwater_core::plugin::OpenContext;
use headwater_core::stream::StreamSource;
use headwater_core::{Error, Result, SplitId};
use headwater_testkit::stream::{Record, StreamFixture};
use headwater_testkit::{Clause, applying, named, run, stream};

use server::{Server, Stream, shard_id};

#[derive(Clone)]
struct Kinesis {
    server: Server,
    consumer: &'static str,
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

fn clauses(label: &str, server: &Server) -> Vec<Clause> {
    let suite = |consumer| {
        let fixture = Kinesis { server: server.clone(), consumer };
        named(&format!("{label}{consumer}"), applying(stream::suite(fixture), &INAPPLICABLE))
    };
    suite("polling").into_iter().chain(suite("fan_out")).collect()
}

/// What is left out on kinesis-local: it answers too slowly for so many lives in two minutes.
const LEFT_OUT: &str = "stream::random-lives";

fn main() -> ExitCode {
    let mut clauses = clauses("", &Server::plain());
    match Server::given() {
        Some(given) => {
            let others = self::clauses("kinesis-local ", &given).into_iter();
            clauses.extend(others.filter(|clause| !clause.name().ends_with(LEFT_OUT)));
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
