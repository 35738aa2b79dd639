//! Keys: order, gaps, prefixes, deletion, any bytes, any number.

use std::sync::Arc;

use bytes::Bytes;
use headwater_core::online::OnlineRow;

use super::{OnlineFixture, Opened, keys, row, some};
use crate::Verdict;
use crate::clause::{ensure, same};

const TABLE: &str = "t";

/// More than any usual limit on the parameters of one statement: SQLite's is 32,766, Postgres' 65,535.
const MANY: u32 = 70_000;

fn values(rows: &[Option<OnlineRow>]) -> Vec<Option<String>> {
    rows.iter().map(|row| row.as_ref().map(|row| String::from_utf8_lossy(&row.value).into_owned())).collect()
}

fn keys_of(rows: &[OnlineRow]) -> Vec<Bytes> {
    rows.iter().map(|row| row.key.clone()).collect()
}

pub(super) async fn get_order<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    opened.store.put(TABLE, vec![row("a", "1", "a"), row("b", "1", "b"), row("c", "1", "c")]).await?;
    let read = opened.store.get(TABLE, &keys(["c", "a", "c", "b", "a"])).await?;
    let expected = ["c", "a", "c", "b", "a"].map(some);
    same!(values(&read), expected.to_vec(), "rows of keys out of order and twice");
    same!(opened.store.get(TABLE, &[]).await?, Vec::new(), "rows of no keys");
    Ok(())
}

pub(super) async fn get_missing<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    opened.store.put(TABLE, vec![row("b", "1", "b")]).await?;
    let read = opened.store.get(TABLE, &keys(["a", "b", "c"])).await?;
    same!(values(&read), vec![None, some("b"), None], "rows of keys of which one is there");
    let read = opened.store.get("no such table", &keys(["a", "b"])).await?;
    same!(values(&read), vec![None, None], "rows of a table that does not exist");
    Ok(())
}

pub(super) async fn no_side_effects<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    opened.store.get("read", &keys(["a"])).await?;
    opened.store.get_prefixes("read", &keys(["a", ""])).await?;
    same!(opened.store.tables().await?, Vec::<String>::new(), "the tables after reading one that does not exist");
    opened.store.put(TABLE, vec![row("a", "1", "a")]).await?;
    for _ in 0..2 {
        same!(opened.value(TABLE, "a").await?, some("a"), "a row that was read before");
        let read = opened.store.get_prefixes(TABLE, &keys(["a"])).await?;
        same!(read.concat().len(), 1, "rows under a prefix that was read before");
    }
    Ok(())
}

pub(super) async fn prefixes<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let stored: [&[u8]; 10] = [
        &[1],
        &[1, 0],
        &[1, 0, 0],
        &[1, 0, 255],
        &[1, 255],
        &[1, 255, 255, 7],
        &[2],
        &[255],
        &[255, 255],
        &[255, 255, 0],
    ];
    let rows = stored.iter().rev().map(|key| row(key, "1", "v")).collect();
    opened.store.put(TABLE, rows).await?;
    let asked: [&[u8]; 8] = [&[255, 255], &[1], &[1, 255], &[3], &[1, 0], &[255], &[1], &[1, 0, 0, 0]];
    let prefixes = asked.map(Bytes::copy_from_slice);
    let read = opened.store.get_prefixes(TABLE, &prefixes).await?;
    same!(read.len(), prefixes.len(), "lists for the prefixes");
    for (prefix, rows) in prefixes.iter().zip(&read) {
        let expected = stored.iter().filter(|key| key.starts_with(prefix)).map(|key| Bytes::copy_from_slice(key));
        same!(keys_of(rows), expected.collect::<Vec<_>>(), "keys under {prefix:?}");
    }
    let read = opened.store.get_prefixes("no such table", &prefixes).await?;
    same!(read, vec![Vec::new(); prefixes.len()], "rows of a table that does not exist");
    same!(opened.store.get_prefixes(TABLE, &[]).await?, Vec::<Vec<OnlineRow>>::new(), "rows of no prefixes");
    Ok(())
}

