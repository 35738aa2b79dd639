//! Compaction changes how rows lie and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use headwater_core::SplitId;
use headwater_core::batch::ScanRequest;
use headwater_core::offline::{Append, OfflineStore};

use super::{OfflineFixture, Opened, a_log, append, everything, expected, log_rows, position, publish, range};
use crate::Verdict;
use crate::clause::{ensure, same};
use crate::rows::{Scanned, read};

async fn pieces(store: &dyn OfflineStore, split: &SplitId, from: u64, to: u64) -> Verdict {
    for after in from..to {
        publish(store, split, after, after + 1).await?;
    }
    Ok(())
}

pub(super) async fn keeps<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let (a, b) = (SplitId::from("a"), SplitId::from("b/%\u{0}"));
    let store = opened.store.as_ref();
    store.compact(&a_log()).await?;
    pieces(store, &a, 0, 30).await?;
    publish(store, &b, 0, 7).await?;
    let metadata = BTreeMap::from([("watermark".to_owned(), "30".to_owned())]);
    store.append(&a_log(), &a, log_rows(&a, [])?, range(30, 35), metadata).await?;
    let (rows, ends) = (everything(store).await?, store.ends(&a_log()).await?);
    let schema = store.log(&a_log()).schema().await?;
    for round in 0..3 {
        store.compact(&a_log()).await?;
        same!(everything(store).await?, rows, "rows after compaction {round}");
        same!(store.ends(&a_log()).await?, ends, "ends after compaction {round}");
        same!(store.log(&a_log()).schema().await?, schema, "the schema after compaction {round}");
    }
    same!(store.logs().await?, vec![a_log()], "the logs after compactions");
    let opened = opened.reopen().await?;
    same!(everything(opened.store.as_ref()).await?, rows, "rows after a compaction, opened again");
    same!(opened.store.ends(&a_log()).await?, ends, "ends after a compaction, opened again");
    // Writing goes on where it was.
    publish(opened.store.as_ref(), &a, 35, 36).await?;
    opened.store.compact(&a_log()).await?;
    same!(everything(opened.store.as_ref()).await?.len(), rows.len() + 1, "rows after one more");
    Ok(())
}

pub(super) async fn merges<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let store = opened.store.as_ref();
    pieces(store, &SplitId::from("a"), 0, 40).await?;
    let fragments = store.log(&a_log()).fragments(&ScanRequest::default()).await?.len();
    let done = store.compact(&a_log()).await?;
    same!(done.before, 40, "pieces before");
    ensure!(done.after < 20, "of 40 pieces of one row {} are left", done.after);
    let left = store.log(&a_log()).fragments(&ScanRequest::default()).await?.len();
    ensure!(left < fragments, "a scan has {left} fragments after a compaction and {fragments} before");
    Ok(())
}

pub(super) async fn readers<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let (store, split) = (opened.store.as_ref(), SplitId::from("a"));
    pieces(store, &split, 0, 20).await?;
    let log = store.log(&a_log());
    let request = ScanRequest::default();
    let listed = log.fragments(&request).await?;
    store.compact(&a_log()).await?;
    let mut rows: Vec<Scanned> = Vec::new();
    for fragment in &listed {
        match read(log.as_ref(), fragment, &request).await {
            Ok(read) => rows.extend(read),
            // A reader that is told to list again has lost nothing.
            Err(_) if !retryable(log.as_ref(), fragment, &request).await => {
                ensure!(false, "a fragment that was listed before a compaction cannot be read after it: {fragment:?}");
            }
            Err(_) => {
                rows = everything(store).await?;
                break;
            }
        }
    }
    rows.sort();
    same!(rows, expected(&split, 20)?, "rows of fragments that were listed before a compaction");
    Ok(())
}

/// Whether reading a fragment fails with an error that calls for another try.
async fn retryable(
    log: &dyn headwater_core::BatchSource,
    fragment: &headwater_core::batch::Fragment,
    request: &ScanRequest,
) -> bool {
    use futures::TryStreamExt;
    match log.read(fragment, request).await {
        Ok(stream) => stream.try_collect::<Vec<_>>().await.is_err_and(|error| error.is_retryable()),
        Err(error) => error.is_retryable(),
    }
}

pub(super) async fn writers<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let split = SplitId::from("a");
    pieces(opened.store.as_ref(), &split, 0, 10).await?;
    let compactor = opened.another().await?;
    let (done, mut compactions) = tokio::sync::watch::channel(0_u32);
    let compacting = tokio::spawn(async move {
        // Until the writer, who holds the other end, has finished.
        while !done.is_closed() {
            compactor.compact(&a_log()).await?;
            done.send_modify(|done| *done += 1);
            tokio::task::yield_now().await;
        }
        Ok::<_, headwater_core::Error>(())
    });
    for after in (10..60).step_by(10) {
        compactions.changed().await?;
        for after in after..after + 10 {
            publish(opened.store.as_ref(), &split, after, after + 1).await?;
            // So that they fall into the midst of compactions.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
    drop(compactions);
    compacting.await??;
    same!(everything(opened.store.as_ref()).await?, expected(&split, 60)?, "rows written beside compactions");
    same!(super::through(opened.store.as_ref()).await?, BTreeMap::from([(split, position(60))]), "the end");
    Ok(())
}

pub(super) async fn names_stay_taken<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let split = SplitId::from("a");
    pieces(opened.store.as_ref(), &split, 0, 12).await?;
    let paused = opened.another().await?;
    opened.store.compact(&a_log()).await?;
    // A writer that was paused before the compaction, and one that never knew of any piece.
    let newcomer = opened.another().await?;
    for store in [paused, newcomer] {
        for after in 0..12 {
            let outcome = append(store.as_ref(), &split, after, after + 2).await?;
            same!(outcome, Append::Conflict, "a piece after {after}, whose name a compaction has merged");
        }
    }
    same!(everything(opened.store.as_ref()).await?, expected(&split, 12)?, "rows");
    Ok(())
}

pub(super) async fn dropped<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let mut opened = Opened::fresh(fixture).await?;
    let split = SplitId::from("a");
    let mut end = 0;
    for polls in 0..20 {
        pieces(opened.store.as_ref(), &split, end, end + 4).await?;
        end += 4;
        {
            let log = a_log();
            let mut compaction = opened.store.compact(&log);
            for _ in 0..polls {
                if (&mut compaction).now_or_never().is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        if polls % 3 == 0 {
            opened = opened.reopen().await?;
        }
        same!(everything(opened.store.as_ref()).await?, expected(&split, end)?, "rows after a dropped compaction");
    }
    opened.store.compact(&a_log()).await?;
    same!(everything(opened.store.as_ref()).await?, expected(&split, end)?, "rows after a whole compaction");
    Ok(())
}
