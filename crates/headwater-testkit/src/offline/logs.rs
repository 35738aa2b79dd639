//! Logs beside one another.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_core::SplitId;
use headwater_core::batch::ScanRequest;
use headwater_core::offline::{Append, LogId};

use super::{OfflineFixture, Opened, append, log_rows, range};
use crate::Verdict;
use crate::clause::same;
use crate::rows::scan;

fn logs() -> Vec<LogId> {
    let log = |view: &str, generation: &str| LogId { view: view.into(), generation: generation.into() };
    vec![log("_dead_letters", "1"), log("a", "1"), log("a", "2"), log("a1", "1"), log("b", "1")]
}

/// Gives log `n` of [`logs`] `n + 1` rows.
async fn fill<F: OfflineFixture>(opened: &Opened<F>) -> Verdict {
    let split = SplitId::from("s");
    for (log, end) in logs().iter().zip(1..) {
        let rows = log_rows(&split, 1..=end)?;
        let outcome = opened.store.append(log, &split, rows, range(0, end), BTreeMap::new()).await?;
        same!(outcome, Append::Published, "the first piece of `{log}`");
    }
    Ok(())
}

async fn rows<F: OfflineFixture>(opened: &Opened<F>) -> Verdict<Vec<usize>> {
    let mut counts = Vec::new();
    for log in logs() {
        counts.push(scan(opened.store.log(&log).as_ref(), &ScanRequest::default()).await?.len());
    }
    Ok(counts)
}

pub(super) async fn listed<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    same!(opened.store.logs().await?, Vec::<LogId>::new(), "the logs of an empty store");
    fill(&opened).await?;
    let opened = opened.reopen().await?;
    let mut found = opened.store.logs().await?;
    found.sort();
    same!(found, logs(), "the logs");
    Ok(())
}

pub(super) async fn apart<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    fill(&opened).await?;
    same!(rows(&opened).await?, vec![1, 2, 3, 4, 5], "rows of the logs");
    for (log, end) in logs().iter().zip(1..) {
        let ends = opened.store.ends(log).await?.into_values().map(|end| end.through).collect::<Vec<_>>();
        same!(ends, vec![super::position(end)], "the end of `{log}`");
    }
    Ok(())
}

pub(super) async fn remove<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let store = opened.store.as_ref();
    store.remove(&super::a_log()).await?;
    fill(&opened).await?;
    let all = logs();
    store.remove(&all[1]).await?;
    store.remove(&all[1]).await?;
    same!(rows(&opened).await?, vec![1, 0, 3, 4, 5], "rows after the log `{}` was removed", all[1]);
    same!(store.ends(&all[1]).await?, BTreeMap::new(), "ends of a removed log");
    same!(store.logs().await?.contains(&all[1]), false, "whether a removed log is listed");
    // It can begin anew.
    let split = SplitId::from("s");
    let outcome = store.append(&all[1], &split, log_rows(&split, [1])?, range(0, 1), BTreeMap::new()).await?;
    same!(outcome, Append::Published, "the first piece after a removal");
    same!(append(store, &split, 0, 2).await?, Append::Published, "a piece of another log");
    same!(rows(&opened).await?, vec![1, 1, 3, 4, 5], "rows after the log began anew");
    Ok(())
}