pub(super) async fn empty_prefix<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let stored: [&[u8]; 5] = [&[0], &[0, 0], b"a", &[255], &[255, 255, 255]];
    opened.store.put(TABLE, stored.iter().rev().map(|key| row(key, "1", "v")).collect()).await?;
    opened.store.put("other", vec![row("b", "1", "b")]).await?;
    let read = opened.store.get_prefixes(TABLE, &[Bytes::new()]).await?;
    let expected = stored.map(Bytes::copy_from_slice).to_vec();
    same!(read.iter().map(|rows| keys_of(rows)).collect::<Vec<_>>(), vec![expected], "keys of the whole table");
    Ok(())
}

pub(super) async fn delete<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    opened.store.put(TABLE, vec![row("a", "9", "a"), row("b", "9", "b"), row("ab", "9", "ab")]).await?;
    opened.store.delete(TABLE, &keys(["a", "was never there"])).await?;
    opened.store.delete("no such table", &keys(["a"])).await?;
    let read = opened.store.get(TABLE, &keys(["a", "b", "ab"])).await?;
    same!(values(&read), vec![None, some("b"), some("ab")], "rows after `a` was deleted");
    opened.store.put(TABLE, vec![row("a", "1", "anew")]).await?;
    same!(opened.value(TABLE, "a").await?, some("anew"), "a deleted key, put at a lower version");
    Ok(())
}

pub(super) async fn any_bytes<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let mut stored: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    stored.extend([vec![0, 0], vec![0, 0, 0], vec![b'a', 0], vec![b'a', 0, b'b'], b"A".repeat(2), b"a".repeat(2)]);
    stored.extend([vec![7; 1000], vec![0xc3, 0x28], "ä".as_bytes().to_vec(), b"'; --".to_vec(), b"%_".to_vec()]);
    let rows = stored.iter().map(|key| row(key, key, key)).collect();
    opened.store.put(TABLE, rows).await?;
    let asked = stored.iter().map(|key| Bytes::from(key.clone())).collect::<Vec<_>>();
    for (key, read) in stored.iter().zip(opened.store.get(TABLE, &asked).await?) {
        same!(read, Some(row(key, key, key)), "the row of the key {key:?}");
    }
    Ok(())
}

pub(super) async fn many<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let numbers = || (0..MANY).map(u32::to_be_bytes);
    let put = opened.store.put(TABLE, numbers().map(|n| row(n, "1", n)).collect()).await?;
    same!(put.written, u64::from(MANY), "rows written");
    // Every second one is there.
    let asked = (0..MANY).map(|n| Bytes::from((n * 2).to_be_bytes().to_vec())).collect::<Vec<_>>();
    let read = opened.store.get(TABLE, &asked).await?;
    same!(read.len(), asked.len(), "rows read");
    for (key, row) in asked.iter().zip(&read) {
        let there = key.as_ref() < MANY.to_be_bytes().as_slice();
        ensure!(row.is_some() == there, "the key {key:?} is {}", if there { "missing" } else { "there" });
        ensure!(row.as_ref().is_none_or(|row| row.value == *key), "the key {key:?} has the value of another");
    }
    let prefixes = (0..MANY).step_by(8).map(|n| Bytes::from(n.to_be_bytes().to_vec())).collect::<Vec<_>>();
    let read = opened.store.get_prefixes(TABLE, &prefixes).await?;
    for (prefix, rows) in prefixes.iter().zip(&read) {
        same!(keys_of(rows), vec![prefix.clone()], "rows under the prefix {prefix:?}");
    }
    let gone = numbers().filter(|n| n[3] % 4 != 0).map(|n| Bytes::from(n.to_vec())).collect::<Vec<_>>();
    opened.store.delete(TABLE, &gone).await?;
    let left = opened.store.get_prefixes(TABLE, &[Bytes::new()]).await?.concat();
    same!(left.len(), usize::try_from(MANY)? - gone.len(), "rows left after most were deleted");
    Ok(())
}

pub(super) async fn large_values<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let large = |seed: u64| crate::Random::new(seed).bytes(4 << 20);
    opened.store.put(TABLE, vec![row("a", "1", large(1)), row("b", "1", large(2))]).await?;
    let read = opened.store.get(TABLE, &keys(["b", "a"])).await?;
    for (seed, read) in [2, 1].into_iter().zip(read) {
        ensure!(read.is_some_and(|row| row.value == large(seed)), "a value of 4 MiB came back changed");
    }
    Ok(())
}
