//! The greater version stays.

use std::sync::Arc;

use bytes::Bytes;
use headwater_core::online::{OnlineRow, Put};

use super::{OnlineFixture, Opened, row, some};
use crate::Verdict;
use crate::clause::same;

const TABLE: &str = "project/view/generation";

pub(super) async fn greater_version_stays<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    opened.store.put(TABLE, vec![row("a", "2", "second"), row("b", "2", "second")]).await?;
    opened.store.put(TABLE, vec![row("a", "1", "first"), row("b", "3", "third")]).await?;
    same!(opened.value(TABLE, "a").await?, some("second"), "`a` after an older version was put");
    same!(opened.value(TABLE, "b").await?, some("third"), "`b` after a newer version was put");
    Ok(())
}

pub(super) async fn inside_a_batch<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let rows = vec![row("a", "1", "first"), row("a", "3", "third"), row("b", "9", "ninth"), row("a", "2", "second")];
    opened.store.put(TABLE, rows).await?;
    same!(opened.value(TABLE, "a").await?, some("third"), "`a` after three versions in one call, the greatest amid");
    same!(opened.value(TABLE, "b").await?, some("ninth"), "`b` beside them");
    Ok(())
}

pub(super) async fn equal_version_replaces<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    opened.store.put(TABLE, vec![row("a", "1", "before")]).await?;
    opened.store.put(TABLE, vec![row("a", "1", "after")]).await?;
    same!(opened.value(TABLE, "a").await?, some("after"), "`a` after its version was put again");
    Ok(())
}

pub(super) async fn last_of_equals<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let rows = vec![row("a", "1", "before"), row("b", "5", "b"), row("a", "1", "after")];
    opened.store.put(TABLE, rows).await?;
    same!(opened.value(TABLE, "a").await?, some("after"), "`a` after two equal versions in one call");
    Ok(())
}

pub(super) async fn compare_as_bytes<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    // Each is greater than the one before: no signed bytes, no text collation, no trailing zeros dropped.
    let ascending: [&[u8]; 8] = [b"", &[0], &[0, 0], &[0, 1], b"B", b"a", &[0x7f, 0xff], &[0x80]];
    for (index, pair) in ascending.windows(2).enumerate() {
        let [lower, greater] = pair else { continue };
        let (up, down) = (format!("up {index}"), format!("down {index}"));
        opened.store.put(TABLE, vec![row(&up, lower, "lower"), row(&down, greater, "greater")]).await?;
        opened.store.put(TABLE, vec![row(&up, greater, "greater")]).await?;
        opened.store.put(TABLE, vec![row(&down, lower, "lower")]).await?;
        same!(opened.value(TABLE, &up).await?, some("greater"), "version {greater:?} put after {lower:?}");
        same!(opened.value(TABLE, &down).await?, some("greater"), "version {lower:?} put after {greater:?}");
    }
    Ok(())
}

pub(super) async fn put_counts<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let put = opened.store.put(TABLE, vec![row("a", "2", "a"), row("b", "2", "b"), row("c", "2", "c")]).await?;
    same!(put, Put { written: 3, stale: 0 }, "three new rows");
    let put = opened.store.put(TABLE, vec![row("a", "1", "a"), row("b", "2", "b"), row("c", "3", "c")]).await?;
    same!(put, Put { written: 2, stale: 1 }, "an older, an equal and a newer row");
    let put = opened.store.put(TABLE, Vec::new()).await?;
    same!(put, Put::default(), "no rows");
    Ok(())
}

pub(super) async fn row_comes_back_whole<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let far = crate::rows::time_of(1_000_000);
    let with_expiry = OnlineRow { expiry: Some(far), ..row("expires", [0, 1, 255], [7, 0, 0]) };
    let empty = row("empty", [0], []);
    opened.store.put(TABLE, vec![with_expiry.clone(), empty.clone()]).await?;
    let read = opened.store.get(TABLE, &[with_expiry.key.clone(), empty.key.clone()]).await?;
    same!(read, vec![Some(with_expiry.clone()), Some(empty.clone())], "rows read by key");
    let read = opened.store.get_prefixes(TABLE, &[Bytes::from("e")]).await?;
    same!(read, vec![vec![empty.clone(), with_expiry]], "rows read by prefix");
    // A newer version replaces all of a row, its expiry too.
    let newer = row("expires", [1], "newer");
    opened.store.put(TABLE, vec![newer.clone()]).await?;
    same!(
        opened.store.get(TABLE, std::slice::from_ref(&newer.key)).await?,
        vec![Some(newer)],
        "a row that was replaced"
    );
    Ok(())
}
