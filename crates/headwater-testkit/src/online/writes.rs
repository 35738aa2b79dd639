//! When rows are readable, when they are durable, and what concurrency and repetition leave behind.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use headwater_core::online::OnlineRow;

use super::{OnlineFixture, Opened, row, some, value};
use crate::clause::{ensure, same};
use crate::rows::SECOND;
use crate::{Random, Verdict};
use headwater_core::Clock;

const TABLE: &str = "t";

pub(super) async fn readable<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let other = opened.another().await?;
    for round in 0..20 {
        let expected = format!("round {round}");
        opened.store.put(TABLE, vec![row("a", [round], &expected)]).await?;
        same!(opened.value(TABLE, "a").await?, some(&expected), "`a` for the one who put it");
        same!(value(other.as_ref(), TABLE, "a").await?, some(&expected), "`a` for another reader of the storage");
    }
    Ok(())
}

pub(super) async fn survives<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let rows = (0_u32..1000).map(|n| row(n.to_be_bytes(), "1", n.to_string())).collect::<Vec<_>>();
    opened.store.put(TABLE, rows.clone()).await?;
    opened.store.put("other", vec![row("a", "1", "a")]).await?;
    opened.store.put("dropped", vec![row("a", "1", "a")]).await?;
    opened.store.drop_table("dropped").await?;
    opened.store.sync().await?;
    let opened = opened.reopen().await?;
    let read = opened.store.get_prefixes(TABLE, &[Bytes::new()]).await?.concat();
    same!(read.len(), rows.len(), "rows after the storage was opened again");
    ensure!(read == rows, "rows have changed while the storage was closed");
    same!(opened.value("other", "a").await?, some("a"), "a row of another table");
    same!(opened.value("dropped", "a").await?, None, "a row of a dropped table");
    // The rule holds across the restart, too.
    opened.store.put(TABLE, vec![row(7_u32.to_be_bytes(), "", "older")]).await?;
    let read = opened.store.get(TABLE, &[Bytes::from(7_u32.to_be_bytes().to_vec())]).await?;
    same!(read, vec![Some(row(7_u32.to_be_bytes(), "1", "7"))], "a row after an older version was put");
    Ok(())
}

pub(super) async fn concurrent<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    const WRITERS: u8 = 8;
    const ROUNDS: u8 = 25;
    const KEYS: u8 = 10;
    let opened = Opened::fresh(fixture).await?;
    let start = Arc::new(tokio::sync::Barrier::new(usize::from(WRITERS)));
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let start = Arc::clone(&start);
        // Half of them share a handle, the others open the storage for themselves.
        let store = if writer % 2 == 0 { Arc::clone(&opened.store) } else { opened.another().await? };
        tasks.push(tokio::spawn(async move {
            let mut random = Random::new(u64::from(writer));
            // In any order, but for the greatest version, which they all put at once.
            let mut rounds = (0..ROUNDS).collect::<Vec<_>>();
            for index in (1..rounds.len() - 1).rev() {
                rounds.swap(index, random.below(index + 1));
            }
            for round in rounds {
                if round == ROUNDS - 1 {
                    start.wait().await;
                }
                let rows = (0..KEYS).map(|key| row([key], [round, writer], [round, writer, key])).collect();
                store.put(TABLE, rows).await?;
            }
            Ok::<_, headwater_core::Error>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let read = opened.store.get_prefixes(TABLE, &[Bytes::new()]).await?.concat();
    let (round, writer) = (ROUNDS - 1, WRITERS - 1);
    let expected = (0..KEYS).map(|key| row([key], [round, writer], [round, writer, key])).collect::<Vec<_>>();
    same!(read, expected, "rows after {WRITERS} writers put {ROUNDS} versions each");
    Ok(())
}

pub(super) async fn repeated<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let rows = vec![row("a", "1", "a1"), row("b", "2", "b2"), row("a", "2", "a2"), row("c", "1", "c1")];
    opened.store.put(TABLE, rows.clone()).await?;
    let once = opened.store.get_prefixes(TABLE, &[Bytes::new()]).await?;
    for _ in 0..3 {
        opened.store.put(TABLE, rows.clone()).await?;
    }
    same!(opened.store.get_prefixes(TABLE, &[Bytes::new()]).await?, once, "rows after the same call again");
    Ok(())
}

pub(super) async fn dropped<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let version_of = |n: u8| (0..100_u8).map(|key| row([key], [n], [n, key])).collect::<Vec<_>>();
    for n in 1..50 {
        // Polled once and dropped. What was begun may still be written, in the background too.
        if let Some(put) = opened.store.put(TABLE, version_of(n)).now_or_never() {
            put?;
        }
    }
    for row in opened.store.get_prefixes(TABLE, &[Bytes::new()]).await?.concat() {
        let whole = [row.version.as_ref(), row.key.as_ref()].concat();
        ensure!(row.value == whole, "a row was written in part: {row:?}");
    }
    opened.store.put(TABLE, version_of(60)).await?;
    let read = opened.store.get_prefixes(TABLE, &[Bytes::new()]).await?.concat();
    same!(read, version_of(60), "rows after a put that was not dropped");
    Ok(())
}

pub(super) async fn expiry<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let now = opened.clock.now();
    let expiring = |key: &str, at: i64| OnlineRow { expiry: Some(at), ..row(key, "1", key) };
    let rows =
        vec![expiring("soon", now + 10 * SECOND), expiring("late", now + 3600 * SECOND), row("never", "1", "never")];
    opened.store.put(TABLE, rows).await?;
    for past in [0, 9, 3599] {
        opened.clock.set(now + past * SECOND);
        // Another write and a reopened store are moments at which expired rows are swept.
        opened.store.put(TABLE, vec![row("other", [u8::try_from(past % 256)?], "other")]).await?;
        opened.store.sync().await?;
        let other = opened.another().await?;
        for store in [opened.store.as_ref(), other.as_ref()] {
            for (key, until) in [("soon", 10), ("late", 3600), ("never", i64::MAX)] {
                if past < until {
                    same!(value(store, TABLE, key).await?, some(key), "`{key}` after {past} s");
                }
            }
        }
    }
    opened.clock.set(now + 4000 * SECOND);
    same!(opened.value(TABLE, "never").await?, some("never"), "a row without expiry");
    // A row that may have been forgotten can be put again.
    opened.store.put(TABLE, vec![OnlineRow { expiry: Some(now + 9000 * SECOND), ..row("soon", "2", "again") }]).await?;
    same!(opened.value(TABLE, "soon").await?, some("again"), "an expired row that was put again");
    Ok(())
}
