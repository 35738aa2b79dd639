//! Publishing: chaining, conflicts, ends, metadata, durability.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::FutureExt;
use headwater_core::offline::{Append, LogEnd, LogRange};
use headwater_core::{Position, SplitId};

use super::{
    OfflineFixture, Opened, a_log, append, everything, expected, log_rows, position, publish, range, through,
    with_log_columns,
};
use crate::Verdict;
use crate::clause::{applicable, ensure, same};
use crate::rows::{Scanned, ids_of, table_rows};

pub(super) async fn chain<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let (store, split) = (opened.store.as_ref(), SplitId::from("a"));
    same!(append(store, &split, 5, 10).await?, Append::Conflict, "a first piece that does not begin at the start");
    publish(store, &split, 0, 3).await?;
    for (after, through) in [(0, 3), (0, 5), (1, 5), (2, 5), (4, 8), (10, 12)] {
        let outcome = append(store, &split, after, through).await?;
        same!(outcome, Append::Conflict, "the piece ({after}, {through}] where the end is 3");
    }
    publish(store, &split, 3, 8).await?;
    same!(append(store, &split, 3, 9).await?, Append::Conflict, "the piece (3, 9] where the end is 8");
    publish(store, &split, 8, 9).await?;
    same!(everything(store).await?, expected(&split, 9)?, "rows");
    Ok(())
}

pub(super) async fn conflict<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let (store, split) = (opened.store.as_ref(), SplitId::from("a"));
    publish(store, &split, 0, 3).await?;
    let ends = store.ends(&a_log()).await?;
    let metadata = BTreeMap::from([("watermark".to_owned(), "loser".to_owned())]);
    for (after, through) in [(0, 3), (0, 7), (2, 7)] {
        let rows = log_rows(&split, after + 1..=through)?;
        let outcome = store.append(&a_log(), &split, rows, range(after, through), metadata.clone()).await?;
        same!(outcome, Append::Conflict, "the piece ({after}, {through}] where the end is 3");
        same!(store.ends(&a_log()).await?, ends, "ends after a conflict");
        same!(everything(store).await?, expected(&split, 3)?, "rows after a conflict");
    }
    let opened = opened.reopen().await?;
    same!(opened.store.ends(&a_log()).await?, ends, "ends after a conflict, opened again");
    same!(everything(opened.store.as_ref()).await?, expected(&split, 3)?, "rows after a conflict, opened again");
    Ok(())
}

pub(super) async fn empty_piece<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let (store, split) = (opened.store.as_ref(), SplitId::from("a"));
    let nothing = || log_rows(&split, []);
    let metadata = BTreeMap::from([("watermark".to_owned(), "7".to_owned())]);
    let outcome = store.append(&a_log(), &split, nothing()?, range(0, 4), metadata.clone()).await?;
    same!(outcome, Append::Published, "an empty first piece");
    let end = LogEnd { through: position(4), metadata };
    same!(store.ends(&a_log()).await?, BTreeMap::from([(split.clone(), end)]), "ends after an empty piece");
    same!(everything(store).await?, Vec::<Scanned>::new(), "rows after an empty piece");
    same!(append(store, &split, 0, 2).await?, Append::Conflict, "a piece under the empty one's predecessor");
    publish(store, &split, 4, 6).await?;
    store.append(&a_log(), &split, nothing()?, range(6, 9), BTreeMap::new()).await?;
    let opened = opened.reopen().await?;
    let ends = through(opened.store.as_ref()).await?;
    same!(ends, BTreeMap::from([(split.clone(), position(9))]), "ends, opened again");
    let rows = everything(opened.store.as_ref()).await?;
    same!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), vec![5, 6], "rows between two empty pieces");
    Ok(())
}

pub(super) async fn metadata<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let split = SplitId::from("a");
    let mut end = 0;
    for metadata in [
        BTreeMap::new(),
        BTreeMap::from([("watermark".to_owned(), "1700000000000000".to_owned())]),
        BTreeMap::from([
            ("empty".to_owned(), String::new()),
            ("odd = key\n".to_owned(), "größe \"quoted\" {json: 1}\n\u{0}".to_owned()),
            ("long".to_owned(), "x".repeat(10_000)),
        ]),
        BTreeMap::new(),
    ] {
        let rows = log_rows(&split, [end + 1])?;
        opened.store.append(&a_log(), &split, rows, range(end, end + 1), metadata.clone()).await?;
        end += 1;
        let expected = BTreeMap::from([(split.clone(), LogEnd { through: position(end), metadata })]);
        same!(opened.store.ends(&a_log()).await?, expected, "the end with the last piece's metadata");
        let other = opened.another().await?;
        same!(other.ends(&a_log()).await?, expected, "the end with the last piece's metadata, opened again");
    }
    Ok(())
}

