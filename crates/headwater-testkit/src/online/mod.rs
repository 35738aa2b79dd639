//! The suite for [`OnlineStore`].

mod keys;
mod random;
mod tables;
mod versions;
mod writes;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_core::online::{OnlineRow, OnlineStore};
use headwater_core::plugin::OpenContext;
use headwater_core::time::ManualClock;
use headwater_core::{Clock, Result};

use crate::clause::suite;
use crate::{Clause, Verdict, context};

/// How to make an online store.
#[async_trait]
pub trait OnlineFixture: Send + Sync + 'static {
    /// What outlives a store: a folder, a database. Dropping it removes it.
    type Storage: Send + Sync + 'static;

    /// Fresh, empty storage that nobody else has.
    async fn create(&self) -> Result<Self::Storage>;

    /// Opens the storage as a process would that finds it. Called again and again, also while an earlier store is
    /// still open, as by a second process.
    async fn open(&self, storage: &Self::Storage, context: &OpenContext) -> Result<Arc<dyn OnlineStore>>;
}

/// The clauses of [`OnlineStore`]'s contract.
pub fn suite(fixture: impl OnlineFixture) -> Vec<Clause> {
    suite! { fixture;
        "online::greater-version-stays" versions::greater_version_stays,
            "Writes each row whose version is not older than that of the stored row of its key; the others are left out.";
        "online::greater-version-stays-inside-a-batch" versions::inside_a_batch,
            "The caller may give several rows of one key: the greatest version stays,";
        "online::equal-version-replaces" versions::equal_version_replaces,
            "Writes each row whose version is not older than that of the stored row of its key;";
        "online::last-of-equal-versions-stays-inside-a-batch" versions::last_of_equals,
            "of equal ones the last.";
        "online::versions-compare-as-bytes" versions::compare_as_bytes,
            "byte order is the order of versions.";
        "online::put-counts" versions::put_counts,
            "Rows that lost to a stored row of a greater version.";
        "online::row-comes-back-whole" versions::row_comes_back_whole,
            "each row is written whole or not at all";
        "online::put-creates-the-table" tables::put_creates,
            "Creates the table.";
        "online::tables-are-apart" tables::apart,
            "Whole tables are apart: a key in one says nothing of another.";
        "online::tables-are-listed-sorted" tables::listed,
            "The names of the tables that hold or held rows, sorted.";
        "online::drop-table-removes-its-rows" tables::drop_removes,
            "Removes a table and its rows. A missing one is no error.";
        "online::dropped-table-begins-anew" tables::begins_anew,
            "Afterwards a put begins anew, at any version.";
        "online::get-keeps-the-order-of-keys" keys::get_order,
            "The rows of these keys, in the order of `keys`,";
        "online::get-gives-none-for-missing" keys::get_missing,
            "`None` where there is none or no such table.";
        "online::reads-have-no-side-effects" keys::no_side_effects,
            "No side effects.";
        "online::prefixes-in-key-order" keys::prefixes,
            "For each prefix, all rows whose key begins with it, in key order.";
        "online::empty-prefix-is-the-whole-table" keys::empty_prefix,
            "An empty prefix means the whole table.";
        "online::delete-whatever-version" keys::delete,
            "Removes the rows of these keys, whatever their version. Missing ones are no error.";
        "online::keys-are-any-bytes" keys::any_bytes,
            "A table maps keys to (version, value, expiry).";
        "online::many-keys-in-one-call" keys::many,
            "The rows of these keys, in the order of `keys`,";
        "online::large-values" keys::large_values,
            "A table maps keys to (version, value, expiry).";
        "online::readable-when-put-returns" writes::readable,
            "when this returns, the rows are readable by every reader of the store;";
        "online::survives-reopen-after-sync" writes::survives,
            "When this returns, all that was put before the call survives a loss of power.";
        "online::concurrent-puts-end-as-one-after-another" writes::concurrent,
            "concurrent puts from any number of processes end as if they had been made one after another.";
        "online::repeating-a-put-is-safe" writes::repeated,
            "repeating the call is safe;";
        "online::dropped-put-leaves-whole-rows" writes::dropped,
            "If the future is dropped each row may or may not be written.";
        "online::expiry-keeps-a-row-until-then" writes::expiry,
            "From this time on the store may forget the row.";
        "online::agrees-with-the-reference" random::agrees,
            "The one rule is *the greater version stays*, and it makes every write idempotent:";
    }
}

/// Storage with one store opened on it, and the clock that all its stores read.
pub(crate) struct Opened<F: OnlineFixture> {
    fixture: Arc<F>,
    storage: F::Storage,
    clock: Arc<ManualClock>,
    store: Arc<dyn OnlineStore>,
}

impl<F: OnlineFixture> Opened<F> {
    async fn fresh(fixture: Arc<F>) -> Verdict<Self> {
        let clock = Arc::new(ManualClock::new(crate::rows::time_of(0)));
        let storage = fixture.create().await?;
        let store = fixture.open(&storage, &context(Arc::clone(&clock) as Arc<dyn Clock>)).await?;
        Ok(Self { fixture, storage, clock, store })
    }

    /// Opens the storage once more.
    async fn another(&self) -> Verdict<Arc<dyn OnlineStore>> {
        let context = context(Arc::clone(&self.clock) as Arc<dyn Clock>);
        Ok(self.fixture.open(&self.storage, &context).await?)
    }

    /// Leaves the storage without a store and opens it again.
    async fn reopen(self) -> Verdict<Self> {
        let Self { fixture, storage, clock, store } = self;
        drop(store);
        let store = fixture.open(&storage, &context(Arc::clone(&clock) as Arc<dyn Clock>)).await?;
        Ok(Self { fixture, storage, clock, store })
    }

    /// The value of a key.
    async fn value(&self, table: &str, key: &str) -> Verdict<Option<String>> {
        value(self.store.as_ref(), table, key).await
    }
}

/// The value of a key, as text.
async fn value(store: &dyn OnlineStore, table: &str, key: &str) -> Verdict<Option<String>> {
    let rows = store.get(table, &[Bytes::copy_from_slice(key.as_bytes())]).await?;
    let row = rows.into_iter().next().flatten();
    Ok(row.map(|row| String::from_utf8_lossy(&row.value).into_owned()))
}

/// A row without expiry.
fn row(key: impl AsRef<[u8]>, version: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> OnlineRow {
    OnlineRow {
        key: Bytes::copy_from_slice(key.as_ref()),
        version: Bytes::copy_from_slice(version.as_ref()),
        value: Bytes::copy_from_slice(value.as_ref()),
        expiry: None,
    }
}

fn some(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn keys<'a>(keys: impl IntoIterator<Item = &'a str>) -> Vec<Bytes> {
    keys.into_iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect()
}
