use futures::{StreamExt, TryStreamExt};
use headwater_core::batch::ScanRequest;
use headwater_core::offline::{Append, OfflineStore};

use super::*;
use crate::testing::{Place, append, decode, end, expected, log_id, read};

fn places() -> [Place; 2] {
    [Place::folder(), Place::objects()]
}

/// Two splits of four pieces each, one of them without rows.
async fn fill(place: &Place) -> Vec<crate::testing::Row> {
    let store = place.store();
    for split in ["a", "b"] {
        for positions in [1..=5, 6..=6, 7..=19, 20..=30] {
            assert_eq!(append(&store, split, positions).await.unwrap(), Append::Published);
        }
    }
    [expected("a", 1..=30), expected("b", 1..=30)].concat()
}

#[tokio::test]
async fn rows_positions_and_ends_stay_what_they_were() {
    for place in places() {
        let all = fill(&place).await;
        let store = place.store();
        assert_eq!(store.compact(&log_id()).await.unwrap(), Compaction { before: 8, after: 2 });
        assert_eq!(read(&store).await.unwrap(), all);
        assert_eq!(place.plain().await, all);
        assert_eq!(place.leftovers().await, Vec::<String>::new());
        assert_eq!(end(&store, "a").await, Some((30, "30".into())));
        assert_eq!(store.compact(&log_id()).await.unwrap(), Compaction { before: 2, after: 2 });

        // Another process goes on, and merges what was merged before.
        let store = place.store();
        assert_eq!(append(&store, "a", 31..=40).await.unwrap(), Append::Published);
        assert_eq!(store.compact(&log_id()).await.unwrap(), Compaction { before: 3, after: 2 });
        let all = [expected("a", 1..=40), expected("b", 1..=30)].concat();
        assert_eq!(read(&store).await.unwrap(), all);
        assert_eq!(place.plain().await, all);
    }
}

#[tokio::test]
async fn a_writer_that_was_paused_cannot_publish_under_a_merged_name() {
    for place in places() {
        fill(&place).await;
        let store = place.store();
        store.compact(&log_id()).await.unwrap();
        let log = crate::log::folder(&log_id()).unwrap();
        for after in ["", "0000000000000005", "0000000000000006", "0000000000000013"] {
            // What is left of an append after it has looked for the end.
            let path = format!("{log}/a/p{after}.parquet");
            assert!(!place.storage().create(&path, Bytes::from_static(b"late")).await.unwrap(), "{path}");
        }
        assert_eq!(append(&store, "a", 7..=9).await.unwrap(), Append::Conflict);
    }
}