pub(super) async fn ends<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let store = opened.store.as_ref();
    same!(through(store).await?, BTreeMap::new(), "ends of a log that does not exist");
    let (a, b) = (SplitId::from("a"), SplitId::from("b"));
    publish(store, &a, 0, 3).await?;
    publish(store, &b, 0, 300).await?;
    publish(store, &a, 3, 20).await?;
    same!(through(store).await?, BTreeMap::from([(a, position(20)), (b, position(300))]), "ends of two splits");
    Ok(())
}

/// Split ids that are no plain file names.
fn odd_splits() -> Vec<SplitId> {
    let mut splits =
        ["a", "A", "a/b", "a%2Fb", "..", ".hidden", "a.parquet", "a b", "größe", "日本", "shardId-000", "%"]
            .map(SplitId::from)
            .to_vec();
    splits
        .extend([vec![0], vec![0, 0, 0, 7], vec![0xff, 0xfe], b"a\\b:c*?".to_vec(), vec![b'x'; 80]].map(SplitId::new));
    splits
}

pub(super) async fn split_ids<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let splits = odd_splits();
    for (split, end) in splits.iter().zip(2..) {
        publish(opened.store.as_ref(), split, 0, 2).await?;
        publish(opened.store.as_ref(), split, 2, end + 1).await?;
    }
    let opened = opened.reopen().await?;
    let store = opened.store.as_ref();
    let ends = splits.iter().cloned().zip((2..).map(|end| position(end + 1))).collect::<BTreeMap<_, _>>();
    same!(through(store).await?, ends, "ends");
    let mut all = Vec::new();
    for (split, end) in splits.iter().zip(2..) {
        all.extend(expected(split, end + 1)?);
    }
    all.sort();
    same!(everything(store).await?, all, "rows with their splits");
    Ok(())
}

pub(super) async fn positions<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let split = SplitId::from("a");
    // As long as Kinesis' (sequence and sub-sequence number), and of unequal length.
    let positions: Vec<Position> =
        [vec![0], vec![0, 0], vec![0, 0xff], vec![b'%'], vec![b'/'; 3], vec![0x7f; 40], vec![0x80], vec![0xff; 9]]
            .map(Position::new)
            .to_vec();
    let mut after = Position::START;
    for (id, pair) in (0..).zip(positions.chunks(2)) {
        let rows = with_log_columns(&table_rows([2 * id, 2 * id + 1])?, &split, pair)?;
        let Some(last) = pair.last().cloned() else { continue };
        let piece = LogRange { after: after.clone(), through: last.clone() };
        let outcome = opened.store.append(&a_log(), &split, rows, piece, BTreeMap::new()).await?;
        same!(outcome, Append::Published, "the piece after {after:?}");
        after = last;
    }
    let opened = opened.reopen().await?;
    same!(through(opened.store.as_ref()).await?, BTreeMap::from([(split.clone(), after)]), "the end");
    let rows = positions.into_iter().zip(0..).map(|(position, id)| Scanned { split: split.clone(), position, id });
    same!(everything(opened.store.as_ref()).await?, rows.collect::<Vec<_>>(), "rows with their positions");
    Ok(())
}

pub(super) async fn writers<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let split = SplitId::from("a");
    let mut tasks = Vec::new();
    for writer in 0..4_u64 {
        let store = if writer == 0 { Arc::clone(&opened.store) } else { opened.another().await? };
        let split = split.clone();
        // Each publishes pieces of its own length behind the end that it sees, as a worker does that wrongly believes
        // the split to be its own.
        tasks.push(tokio::spawn(async move {
            let (mut end, mut published) = (0, Vec::new());
            for _ in 0..1000 {
                if end >= 60 {
                    break;
                }
                if append(store.as_ref(), &split, end, end + 1 + writer).await? == Append::Published {
                    published.push((end, end + 1 + writer));
                }
                let ends = through(store.as_ref()).await?;
                end = ends.get(&split).and_then(Position::to_u64).unwrap_or_default();
            }
            Ok::<_, crate::Stop>(published)
        }));
    }
    let mut published = Vec::new();
    for task in tasks {
        published.extend(task.await??);
    }
    published.sort_unstable();
    let chain = published.windows(2).all(|pair| matches!(pair, [one, two] if one.1 == two.0));
    ensure!(chain, "what four writers were told is published does not chain: {published:?}");
    let ends = through(opened.store.as_ref()).await?;
    let end = ends.get(&split).and_then(Position::to_u64).unwrap_or_default();
    same!(published.last().map(|last| last.1), Some(end), "the end, by the last piece of four writers");
    same!(everything(opened.store.as_ref()).await?, expected(&split, end)?, "rows of four writers");
    Ok(())
}

