//! What a read of windows asks of the store.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use headwater_core::OnlineStore;
use headwater_core::online::{OnlineRow, Put};

use super::*;

/// A store that counts the reads of window rows.
#[derive(Debug)]
struct Counted {
    inner: Arc<dyn OnlineStore>,
    reads: AtomicUsize,
}

#[async_trait]
impl OnlineStore for Counted {
    async fn put(&self, table: &str, rows: Vec<OnlineRow>) -> Result<Put> {
        self.inner.put(table, rows).await
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }

    async fn get(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<OnlineRow>>> {
        self.reads.fetch_add(usize::from(table.contains("/g1/")), Ordering::SeqCst);
        self.inner.get(table, keys).await
    }

    async fn get_prefixes(&self, table: &str, prefixes: &[Bytes]) -> Result<Vec<Vec<OnlineRow>>> {
        self.reads.fetch_add(usize::from(table.contains("/g1/")), Ordering::SeqCst);
        self.inner.get_prefixes(table, prefixes).await
    }

    async fn delete(&self, table: &str, keys: &[Bytes]) -> Result<()> {
        self.inner.delete(table, keys).await
    }

    async fn drop_table(&self, table: &str) -> Result<()> {
        self.inner.drop_table(table).await
    }

    async fn tables(&self) -> Result<Vec<String>> {
        self.inner.tables().await
    }
}

#[tokio::test]
async fn the_rows_of_all_entities_and_splits_are_fetched_in_one_call() {
    let batch = [event(None, 1, 10, 1.0), event(None, 2, 20, 1.0)];
    let splits = ["a", "b", "c"].into_iter().flat_map(|split| (0..3).map(move |id| (split, id)));
    let events = splits.map(|(split, id)| event(Some(split), id, 40 + id, 4.0)).collect::<Vec<_>>();
    let mut world = world("one call", windowed(0), &batch);
    fill(&world, &events);
    world.run().await;
    let counted = Arc::new(Counted { inner: Arc::clone(&world.online), reads: AtomicUsize::new(0) });
    world.online = Arc::clone(&counted) as _;
    online(&world.project(), &store::Serving::default(), &[0, 1, 2, 3, 1]).await;
    assert_eq!(counted.reads.load(Ordering::SeqCst), 1);
}
