//! One worker's share of the stream, as the engine sees it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use headwater_core::stream::{Progress, StreamEvent};
use headwater_core::{Error, ErrorKind, Result, SplitId, StreamReader};
use tokio::task::JoinHandle;

use crate::coordinator::{Coordinator, Shared};
use crate::leases::LocalLeases;

/// The note of when the stream was made.
const CREATED: &str = "stream-created";
/// How long a worker may take to leave.
const LEAVE: Duration = Duration::from_secs(10);

/// Reads the shards that are this worker's.
///
/// A task finds shards and runs a task for each of those that can be read; what they fetch waits in a queue bounded in
/// bytes, and while the queue is full nothing is fetched.
pub(crate) struct KinesisStreamReader {
    shared: Arc<Shared>,
    coordinator: JoinHandle<Result<()>>,
}

impl std::fmt::Debug for KinesisStreamReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KinesisStreamReader").field("stream", &self.shared.facts.arn).finish_non_exhaustive()
    }
}

impl KinesisStreamReader {
    pub(crate) async fn subscribe(shared: Shared) -> Result<Self> {
        known(&shared).await?;
        let shared = Arc::new(shared);
        let mut coordinator = Coordinator::new(Arc::clone(&shared), Arc::new(LocalLeases));
        // What can be read now is handed out with the first call of `next`.
        coordinator.step(true).await?;
        let coordinator = tokio::spawn(coordinator.run());
        Ok(Self { shared, coordinator })
    }
}

/// Notices a stream that was made anew since it was first read: its shards go by the same names again.
async fn known(shared: &Shared) -> Result<()> {
    let created = shared.facts.created;
    let checkpoints = &shared.context.checkpoints;
    let Some(noted) = checkpoints.noted(CREATED).await? else {
        return checkpoints.note(&[(CREATED.to_owned(), created.to_be_bytes().to_vec().into())]).await;
    };
    if noted.as_ref() == created.to_be_bytes() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::PositionLost,
        format!(
            "the stream `{}` was made anew since it was last read: its checkpoints are those of another stream; `reset` \
             begins it anew",
            shared.facts.arn
        ),
    )
    .with_plugin("kinesis"))
}

impl Drop for KinesisStreamReader {
    fn drop(&mut self) {
        self.coordinator.abort();
    }
}

#[async_trait]
impl StreamReader for KinesisStreamReader {
    async fn next(&mut self) -> Result<Option<StreamEvent>> {
        self.shared.queue.next().await.map(Some)
    }

    fn repeated(&self) -> u64 {
        self.shared.queue.repeated()
    }

    async fn commit(&mut self, commits: &[(SplitId, Progress)]) -> Result<()> {
        // Kinesis keeps no positions: only ends matter, which let children be read.
        for (split, _) in commits.iter().filter(|(_, progress)| *progress == Progress::End) {
            self.shared.finished(split);
        }
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        self.shared.leave();
        match tokio::time::timeout(LEAVE, &mut self.coordinator).await {
            Ok(Ok(left)) => left,
            Ok(Err(error)) => {
                Err(Error::unexpected("the coordinating task died").with_source(error).with_plugin("kinesis"))
            }
            Err(_) => {
                Err(Error::new(ErrorKind::Unavailable, format!("the shards were not left in {} s", LEAVE.as_secs()))
                    .with_plugin("kinesis"))
            }
        }
    }
}
