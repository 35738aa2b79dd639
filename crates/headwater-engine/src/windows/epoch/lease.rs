//! Who builds an epoch: one at a time for each view's generation.
//!
//! The store keeps the greater of two versions and compares nothing, so the lease is taken as one takes a seat: whoever
//! wants it writes a row under a name of its own, then looks who else has one. Alone, it holds the lease, as everybody
//! who comes later sees its row; otherwise it takes its row away again and waits. A holder renews its row; one whose row
//! stands still is taken for dead. No clock is read for that: who waits watches the row.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_core::online::OnlineRow;
use headwater_core::{Error, ErrorKind, OnlineStore, Result};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{epochs_table, key};

/// The right to build epochs of a view's generation. Dropping it is like dying: others wait until it has run out.
#[derive(Debug)]
pub(crate) struct Lease {
    online: Arc<dyn OnlineStore>,
    table: String,
    key: Bytes,
    renewing: JoinHandle<()>,
}

/// What is leased, and how it is watched.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) online: Arc<dyn OnlineStore>,
    pub(crate) project: String,
    pub(crate) view: String,
    pub(crate) generation: String,
    /// A holder that has not renewed it for this long is dead.
    pub(crate) expires: Duration,
}

impl Wanted {
    /// Takes the lease, waiting up to `patience` while somebody else holds it. `give_up` is asked between looks: what it
    /// gives is given back instead of the lease.
    ///
    /// # Errors
    /// The store's; `Conflict` where it is still held after `patience`.
    pub(crate) async fn take<T, F: Future<Output = Result<Option<T>>>>(
        &self,
        patience: Duration,
        mut give_up: impl FnMut() -> F,
    ) -> Result<std::result::Result<Lease, T>> {
        let began = Instant::now();
        let table = epochs_table(&self.project);
        let name = uuid::Uuid::new_v4().simple().to_string();
        let own = key(&self.view, &self.generation, &[b"l", name.as_bytes()]);
        let all = key(&self.view, &self.generation, &[b"l"]);
        let look = || async {
            let rows = self.online.get_prefixes(&table, std::slice::from_ref(&all)).await?.pop();
            Ok::<Vec<OnlineRow>, Error>(rows.unwrap_or_default())
        };
        // The rows of others, and since when each stands still.
        let mut seen: Vec<(OnlineRow, Instant)> = Vec::new();
        loop {
            if let Some(instead) = give_up().await? {
                return Ok(Err(instead));
            }
            let others: Vec<OnlineRow> = look().await?;
            seen.retain(|(row, _)| others.contains(row));
            for row in others {
                if !seen.iter().any(|(known, _)| *known == row) {
                    seen.push((row, Instant::now()));
                }
            }
            let dead = seen.iter().filter(|(_, since)| since.elapsed() >= self.expires);
            let dead: Vec<Bytes> = dead.map(|(row, _)| row.key.clone()).collect();
            if !dead.is_empty() {
                self.online.delete(&table, &dead).await?;
                seen.retain(|(row, _)| !dead.contains(&row.key));
            }
            if seen.is_empty() {
                self.online.put(&table, vec![renewal(&own, 0)]).await?;
                if look().await?.iter().all(|row| row.key == own) {
                    return Ok(Ok(self.hold(table, own)));
                }
                self.online.delete(&table, std::slice::from_ref(&own)).await?;
            }
            if began.elapsed() >= patience {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("somebody else builds the windows of view `{}`: try again later", self.view),
                ));
            }
            // Two that met step back for times that differ.
            let part = u32::from(uuid::Uuid::new_v4().as_bytes()[0] % 8) + 4;
            tokio::time::sleep(self.expires.min(Duration::from_secs(1)) * part / 60).await;
        }
    }

    fn hold(&self, table: String, key: Bytes) -> Lease {
        let (online, pause) = (Arc::clone(&self.online), self.expires / 5);
        let renewing = {
            let (online, table, key) = (Arc::clone(&online), table.clone(), key.clone());
            tokio::spawn(async move {
                for count in 1_u64.. {
                    tokio::time::sleep(pause).await;
                    match renew(online.as_ref(), &table, &key, count).await {
                        Ok(true) => {}
                        Ok(false) => {
                            tracing::warn!("a lease is lost: its holder was taken for dead");
                            return;
                        }
                        Err(error) => tracing::warn!(%error, "a lease could not be renewed"),
                    }
                }
            })
        };
        Lease { online, table, key, renewing }
    }
}

/// Shows that the holder is alive. False where others have taken it for dead: the lease may be theirs by now, and must
/// not come back.
async fn renew(online: &dyn OnlineStore, table: &str, key: &Bytes, count: u64) -> Result<bool> {
    if online.get(table, std::slice::from_ref(key)).await?.iter().all(Option::is_none) {
        return Ok(false);
    }
    online.put(table, vec![renewal(key, count)]).await.map(|_| true)
}

fn renewal(key: &Bytes, count: u64) -> OnlineRow {
    let count = Bytes::copy_from_slice(&count.to_be_bytes());
    OnlineRow { key: key.clone(), version: count.clone(), value: count, expiry: None }
}

impl Lease {
    /// Fails where others have taken the holder for dead.
    ///
    /// # Errors
    /// `Conflict`, temporary, then; else the store's.
    pub(crate) async fn check(&self) -> Result<()> {
        let row = self.online.get(&self.table, std::slice::from_ref(&self.key)).await?.pop().flatten();
        row.map(drop).ok_or_else(|| {
            Error::new(
                ErrorKind::Conflict,
                "the build of windows was taken over by somebody else: it took too long to answer",
            )
            .temporary()
        })
    }

    /// Lets others have it.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn release(self) -> Result<()> {
        self.renewing.abort();
        self.online.delete(&self.table, std::slice::from_ref(&self.key)).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}
