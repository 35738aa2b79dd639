//! The reference of [`OnlineStore`].

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use super::lock;
use crate::error::Result;
use crate::online::{OnlineRow, OnlineStore, Put};

type Table = BTreeMap<Bytes, OnlineRow>;

/// An online store in memory. Clones share their rows. It never forgets an expired row.
#[derive(Clone, Default)]
pub struct MemoryOnlineStore {
    tables: Arc<Mutex<BTreeMap<String, Table>>>,
}

impl MemoryOnlineStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Debug for MemoryOnlineStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryOnlineStore").field("tables", &lock(&self.tables).len()).finish()
    }
}

#[async_trait]
impl OnlineStore for MemoryOnlineStore {
    async fn put(&self, table: &str, rows: Vec<OnlineRow>) -> Result<Put> {
        let mut tables = lock(&self.tables);
        let table = tables.entry(table.to_owned()).or_default();
        let mut put = Put::default();
        for row in rows {
            match table.get(&row.key) {
                Some(stored) if stored.version > row.version => put.stale += 1,
                _ => {
                    put.written += 1;
                    table.insert(row.key.clone(), row);
                }
            }
        }
        Ok(put)
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }

    async fn get(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<OnlineRow>>> {
        let tables = lock(&self.tables);
        let table = tables.get(table);
        Ok(keys.iter().map(|key| table.and_then(|table| table.get(key)).cloned()).collect())
    }

    async fn get_prefixes(&self, table: &str, prefixes: &[Bytes]) -> Result<Vec<Vec<OnlineRow>>> {
        let tables = lock(&self.tables);
        let Some(table) = tables.get(table) else { return Ok(vec![Vec::new(); prefixes.len()]) };
        let rows_of = |prefix: &Bytes| {
            table
                .range((Bound::Included(prefix.clone()), Bound::Unbounded))
                .take_while(|(key, _)| key.starts_with(prefix))
                .map(|(_, row)| row.clone())
                .collect()
        };
        Ok(prefixes.iter().map(rows_of).collect())
    }

    async fn delete(&self, table: &str, keys: &[Bytes]) -> Result<()> {
        if let Some(table) = lock(&self.tables).get_mut(table) {
            for key in keys {
                table.remove(key);
            }
        }
        Ok(())
    }

    async fn drop_table(&self, table: &str) -> Result<()> {
        lock(&self.tables).remove(table);
        Ok(())
    }

    async fn tables(&self) -> Result<Vec<String>> {
        Ok(lock(&self.tables).keys().cloned().collect())
    }
}
