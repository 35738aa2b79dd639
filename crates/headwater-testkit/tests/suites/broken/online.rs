//! Broken online stores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_core::memory::MemoryOnlineStore;
use headwater_core::online::{OnlineRow, Put};
use headwater_core::plugin::OpenContext;
use headwater_core::{Clock, Error, OnlineStore, Result};
use headwater_testkit::online::{OnlineFixture, suite};

use super::{Broken, broken};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A row replaces one that is newer by one.
    GuardOffByOne,
    /// Of several rows of one key in a call the last one stays, whatever its version.
    LastOfBatchStays,
    EqualVersionIsStale,
    FirstOfEqualsStays,
    SignedVersions,
    CountsStaleAsWritten,
    LosesExpiry,
    RefusesLongTableNames,
    FoldsSlashes,
    ListsUnsorted,
    DropOfMissingFails,
    DropKeepsVersions,
    AnswersRepeatedKeysOnce,
    ShortAnswerForMissingTable,
    ReadCreatesTable,
    /// The end of a prefix's range is the prefix with its last byte plus one, which 255 has not.
    PrefixRangeOverflows,
    EmptyPrefixEndsAt255,
    DeleteKeepsVersions,
    CutsLongKeys,
    RefusesManyKeys,
    CutsLargeValues,
    CachesWhatItHasRead,
    LosesARowOnRestart,
    /// Looks at the stored version, does something else, and writes.
    LosesUpdates,
    RetryDeletes,
    WritesInTwoSteps,
    ExpiresEarly,
}

use Fault::*;

const FAULTS: [(Fault, &str); 27] = [
    (GuardOffByOne, "online::greater-version-stays"),
    (LastOfBatchStays, "online::greater-version-stays-inside-a-batch"),
    (EqualVersionIsStale, "online::equal-version-replaces"),
    (FirstOfEqualsStays, "online::last-of-equal-versions-stays-inside-a-batch"),
    (SignedVersions, "online::versions-compare-as-bytes"),
    (CountsStaleAsWritten, "online::put-counts"),
    (LosesExpiry, "online::row-comes-back-whole"),
    (RefusesLongTableNames, "online::put-creates-the-table"),
    (FoldsSlashes, "online::tables-are-apart"),
    (ListsUnsorted, "online::tables-are-listed-sorted"),
    (DropOfMissingFails, "online::drop-table-removes-its-rows"),
    (DropKeepsVersions, "online::dropped-table-begins-anew"),
    (AnswersRepeatedKeysOnce, "online::get-keeps-the-order-of-keys"),
    (ShortAnswerForMissingTable, "online::get-gives-none-for-missing"),
    (ReadCreatesTable, "online::reads-have-no-side-effects"),
    (PrefixRangeOverflows, "online::prefixes-in-key-order"),
    (EmptyPrefixEndsAt255, "online::empty-prefix-is-the-whole-table"),
    (DeleteKeepsVersions, "online::delete-whatever-version"),
    (CutsLongKeys, "online::keys-are-any-bytes"),
    (RefusesManyKeys, "online::many-keys-in-one-call"),
    (CutsLargeValues, "online::large-values"),
    (CachesWhatItHasRead, "online::readable-when-put-returns"),
    (LosesARowOnRestart, "online::survives-reopen-after-sync"),
    (LosesUpdates, "online::concurrent-puts-end-as-one-after-another"),
    (RetryDeletes, "online::repeating-a-put-is-safe"),
    (WritesInTwoSteps, "online::dropped-put-leaves-whole-rows"),
    (ExpiresEarly, "online::expiry-keeps-a-row-until-then"),
];

pub(super) fn all() -> Vec<Broken> {
    FAULTS.into_iter().map(|(fault, clause)| broken(fault, clause, move || suite(Fixture(fault)))).collect()
}

struct Fixture(Fault);

