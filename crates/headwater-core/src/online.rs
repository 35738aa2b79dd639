//! Online stores: versioned maps that serve in microseconds.
//!
//! A table maps keys to (version, value, expiry). Newest values, window rows, checkpoints and local leases all live in
//! such tables; the engine owns the encoding of keys, versions and values. The one rule is *the greater version stays*,
//! and it makes every write idempotent: replayed, reordered and concurrent writes end in the same map.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;
use crate::time::Micros;

/// One row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnlineRow {
    /// Its key. Not empty.
    pub key: Bytes,
    /// Its version; byte order is the order of versions.
    pub version: Bytes,
    /// Its value.
    pub value: Bytes,
    /// From this time on the store may forget the row. A row that is asked for after its expiry may be there or not.
    pub expiry: Option<Micros>,
}

/// What became of the rows of a [`OnlineStore::put`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Put {
    /// Rows that are now stored.
    pub written: u64,
    /// Rows that lost to a stored row of a greater version.
    pub stale: u64,
}

/// A versioned map.
#[async_trait]
pub trait OnlineStore: Debug + Send + Sync {
    /// Writes each row whose version is not older than that of the stored row of its key; the others are left out.
    /// Creates the table.
    ///
    /// The caller may give several rows of one key: the greatest version stays, of equal ones the last.
    ///
    /// The implementer guarantees: when this returns, the rows are readable by every reader of the store; on error each
    /// row is written whole or not at all, and repeating the call is safe; concurrent puts from any number of processes
    /// end as if they had been made one after another. Durable after [`OnlineStore::sync`]. Whole tables are apart: a
    /// key in one says nothing of another.
    ///
    /// # Errors
    /// `Unavailable` and `Throttled` are temporary. If the future is dropped each row may or may not be written.
    async fn put(&self, table: &str, rows: Vec<OnlineRow>) -> Result<Put>;

    /// When this returns, all that was put before the call survives a loss of power.
    ///
    /// # Errors
    /// As [`OnlineStore::put`].
    async fn sync(&self) -> Result<()>;

    /// The rows of these keys, in the order of `keys`, `None` where there is none or no such table.
    ///
    /// # Errors
    /// As [`OnlineStore::put`]. No side effects.
    async fn get(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<OnlineRow>>>;

    /// For each prefix, all rows whose key begins with it, in key order. An empty prefix means the whole table.
    ///
    /// # Errors
    /// As [`OnlineStore::get`].
    async fn get_prefixes(&self, table: &str, prefixes: &[Bytes]) -> Result<Vec<Vec<OnlineRow>>>;

    /// Removes the rows of these keys, whatever their version. Missing ones are no error.
    ///
    /// # Errors
    /// As [`OnlineStore::put`].
    async fn delete(&self, table: &str, keys: &[Bytes]) -> Result<()>;

    /// Removes a table and its rows. A missing one is no error. Afterwards a put begins anew, at any version.
    ///
    /// # Errors
    /// As [`OnlineStore::put`].
    async fn drop_table(&self, table: &str) -> Result<()>;

    /// The names of the tables that hold or held rows, sorted.
    ///
    /// # Errors
    /// As [`OnlineStore::get`].
    async fn tables(&self) -> Result<Vec<String>>;
}