pub(super) async fn durable<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let mut opened = Opened::fresh(fixture).await?;
    let split = SplitId::from("a");
    for end in 0..3 {
        publish(opened.store.as_ref(), &split, end * 10, end * 10 + 10).await?;
        let other = opened.another().await?;
        same!(everything(other.as_ref()).await?, expected(&split, end * 10 + 10)?, "rows seen by another process");
        opened = opened.reopen().await?;
        same!(everything(opened.store.as_ref()).await?, expected(&split, end * 10 + 10)?, "rows, opened again");
    }
    same!(through(opened.store.as_ref()).await?, BTreeMap::from([(split, position(30))]), "the end, opened again");
    Ok(())
}

pub(super) async fn plain<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let store = opened.store.as_ref();
    let mut all = BTreeSet::new();
    for (split, end) in [("a", 7_u64), ("b/c", 12)] {
        let split = SplitId::from(split);
        publish(store, &split, 0, 5).await?;
        let rows = log_rows(&split, [])?;
        store.append(&a_log(), &split, rows, range(5, 6), BTreeMap::new()).await?;
        publish(store, &split, 6, end).await?;
        for id in (1..=5).chain(7..=end) {
            all.insert((split.to_string(), i64::try_from(id)?));
        }
        same!(plain_rows(&opened).await?, all.iter().cloned().collect::<Vec<_>>(), "rows that a plain reader counts");
    }
    store.compact(&a_log()).await?;
    same!(plain_rows(&opened).await?, all.into_iter().collect::<Vec<_>>(), "rows of a plain reader when compacted");
    Ok(())
}

/// Split and id of every row that a plain reader finds, sorted.
async fn plain_rows<F: OfflineFixture>(opened: &Opened<F>) -> Verdict<Vec<(String, i64)>> {
    let mut rows = Vec::new();
    for batch in applicable(opened.fixture.plain(&opened.storage, &a_log()).await)? {
        let Some(splits) = batch.column_by_name(headwater_core::offline::LOG_SPLIT) else {
            ensure!(false, "a plain reader finds no column `_split`");
            continue;
        };
        let splits = arrow::compute::cast(splits, &arrow::datatypes::DataType::Utf8)?;
        let splits = arrow::array::AsArray::as_string::<i32>(&splits);
        for (split, id) in splits.iter().zip(ids_of(&batch)?) {
            rows.push((split.unwrap_or_default().to_owned(), id));
        }
    }
    rows.sort();
    Ok(rows)
}

pub(super) async fn dropped<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let split = SplitId::from("a");
    let mut end = 0;
    for step in 1..30 {
        let through = end + 1 + step % 4;
        // Polled a few times and dropped, at whatever point it has reached then.
        let store = opened.store.as_ref();
        let rows = log_rows(&split, end + 1..=through)?;
        let log = a_log();
        let mut append = store.append(&log, &split, rows, range(end, through), BTreeMap::new());
        for _ in 0..step % 5 {
            if (&mut append).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(append);
        // What was begun may still be finished by a thread in the background. Whoever goes on asks for the end and
        // settles it by publishing behind it; one of the two wins.
        for attempt in 0.. {
            ensure!(attempt < 100, "a piece behind the end is refused again and again");
            let ends = super::through(store).await?;
            let there = ends.get(&split).and_then(Position::to_u64).unwrap_or_default();
            ensure!(there == end || there == through, "the end is {there}, and nobody published that");
            if super::append(store, &split, there, there + 2).await? == Append::Published {
                end = there + 2;
                break;
            }
        }
        same!(everything(store).await?, expected(&split, end)?, "rows after a dropped append");
    }
    Ok(())
}
