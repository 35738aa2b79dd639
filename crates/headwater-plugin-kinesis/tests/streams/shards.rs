//! How shards are found, and what becomes of their children.

use headwater_core::stream::StartPosition;

use crate::job::{Job, Load, open_context};
use crate::server::Server;

#[tokio::test]
async fn a_start_in_the_past_reads_all_and_what_was_decided_stays() {
    let server = Server::plain();
    let stream = server.create(1).await.unwrap();
    let mut load = Load { keys: 3, sent: 0 };
    load.send(&stream, 2).await.unwrap();
    let mut job = Job::new(stream.open("polling", &open_context()).unwrap());
    job.start = StartPosition::At(1_600_000_000_000_000);
    job.live(load.total(), 1).await.unwrap();
    // The children's turn comes in another life, which is told another start.
    stream.split(0).await.unwrap();
    load.send(&stream, 2).await.unwrap();
    job.start = StartPosition::Latest;
    job.live(load.total(), usize::MAX).await.unwrap();
    assert_eq!(job.by_key(), load.expected());
}
