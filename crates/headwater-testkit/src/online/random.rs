//! Random operations, on the store under test and on the reference.

use std::sync::Arc;

use bytes::Bytes;
use headwater_core::memory::MemoryOnlineStore;
use headwater_core::online::{OnlineRow, OnlineStore};

use super::{OnlineFixture, Opened, row};
use crate::clause::same;
use crate::{Random, Verdict, seeds};

const TABLES: [&str; 3] = ["t", "T", "t/u"];

pub(super) async fn agrees<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    for seed in seeds(12) {
        let mut opened = Opened::fresh(Arc::clone(&fixture)).await?;
        let reference = MemoryOnlineStore::new();
        let mut random = Random::new(seed);
        for step in 0..60 {
            let of = format!("seed {seed}, step {step}");
            let table = TABLES[random.below(TABLES.len())];
            match random.below(12) {
                0..6 => {
                    let rows = some_rows(&mut random);
                    let found = opened.store.put(table, rows.clone()).await?;
                    let expected = reference.put(table, rows.clone()).await?;
                    // What counts as written where one call holds a key twice is left to the store.
                    let mut keys = rows.iter().map(|row| &row.key).collect::<Vec<_>>();
                    keys.sort();
                    keys.dedup();
                    if keys.len() == rows.len() {
                        same!(found, expected, "{of}: put");
                    }
                }
                6..8 => {
                    let keys = (0..random.below(5)).map(|_| some_key(&mut random)).collect::<Vec<_>>();
                    same!(
                        opened.store.get(table, &keys).await?,
                        reference.get(table, &keys).await?,
                        "{of}: get {keys:?}"
                    );
                }
                8 => {
                    let keys = (0..random.below(5)).map(|_| some_key(&mut random)).collect::<Vec<_>>();
                    opened.store.delete(table, &keys).await?;
                    reference.delete(table, &keys).await?;
                }
                9 if random.once_in(3) => {
                    opened.store.drop_table(table).await?;
                    reference.drop_table(table).await?;
                }
                10 if random.once_in(3) => {
                    opened.store.sync().await?;
                    opened = opened.reopen().await?;
                }
                _ => {
                    let prefixes = [some_key(&mut random), Bytes::new(), some_key(&mut random)];
                    let found = opened.store.get_prefixes(table, &prefixes).await?;
                    same!(found, reference.get_prefixes(table, &prefixes).await?, "{of}: prefixes {prefixes:?}");
                }
            }
        }
        for table in TABLES {
            let found = opened.store.get_prefixes(table, &[Bytes::new()]).await?;
            same!(found, reference.get_prefixes(table, &[Bytes::new()]).await?, "seed {seed}: `{table}` in the end");
        }
    }
    Ok(())
}

/// Few distinct keys, so that they meet often.
fn some_key(random: &mut Random) -> Bytes {
    const BYTES: [u8; 5] = [0, 1, b'a', b'A', 255];
    let length = 1 + random.below(2);
    (0..length).map(|_| BYTES[random.below(BYTES.len())]).collect()
}

fn some_rows(random: &mut Random) -> Vec<OnlineRow> {
    (0..random.below(8))
        .map(|_| {
            let version = (0..random.below(3)).map(|_| [0, 127, 128, 255][random.below(4)]).collect::<Vec<u8>>();
            let length = random.below(20);
            row(some_key(random), version, random.bytes(length))
        })
        .collect()
}
