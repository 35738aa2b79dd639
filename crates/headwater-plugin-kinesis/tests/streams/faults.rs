//! Calls of a reader that fail at random.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use futures::StreamExt;
use headwater_testkit::Random;

use crate::server::wire::{Call, before, refuse};

/// So many calls for a shard fail at the most between two that fetch from it. A reader waits longer after each: left to
/// chance alone, a run of bad luck would take minutes.
const BETWEEN_FETCHES: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The answer is that the iterator has expired.
    Expired,
    /// The answer is that there were too many calls.
    Throttled,
    /// The answer is that something broke.
    Broken,
    /// The connection drops before the answer is whole.
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
    percent: usize,
    chosen: Mutex<Chosen>,
}

#[derive(Debug)]
struct Chosen {
    random: Random,
    /// How many calls for a shard have failed since the last one that fetched from it.
    failed: BTreeMap<(String, String), usize>,
    /// How often an operation has met a fault.
    met: BTreeMap<(String, Fault), usize>,
}

impl Faults {
    /// Of a hundred calls that read from a shard so many fail.
    pub(crate) fn new(seed: u64, percent: usize) -> Arc<Self> {
        let chosen = Chosen { random: Random::new(seed), failed: BTreeMap::new(), met: BTreeMap::new() };
        Arc::new(Self { percent, chosen: Mutex::new(chosen) })
    }

    /// Puts the faults before the server, for readers alone.
    pub(crate) fn layer(self: &Arc<Self>) -> impl FnOnce(Router) -> Router + Send + use<> {
        let faults = Arc::clone(self);
        move |app| {
            before(app, move |call, next| {
                let fault = faults.choose(&call);
                Box::pin(async move { inject(fault, call, next).await })
            })
        }
    }

    /// Checks that an operation has met every fault that it can meet.
    pub(crate) fn all_met(&self, operation: &str) {
        let met = &self.chosen.lock().unwrap().met;
        for fault in Fault::of(operation) {
            assert!(met.contains_key(&(operation.to_owned(), *fault)), "no {operation} met {fault:?}: {met:?}");
        }
    }

    /// A fault for a call, and after how many pieces of an answer a connection drops.
    fn choose(&self, call: &Call) -> Option<(Fault, usize)> {
        let operation = call.operation.as_str();
        if !["GetShardIterator", "GetRecords", "SubscribeToShard"].contains(&operation) {
            return None;
        }
        let chosen = &mut *self.chosen.lock().unwrap();
        let hit = chosen.random.below(100) < self.percent;
        let failed = chosen.failed.entry(call.shard().expect("a shard")).or_default();
        if !hit || *failed >= BETWEEN_FETCHES {
            if operation != "GetShardIterator" {
                *failed = 0;
            }
            return None;
        }
        *failed += 1;
        // Which call fails is left to chance; how it fails goes in turn, so that each way comes soon.
        let possible = Fault::of(operation);
        let before: usize = Fault::ALL.iter().filter_map(|fault| chosen.met.get(&(operation.to_owned(), *fault))).sum();
        let fault = possible[before % possible.len()];
        *chosen.met.entry((operation.to_owned(), fault)).or_default() += 1;
        // A subscription goes on for a while; nothing arrives of anything else.
        let pieces = if operation == "SubscribeToShard" { chosen.random.below(3) } else { 0 };
        Some((fault, pieces))
    }
}

async fn inject(fault: Option<(Fault, usize)>, call: Call, next: Next) -> Response {
    match fault {
        None => call.pass(next).await,
        Some((Fault::Throttled, _)) if call.operation == "GetRecords" => {
            refuse(StatusCode::BAD_REQUEST, "ProvisionedThroughputExceededException")
        }
        Some((Fault::Throttled, _)) => refuse(StatusCode::BAD_REQUEST, "LimitExceededException"),
        Some((Fault::Expired, _)) => refuse(StatusCode::BAD_REQUEST, "ExpiredIteratorException"),
        Some((Fault::Broken, _)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalFailureException"),
        Some((Fault::Dropped, pieces)) => {
            let (parts, body) = call.pass(next).await.into_parts();
            let begun = body.into_data_stream().map(|piece| piece.map_err(std::io::Error::other)).take(pieces);
            let broken = [Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("broken off"))];
            Response::from_parts(parts, Body::from_stream(begun.chain(futures::stream::iter(broken))))
        }
    }
}