/// What the handles on one storage share.
#[derive(Debug, Default)]
struct Shared {
    inner: MemoryOnlineStore,
    handles: AtomicUsize,
    first: Mutex<Option<(String, Bytes)>>,
    /// Versions of rows that are gone.
    graves: Mutex<BTreeMap<(String, Bytes), Bytes>>,
    names: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl OnlineFixture for Fixture {
    type Storage = Arc<Shared>;

    async fn create(&self) -> Result<Arc<Shared>> {
        Ok(Arc::default())
    }

    async fn open(&self, shared: &Arc<Shared>, context: &OpenContext) -> Result<Arc<dyn OnlineStore>> {
        if shared.handles.fetch_add(1, Ordering::SeqCst) == 0 && self.0 == LosesARowOnRestart {
            let first = shared.first.lock().unwrap().clone();
            if let Some((table, key)) = first {
                shared.inner.delete(&table, &[key]).await?;
            }
        }
        let clock = Arc::clone(&context.clock);
        let (cache, last) = Default::default();
        Ok(Arc::new(Store { fault: self.0, shared: Arc::clone(shared), clock, cache, last }))
    }
}

#[derive(Debug)]
struct Store {
    fault: Fault,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    cache: Mutex<BTreeMap<(String, Bytes), Option<OnlineRow>>>,
    last: Mutex<Vec<OnlineRow>>,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.handles.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Store {
    fn table(&self, table: &str) -> String {
        self.shared.names.lock().unwrap().insert(table.to_owned());
        if self.fault == FoldsSlashes { table.replace('/', "_") } else { table.to_owned() }
    }

    fn key(&self, key: &Bytes) -> Bytes {
        if self.fault == CutsLongKeys { key.slice(..key.len().min(255)) } else { key.clone() }
    }

    /// Stores a row, whatever is there.
    async fn force(&self, table: &str, row: OnlineRow) -> Result<()> {
        self.shared.inner.delete(table, std::slice::from_ref(&row.key)).await?;
        self.shared.inner.put(table, vec![row]).await?;
        Ok(())
    }

    /// Whether the fault keeps or drops a row against the rule.
    async fn overruled(&self, table: &str, row: &OnlineRow, before: &[OnlineRow]) -> Result<Option<bool>> {
        let stored = self.shared.inner.get(table, std::slice::from_ref(&row.key)).await?.remove(0);
        let earlier = before.iter().rev().find(|earlier| earlier.key == row.key);
        let version = |row: &OnlineRow| row.version.clone();
        Ok(match (self.fault, stored.as_ref().map(version)) {
            (GuardOffByOne, Some(stored)) => match (&stored[..], &row.version[..]) {
                ([stored], [new]) if new.checked_add(1) == Some(*stored) && before.len() < 2 && earlier.is_none() => {
                    Some(true)
                }
                _ => None,
            },
            (LastOfBatchStays, _) if earlier.is_some() => Some(true),
            (FirstOfEqualsStays, _) if earlier.is_some_and(|earlier| earlier.version == row.version) => Some(false),
            (EqualVersionIsStale, Some(stored)) if earlier.is_none() && stored == row.version => Some(false),
            (SignedVersions, Some(stored)) => {
                let signed = |bytes: &[u8]| bytes.iter().map(|byte| byte.cast_signed()).collect::<Vec<_>>();
                let stays = signed(&stored) <= signed(&row.version);
                // Where both orders say the same, the store decides, since looking first loses updates.
                (stays != (stored <= row.version)).then_some(stays)
            }
            (DropKeepsVersions | DeleteKeepsVersions, _) => {
                let graves = self.shared.graves.lock().unwrap();
                let grave = graves.get(&(table.to_owned(), row.key.clone()));
                grave.is_some_and(|version| *version > row.version).then_some(false)
            }
            _ => None,
        })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl OnlineStore for Store {
    async fn put(&self, table: &str, rows: Vec<OnlineRow>) -> Result<Put> {
        if self.fault == RefusesLongTableNames && table.len() > 100 {
            return Err(Error::invalid("the table's name is too long"));
        }
        let table = &self.table(table);
        let inner = &self.shared.inner;
        if let Some(row) = rows.first() {
            self.shared.first.lock().unwrap().get_or_insert((table.clone(), row.key.clone()));
        }
        if self.fault == RetryDeletes {
            let again = std::mem::replace(&mut *self.last.lock().unwrap(), rows.clone()) == rows;
            if again && rows.len() > 1 {
                inner.delete(table, std::slice::from_ref(&rows[0].key)).await?;
                return Ok(Put::default());
            }
        }
        if self.fault == WritesInTwoSteps {
            let torn =
                rows.iter().cloned().map(|row| OnlineRow { value: row.value.slice(..row.value.len() / 2), ..row });
            inner.put(table, torn.collect()).await?;
            tokio::task::yield_now().await;
        }
        if self.fault == LosesUpdates && rows.len() == 10 && rows[0].version.first() == Some(&24) {
            let keys = rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>();
            let stored = inner.get(table, &keys).await?;
            // The greater versions are written first.
            let writer = rows[0].version.get(1).copied().unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(20 * u64::from(8_u8.saturating_sub(writer)))).await;
            for (row, stored) in rows.into_iter().zip(stored) {
                if stored.is_none_or(|stored| stored.version <= row.version) {
                    self.force(table, row).await?;
                }
            }
            return Ok(Put::default());
        }
        if rows.len() > 1000 {
            // No fault shows in so many rows alone.
            return inner.put(table, rows).await;
        }
        let mut put = Put::default();
        for (index, row) in rows.iter().enumerate() {
            let mut row = row.clone();
            row.key = self.key(&row.key);
            if self.fault == LosesExpiry {
                row.expiry = None;
            }
            if self.fault == CutsLargeValues {
                row.value.truncate(1 << 20);
            }
            self.cache.lock().unwrap().remove(&(table.clone(), row.key.clone()));
            let overruled = self.overruled(table, &row, &rows[..index]).await?;
            // Counts are right, whatever happens.
            let stored = inner.get(table, std::slice::from_ref(&row.key)).await?.remove(0);
            let stale = stored.is_some_and(|stored| stored.version > row.version);
            if stale && self.fault != CountsStaleAsWritten {
                put.stale += 1
            } else {
                put.written += 1
            }
            match overruled {
                Some(true) => self.force(table, row).await?,
                Some(false) => {}
                None => {
                    inner.put(table, vec![row]).await?;
                }
            }
        }
        Ok(put)
    }

    async fn sync(&self) -> Result<()> {
        self.shared.inner.sync().await
    }

    async fn get(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<OnlineRow>>> {
        if self.fault == RefusesManyKeys && keys.len() > 32_766 {
            return Err(Error::invalid("too many keys"));
        }
        let tables = self.shared.inner.tables().await?;
        let known = tables.contains(&table.to_owned());
        if self.fault == ShortAnswerForMissingTable && !known {
            return Ok(Vec::new());
        }
        let table = &self.table(table);
        let keys = keys.iter().map(|key| self.key(key)).collect::<Vec<_>>();
        let mut rows = self.shared.inner.get(table, &keys).await?;
        for (index, (key, row)) in keys.iter().zip(&mut rows).enumerate() {
            if self.fault == AnswersRepeatedKeysOnce && keys.len() < 100 && keys[..index].contains(key) {
                *row = None;
            }
            if self.fault == CachesWhatItHasRead {
                let mut cache = self.cache.lock().unwrap();
                *row = cache.entry((table.clone(), key.clone())).or_insert_with(|| row.clone()).clone();
            }
            if self.fault == ExpiresEarly {
                let late = self.clock.now() + 5_000_000;
                *row = row.take().filter(|row| row.expiry.is_none_or(|expiry| expiry > late));
            }
        }
        Ok(rows)
    }

    async fn get_prefixes(&self, table: &str, prefixes: &[Bytes]) -> Result<Vec<Vec<OnlineRow>>> {
        if self.fault == ReadCreatesTable {
            self.shared.inner.put(table, Vec::new()).await?;
        }
        let mut found = self.shared.inner.get_prefixes(&self.table(table), prefixes).await?;
        for (prefix, rows) in prefixes.iter().zip(&mut found) {
            match self.fault {
                PrefixRangeOverflows if prefix.last() == Some(&255) => rows.clear(),
                EmptyPrefixEndsAt255 if prefix.is_empty() => rows.retain(|row| row.key.first() != Some(&255)),
                _ => {}
            }
        }
        Ok(found)
    }

    async fn delete(&self, table: &str, keys: &[Bytes]) -> Result<()> {
        let table = &self.table(table);
        for row in self.shared.inner.get(table, keys).await?.into_iter().flatten() {
            self.cache.lock().unwrap().remove(&(table.clone(), row.key.clone()));
            if self.fault == DeleteKeepsVersions {
                self.shared.graves.lock().unwrap().insert((table.clone(), row.key), row.version);
            }
        }
        self.shared.inner.delete(table, keys).await
    }

    async fn drop_table(&self, table: &str) -> Result<()> {
        let table = &self.table(table);
        if self.fault == DropOfMissingFails && !self.shared.inner.tables().await?.contains(table) {
            return Err(Error::not_found("no such table"));
        }
        for row in self.shared.inner.get_prefixes(table, &[Bytes::new()]).await?.concat() {
            self.cache.lock().unwrap().remove(&(table.clone(), row.key.clone()));
            if self.fault == DropKeepsVersions {
                self.shared.graves.lock().unwrap().insert((table.clone(), row.key), row.version);
            }
        }
        self.shared.inner.drop_table(table).await
    }

    async fn tables(&self) -> Result<Vec<String>> {
        let mut tables = self.shared.inner.tables().await?;
        if self.fault == FoldsSlashes {
            let names = self.shared.names.lock().unwrap();
            tables = names.iter().filter(|name| tables.contains(&name.replace('/', "_"))).cloned().collect();
        }
        if self.fault == ListsUnsorted {
            tables.reverse();
        }
        Ok(tables)
    }
}
