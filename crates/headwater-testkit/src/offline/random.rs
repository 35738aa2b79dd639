//! Random operations, on the store under test and on the reference.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_core::SplitId;
use headwater_core::memory::MemoryOfflineStore;
use headwater_core::offline::OfflineStore;

use super::{OfflineFixture, Opened, a_log, everything, log_rows, range};
use crate::clause::same;
use crate::{Random, Verdict, seeds};

pub(super) async fn agrees<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let splits = ["a", "A", "b/c", "%00", "."].map(SplitId::from);
    for seed in seeds(6) {
        let mut opened = Opened::fresh(Arc::clone(&fixture)).await?;
        let reference = MemoryOfflineStore::new();
        let mut random = Random::new(seed);
        for step in 0..40 {
            let of = format!("seed {seed}, step {step}");
            match random.below(20) {
                0..14 => {
                    let split = &splits[random.below(splits.len())];
                    let ends = reference.ends(&a_log()).await?;
                    let end = ends.get(split).and_then(|end| end.through.to_u64()).unwrap_or_default();
                    // Mostly where the end is, sometimes beside it.
                    let after = if random.once_in(4) { u64::try_from(random.below(12))? } else { end };
                    let through = after + 1 + u64::try_from(random.below(5))?;
                    let rows = (after + 1..=through).filter(|_| !random.once_in(3)).collect::<Vec<_>>();
                    let rows = log_rows(split, rows)?;
                    let metadata = BTreeMap::from([("step".to_owned(), step.to_string())]);
                    let (log, piece) = (a_log(), range(after, through));
                    let found = opened.store.append(&log, split, rows.clone(), piece.clone(), metadata.clone()).await?;
                    let expected = reference.append(&log, split, rows, piece, metadata).await?;
                    same!(found, expected, "{of}: append ({after}, {through}] to {split}");
                }
                14..16 => {
                    opened.store.compact(&a_log()).await?;
                }
                16 => opened = opened.reopen().await?,
                17 if random.once_in(4) => {
                    opened.store.remove(&a_log()).await?;
                    reference.remove(&a_log()).await?;
                }
                _ => {
                    same!(everything(opened.store.as_ref()).await?, everything(&reference).await?, "{of}: rows");
                }
            }
            same!(opened.store.ends(&a_log()).await?, reference.ends(&a_log()).await?, "{of}: ends");
        }
        same!(everything(opened.store.as_ref()).await?, everything(&reference).await?, "seed {seed}: rows in the end");
    }
    Ok(())
}
