//! Who reads which shard.

use async_trait::async_trait;
use headwater_core::Result;

/// Shares the shards of a stream among the workers of a group.
#[async_trait]
pub(crate) trait Leases: std::fmt::Debug + Send + Sync {
    /// Takes what this worker may read of `ready`, shards that nobody reads as far as it knows, and gives it back. Is
    /// asked again for the rest with every look at the stream.
    ///
    /// # Errors
    /// Those of the table behind it; temporary ones are tried again.
    async fn take(&self, ready: &[String]) -> Result<Vec<String>>;

    /// Lets go of shards: they are read to their end, or the worker leaves.
    ///
    /// # Errors
    /// As [`Leases::take`].
    async fn release(&self, shards: &[String]) -> Result<()>;
}

/// One worker reads everything.
#[derive(Debug)]
pub(crate) struct LocalLeases;

#[async_trait]
impl Leases for LocalLeases {
    async fn take(&self, ready: &[String]) -> Result<Vec<String>> {
        Ok(ready.to_vec())
    }

    async fn release(&self, _: &[String]) -> Result<()> {
        Ok(())
    }
}
