//! The online store.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_core::online::{OnlineRow, OnlineStore, Put};
use headwater_core::options::Config;
use headwater_core::{Clock, Error, Result};
use rusqlite::Transaction;

use crate::config::SqliteConfig;
use crate::database::{Database, lock};
use crate::table::Table;

/// Reads of at most this many keys run on the calling task: a point read takes less time than a hop to another thread.
const INLINE_READS: usize = 256;

/// Rows that one `sync` looks at for expired ones.
const RECLAIM_ROWS: u32 = 2_000;

/// An online store in one SQLite file, which any number of processes may share.
#[derive(Debug)]
pub struct SqliteOnlineStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    database: Database,
    clock: Arc<dyn Clock>,
    /// Where the search for expired rows goes on: the table and the last key that was looked at.
    reclaimed: Mutex<(String, Vec<u8>)>,
}

impl SqliteOnlineStore {
    /// A store in the file that the options name. The file is opened by the first call that needs it.
    ///
    /// # Errors
    /// `Invalid` where `path` cannot be a file's.
    pub fn open(options: &SqliteConfig, config: &Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let path = options.file(config)?;
        let database = Database::new(path, options.cache_bytes, Duration::from_millis(options.busy_timeout_ms));
        Ok(Self { inner: Arc::new(Inner { database, clock, reclaimed: Mutex::default() }) })
    }

    /// Runs `work` on a thread that may wait: for the disk, and for other processes.
    async fn on_thread<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        blocking(move || work(&inner)).await
    }
}

impl Inner {
    fn get(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<OnlineRow>>> {
        let table = Table::new(table);
        let rows = self.database.read(|connection| {
            table.if_there(connection, || {
                // One snapshot for all keys, and one lock.
                let snapshot = (keys.len() > 1).then(|| connection.unchecked_transaction()).transpose()?;
                let rows = table.get(connection, keys)?;
                snapshot.map_or(Ok(()), Transaction::commit)?;
                Ok(rows)
            })
        })?;
        Ok(rows.flatten().unwrap_or_else(|| vec![None; keys.len()]))
    }

    fn get_prefixes(&self, table: &str, prefixes: &[Bytes]) -> Result<Vec<Vec<OnlineRow>>> {
        let table = Table::new(table);
        let rows = self.database.read(|connection| {
            table.if_there(connection, || {
                let snapshot = (prefixes.len() > 1).then(|| connection.unchecked_transaction()).transpose()?;
                let rows = prefixes
                    .iter()
                    .map(|prefix| table.get_prefix(connection, prefix))
                    .collect::<rusqlite::Result<Vec<_>>>()?;
                snapshot.map_or(Ok(()), Transaction::commit)?;
                Ok(rows)
            })
        })?;
        Ok(rows.flatten().unwrap_or_else(|| vec![Vec::new(); prefixes.len()]))
    }

    /// Makes all commits durable, and forgets some expired rows on the way.
    fn sync(&self) -> Result<()> {
        if !self.database.path().exists() {
            return Ok(());
        }
        let mut reclaimed = lock(&self.reclaimed);
        let now = self.clock.now();
        let next = self.database.write(|transaction| {
            let tables = Table::all(transaction)?;
            let (name, after) = &*reclaimed;
            let Some(table) = tables.iter().find(|table| *table >= name).or(tables.first()) else {
                return Ok((String::new(), Vec::new()));
            };
            let after = if table == name { after.as_slice() } else { &[] };
            Ok(match Table::new(table).reclaim(transaction, after, now, RECLAIM_ROWS)? {
                Some(last) => (table.clone(), last),
                // The next table; no name lies between this one and itself followed by a NUL.
                None => (format!("{table}\0"), Vec::new()),
            })
        })?;
        *reclaimed = next;
        drop(reclaimed);
        self.database.flush()
    }
}

#[async_trait]
impl OnlineStore for SqliteOnlineStore {
    async fn put(&self, table: &str, rows: Vec<OnlineRow>) -> Result<Put> {
        let table = Table::new(table);
        self.on_thread(move |inner| {
            inner.database.write(|transaction| {
                table.create(transaction)?;
                table.upsert(transaction, &rows)
            })
        })
        .await
    }

    async fn sync(&self) -> Result<()> {
        self.on_thread(Inner::sync).await
    }

    async fn get(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<OnlineRow>>> {
        if keys.len() <= INLINE_READS {
            return self.inner.get(table, keys);
        }
        let (table, keys) = (table.to_owned(), keys.to_vec());
        self.on_thread(move |inner| inner.get(&table, &keys)).await
    }

    async fn get_prefixes(&self, table: &str, prefixes: &[Bytes]) -> Result<Vec<Vec<OnlineRow>>> {
        if prefixes.len() <= INLINE_READS && prefixes.iter().all(|prefix| !prefix.is_empty()) {
            return self.inner.get_prefixes(table, prefixes);
        }
        let (table, prefixes) = (table.to_owned(), prefixes.to_vec());
        self.on_thread(move |inner| inner.get_prefixes(&table, &prefixes)).await
    }

    async fn delete(&self, table: &str, keys: &[Bytes]) -> Result<()> {
        let (table, keys) = (Table::new(table), keys.to_vec());
        self.on_thread(move |inner| {
            if !inner.database.path().exists() {
                return Ok(());
            }
            inner.database.write(
                |transaction| {
                    if table.exists(transaction)? { table.delete(transaction, &keys) } else { Ok(()) }
                },
            )
        })
        .await
    }

    async fn drop_table(&self, table: &str) -> Result<()> {
        let table = Table::new(table);
        self.on_thread(move |inner| {
            if !inner.database.path().exists() {
                return Ok(());
            }
            inner.database.write(|transaction| table.drop(transaction))
        })
        .await
    }

    async fn tables(&self) -> Result<Vec<String>> {
        Ok(self.inner.database.read(Table::all)?.unwrap_or_default())
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime
            .spawn_blocking(work)
            .await
            .map_err(|error| Error::unexpected("a call to sqlite did not finish").with_source(error))?,
        // Another executor: its thread waits.
        Err(_) => work(),
    }
}

#[cfg(test)]
mod tests;
