//! What goes wrong between a client and Kinesis, at random.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures::StreamExt;
use headwater_testkit::Random;

/// Of a hundred calls so many fail.
const PERCENT: usize = 15;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The answer is that there were too many calls.
    Throttled,
    /// The answer is that the iterator has expired.
    Expired,
    /// The answer is that something broke.
    Broken,
    /// The call is done, and the connection drops before the answer is whole.
    Dropped,
}

impl Fault {
    const ALL: [Self; 4] = [Self::Expired, Self::Throttled, Self::Broken, Self::Dropped];

    /// Those that an operation can meet: only records are fetched with an iterator.
    fn of(operation: &str) -> &'static [Self] {
        if operation == "GetRecords" { &Self::ALL } else { &Self::ALL[1..] }
    }
}

/// Chooses faults, and counts them.
#[derive(Debug)]
pub(crate) struct Faults {
    random: Mutex<Random>,
    injected: Mutex<BTreeMap<(String, Fault), usize>>,
}

impl Faults {
    pub(crate) fn new() -> Arc<Self> {
        let seed = std::env::var("HEADWATER_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
        println!("seed {seed}");
        Arc::new(Self { random: Mutex::new(Random::new(seed)), injected: Mutex::default() })
    }

    /// How often each was injected, by operation.
    pub(crate) fn injected(&self) -> BTreeMap<(String, Fault), usize> {
        self.injected.lock().unwrap().clone()
    }

    /// Whether an operation has met every fault that it can meet.
    pub(crate) fn all_met(&self, operation: &str) -> bool {
        let injected = self.injected();
        Fault::of(operation).iter().all(|fault| injected.contains_key(&(operation.to_owned(), *fault)))
    }

    fn choose(&self, operation: &str) -> Option<Fault> {
        if self.random.lock().unwrap().below(100) >= PERCENT {
            return None;
        }
        // Which call fails is left to chance; how it fails goes in turn, so that each way comes soon.
        let mut injected = self.injected.lock().unwrap();
        let before: usize = Fault::ALL.iter().filter_map(|fault| injected.get(&(operation.to_owned(), *fault))).sum();
        let possible = Fault::of(operation);
        let fault = possible[before % possible.len()];
        *injected.entry((operation.to_owned(), fault)).or_default() += 1;
        Some(fault)
    }

    fn chunks(&self) -> usize {
        self.random.lock().unwrap().below(20)
    }
}

/// Stands before the emulator.
pub(crate) async fn inject(State(faults): State<Arc<Faults>>, request: Request, next: Next) -> Response {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    match faults.choose(&operation) {
        None => next.run(request).await,
        Some(Fault::Throttled) if operation == "GetRecords" => answer(400, "ProvisionedThroughputExceededException"),
        Some(Fault::Throttled) => answer(400, "LimitExceededException"),
        Some(Fault::Expired) => answer(400, "ExpiredIteratorException"),
        Some(Fault::Broken) => answer(500, "InternalFailure"),
        Some(Fault::Dropped) => {
            let (parts, body) = next.run(request).await.into_parts();
            // A subscription goes on for a while; nothing arrives of anything else.
            let chunks = if operation == "SubscribeToShard" { faults.chunks() } else { 0 };
            let dropped = futures::stream::once(async { Err(io::Error::from(io::ErrorKind::ConnectionReset)) });
            let begun = body.into_data_stream().map(|chunk| chunk.map_err(io::Error::other)).take(chunks);
            Response::from_parts(parts, Body::from_stream(begun.chain(dropped)))
        }
    }
}

fn answer(status: u16, code: &str) -> Response {
    let body = format!("{{\"__type\":\"{code}\",\"message\":\"injected\"}}");
    let response = Response::builder().status(status).header("content-type", "application/x-amz-json-1.1");
    response.body(Body::from(body)).unwrap()
}