#[tokio::test]
async fn a_compaction_that_ends_anywhere_takes_nothing_and_is_finished_by_the_next_call() {
    for origin in places() {
        let all = fill(&origin).await;
        for steps in 0.. {
            let place = origin.copy();
            let outcome = place.store().crash_after(steps).compact(&log_id()).await;

            if let Place::Folder(_) = place {
                // While another holds the lock nothing is repaired, and still every row is read once.
                let storage = place.storage();
                let _lock = storage.lock("driver_stats/3f9c").await.unwrap().unwrap();
                assert_eq!(read(&place.store()).await.unwrap(), all, "after {steps} steps");
            }
            let plain = place.plain().await;
            assert!(all.iter().all(|row| plain.contains(row)), "a plain reader misses rows after {steps} steps");

            // Any call finishes it.
            let store = place.store();
            match steps % 5 {
                0 => drop(store.ends(&log_id()).await.unwrap()),
                1 => drop(read(&store).await.unwrap()),
                2 => drop(store.logs().await.unwrap()),
                3 => assert_eq!(append(&store, "a", 20..=30).await.unwrap(), Append::Conflict),
                _ => drop(store.compact(&log_id()).await.unwrap()),
            }
            assert_eq!(place.plain().await, all, "after {steps} steps and a call");
            assert_eq!(read(&store).await.unwrap(), all);
            assert_eq!(end(&store, "b").await, Some((30, "30".into())));

            store.compact(&log_id()).await.unwrap();
            assert_eq!(place.plain().await, all);
            assert_eq!(place.leftovers().await, Vec::<String>::new(), "after {steps} steps");
            if outcome.is_ok() {
                assert!(steps > 10, "only {steps} steps were tried");
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_was_listed_before_a_compaction_is_read_after_it() {
    for place in places() {
        let all = fill(&place).await;
        let source = place.store().log(&log_id());
        let request = ScanRequest::default();
        let fragments = source.fragments(&request).await.unwrap();
        // One reader has begun.
        let mut begun = source.read(&fragments[0], &request).await.unwrap();
        let store = place.store();
        store.compact(&log_id()).await.unwrap();
        append(&store, "a", 31..=40).await.unwrap();
        store.compact(&log_id()).await.unwrap();

        let first = begun.next().await.unwrap().unwrap();
        assert_eq!(decode(&first.rows), all[..4]);
        let mut rows = Vec::new();
        for fragment in &fragments {
            let batches: Vec<_> = source.read(fragment, &request).await.unwrap().try_collect().await.unwrap();
            let read: u64 = batches.iter().map(|batch| batch.rows.num_rows() as u64).sum();
            assert_eq!(fragment.rows, Some(read));
            rows.extend(batches.iter().flat_map(|batch| decode(&batch.rows)));
        }
        assert_eq!(rows, all);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_each_row_once_while_others_append_and_compact() {
    for place in places() {
        let writing = place.store();
        append(&writing, "a", 1..=1).await.unwrap();
        let writer = tokio::spawn(async move {
            for n in 2..=60 {
                assert_eq!(append(&writing, "a", n..=n).await.unwrap(), Append::Published);
            }
        });
        let compacting = [place.store(), place.store()].map(|store| {
            tokio::spawn(async move {
                for _ in 0..15 {
                    match store.compact(&log_id()).await {
                        Ok(_) => {}
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
                    }
                    tokio::task::yield_now().await;
                }
            })
        });
        let reader = place.store();
        let mut seen = 0;
        while !writer.is_finished() {
            let rows = read(&reader).await.unwrap();
            assert!(rows.len() >= seen);
            seen = rows.len();
            assert_eq!(rows, expected("a", 1..=seen as u64));
        }
        writer.await.unwrap();
        for task in compacting {
            task.await.unwrap();
        }
        assert_eq!(read(&reader).await.unwrap(), expected("a", 1..=60));
        assert_eq!(place.plain().await, expected("a", 1..=60));
    }
}

#[tokio::test]
async fn a_journal_that_is_out_of_date_changes_nothing() {
    let place = Place::folder();
    let all = fill(&place).await;
    // A compaction that was broken off when it had written its journal.
    let mut steps = 0;
    while !place.path().join("driver_stats/3f9c").join(JOURNAL).exists() {
        assert!(place.store().crash_after(steps).compact(&log_id()).await.is_err());
        steps += 1;
    }
    let folder = place.path().join("driver_stats/3f9c");
    let journal = std::fs::read(folder.join(JOURNAL)).unwrap();
    place.store().compact(&log_id()).await.unwrap();
    // A paused process writes it again, and its merged file, too late.
    std::fs::write(folder.join(JOURNAL), &journal).unwrap();
    assert_eq!(read(&place.store()).await.unwrap(), all);
    assert_eq!(place.plain().await, all);
    assert!(!folder.join(JOURNAL).exists());

    for (text, kind) in [("{", ErrorKind::Corrupt), ("{\"format\": 2}", ErrorKind::FormatVersion)] {
        std::fs::write(folder.join(JOURNAL), text).unwrap();
        assert_eq!(place.store().ends(&log_id()).await.unwrap_err().kind(), kind);
    }
}

#[test]
fn only_neighbours_that_make_one_small_file_are_grouped() {
    let groups_of = |sizes: &[u64]| plan(sizes.iter().copied());
    assert_eq!(groups_of(&[1, 1, 1]), std::slice::from_ref(&(0..3)));
    assert!(groups_of(&[1]).is_empty());
    assert!(groups_of(&[]).is_empty());
    assert_eq!(groups_of(&[1, 1, LARGE_BYTES, 1, 1]), [0..2, 3..5]);
    assert!(groups_of(&[LARGE_BYTES, 1, LARGE_BYTES]).is_empty());
    let third = MERGED_BYTES / 3;
    assert_eq!(groups_of(&[third; 7]), [0..3, 3..6]);
}
