//! Window rows that the store forgets when their time has come.

use async_trait::async_trait;
use bytes::Bytes;
use headwater_core::OnlineStore;
use headwater_core::online::{OnlineRow, Put};
use headwater_core::time::ManualClock;

use super::*;
use crate::windows::epoch;

/// A store that has forgotten every window row whose time has come, before anything is asked of it.
#[derive(Debug)]
pub(super) struct Forgetful {
    inner: Arc<dyn OnlineStore>,
    clock: Arc<ManualClock>,
    /// What is forgotten has to be what was looked at.
    alone: tokio::sync::Mutex<()>,
}

impl Forgetful {
    /// The store of a world, by the world's clock.
    pub(super) fn of(world: &World) -> Arc<dyn OnlineStore> {
        let (inner, clock) = (Arc::clone(&world.online), Arc::clone(&world.clock));
        Arc::new(Self { inner, clock, alone: tokio::sync::Mutex::default() })
    }

    async fn forget(&self, table: &str) -> Result<()> {
        if !table.contains("/g1/") {
            return Ok(());
        }
        let now = self.clock.now();
        let rows = self.inner.get_prefixes(table, &[Bytes::new()]).await?.into_iter().flatten();
        let over = rows.filter(|row| row.expiry.is_some_and(|expiry| expiry <= now));
        let over = over.map(|row| row.key).collect::<Vec<_>>();
        if over.is_empty() { Ok(()) } else { self.inner.delete(table, &over).await }
    }
}

#[async_trait]
impl OnlineStore for Forgetful {
    async fn put(&self, table: &str, rows: Vec<OnlineRow>) -> Result<Put> {
        let _alone = self.alone.lock().await;
        self.forget(table).await?;
        self.inner.put(table, rows).await
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }

    async fn get(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<OnlineRow>>> {
        let _alone = self.alone.lock().await;
        self.forget(table).await?;
        self.inner.get(table, keys).await
    }

    async fn get_prefixes(&self, table: &str, prefixes: &[Bytes]) -> Result<Vec<Vec<OnlineRow>>> {
        let _alone = self.alone.lock().await;
        self.forget(table).await?;
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
async fn a_row_is_forgotten_when_no_window_reaches_it_any_more() {
    // A window that slides in steps of its length reaches an event at the end of a step for almost twice that.
    let mut view = windowed(2);
    let mut windows = view.windows.as_deref().cloned().unwrap();
    windows.features.retain(|feature| feature.window == Some(Window { length: 20 * SECOND, hop: 20 * SECOND }));
    view.features = windows.features.iter().map(|feature| feature.field.clone()).collect();
    view.windows = Some(Arc::new(windows));
    let mut world = world("forgotten", view, &[]);
    let inner = Arc::clone(&world.online);
    world.online = Forgetful::of(&world);
    world.clock.set(41 * SECOND);
    let events = [event(Some("a"), 1, 40, 4.0)];
    fill(&world, &events);
    world.run().await;
    let count = async || {
        let table = epoch::table("test", "values", &epochs(&world).await.serving.unwrap().0);
        let rows = inner.get_prefixes(&table, &[Bytes::new()]).await.unwrap().remove(0);
        rows.iter().filter(|row| epoch::is_window_row(row)).count()
    };
    compare_at(&world, (&[], &events), &[80 * SECOND - 1], &[], "while it counts").await;
    assert_eq!(count().await, 1);
    compare_at(&world, (&[], &events), &[80 * SECOND], &[], "from then on").await;
    assert_eq!(count().await, 0);
}
