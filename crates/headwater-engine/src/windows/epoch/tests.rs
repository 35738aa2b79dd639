use std::sync::Arc;
use std::time::Duration;

use headwater_core::definitions::{AggregateFunction, Field, ValueType};
use headwater_core::memory::MemoryOnlineStore;
use headwater_core::{OnlineStore, Position, SplitId};

use super::lease::Wanted;
use super::*;
use crate::windows::{Window, WindowFeature};

fn epoch(id: &str) -> Epoch {
    let windows = Windows {
        columns: vec![Field::new("amount", ValueType::Float64)],
        features: vec![WindowFeature {
            field: Field::new("p95", ValueType::Float64),
            function: AggregateFunction::ApproxPercentile { percentile: 0.95 },
            column: Some(0),
            window: Some(Window { length: 60, hop: 5 }),
        }],
        fingerprint: "f1".into(),
    };
    Epoch {
        id: id.into(),
        generation: "g1".into(),
        fingerprint: "f1".into(),
        windows,
        log_from: Some(7),
        start: None,
        created: 1,
        without_rows: false,
    }
}

#[tokio::test]
async fn what_is_written_is_read_and_the_later_epoch_serves() {
    let online = MemoryOnlineStore::new();
    let (first, second) = (epoch("0000000001-a"), epoch("0000000002-b"));
    assert_eq!(load(&online, "p", "v", "g1").await.unwrap(), Epochs::default());
    let progress = BuildProgress { done: 1, total: 2, rows: 3 };
    first.write(&online, "p", "v", EpochState::CatchingUp, progress).await.unwrap();
    first.write(&online, "p", "v", EpochState::Building, progress).await.unwrap();
    second.write(&online, "p", "v", EpochState::Building, BuildProgress::default()).await.unwrap();
    let split = SplitId::new(vec![0, 1, 0]);
    let done = |through, newest| SplitProgress { through: Position::from_u64(through), newest, caught_up: true };
    first.write_progress(&online, "p", "v", [(split.clone(), done(5, Some(-7)))]).await.unwrap();
    first.write_progress(&online, "p", "v", [(split.clone(), done(4, None))]).await.unwrap();
    second.serve(&online, "p", "v", 9).await.unwrap();
    first.serve(&online, "p", "v", 10).await.unwrap();
    // Of other views and generations nothing is seen.
    first.serve(&online, "p", "w", 10).await.unwrap();

    let epochs = load(&online, "p", "v", "g1").await.unwrap();
    assert_eq!(epochs.serving, Some((second.clone(), 9)));
    assert_eq!(serving(&online, "p", "v", "g1").await.unwrap(), Some(second));
    let entry = epochs.entry("0000000001-a").unwrap();
    assert_eq!((entry.state, entry.progress, &entry.epoch), (EpochState::CatchingUp, progress, &first));
    assert_eq!(entry.splits, BTreeMap::from([(split, done(5, Some(-7)))]));
    assert!(next_id(&epochs).starts_with("0000000003-"));
    assert_ne!(next_id(&epochs), next_id(&epochs));

    first.remove(&online, "p", "v").await.unwrap();
    let epochs = load(&online, "p", "v", "g1").await.unwrap();
    assert_eq!(epochs.all.len(), 1);
    assert_eq!(online.tables().await.unwrap(), ["p/_epochs"]);
}

#[tokio::test]
async fn an_unknown_version_is_refused_by_name() {
    let online = MemoryOnlineStore::new();
    let row = OnlineRow {
        key: key("v", "g1", &[b"s"]),
        version: Bytes::new(),
        value: Bytes::from_static(br#"{"version":2,"rest":[]}"#),
        expiry: None,
    };
    online.put(&epochs_table("p"), vec![row.clone()]).await.unwrap();
    let error = serving(&online, "p", "v", "g1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FormatVersion);
    assert!(error.to_string().contains("format version `2`"), "{error}");
    online.put(&epochs_table("p"), vec![OnlineRow { value: Bytes::from_static(b"{"), ..row }]).await.unwrap();
    assert_eq!(load(&online, "p", "v", "g1").await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_at_a_time_holds_a_lease_and_a_dead_holder_is_followed() {
    let wanted = Wanted {
        online: Arc::new(MemoryOnlineStore::new()),
        project: "p".into(),
        view: "v".into(),
        generation: "g1".into(),
        expires: Duration::from_millis(80),
    };
    let holders = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let tasks = (0..8).map(|_| {
        let (wanted, holders) = (wanted.clone(), Arc::clone(&holders));
        tokio::spawn(async move {
            let never = || async { Ok(None::<()>) };
            let lease = wanted.take(Duration::from_secs(60), never).await.unwrap().unwrap();
            assert_eq!(holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0, "two hold the lease");
            tokio::task::yield_now().await;
            lease.check().await.unwrap();
            holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            lease.release().await.unwrap();
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }

    let never = || async { Ok(None::<()>) };
    let dead = wanted.take(Duration::ZERO, never).await.unwrap().unwrap();
    let held = wanted.take(Duration::ZERO, never).await.unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Conflict);
    let instead = wanted.take(Duration::from_secs(60), || async { Ok(Some("done")) }).await.unwrap();
    assert_eq!(instead.unwrap_err(), "done");
    drop(dead);
    let lease = wanted.take(Duration::from_secs(60), never).await.unwrap().unwrap();
    lease.release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_was_taken_for_dead_does_not_come_back() {
    let online = Arc::new(MemoryOnlineStore::new());
    let expires = Duration::from_secs(10);
    let (project, view, generation) = ("p".into(), "v".into(), "g1".into());
    let wanted = Wanted { online: Arc::clone(&online) as _, project, view, generation, expires };
    let never = || async { Ok(None::<()>) };
    let lost = wanted.take(Duration::ZERO, never).await.unwrap().unwrap();
    // What others do when its row stands still for too long.
    let rows = online.get_prefixes("p/_epochs", &[Bytes::new()]).await.unwrap().remove(0);
    online.delete("p/_epochs", &[rows[0].key.clone()]).await.unwrap();
    let taken = wanted.take(Duration::ZERO, never).await.unwrap().unwrap();
    tokio::time::sleep(expires).await;
    assert_eq!(lost.check().await.unwrap_err().kind(), ErrorKind::Conflict);
    taken.check().await.unwrap();
    lost.release().await.unwrap();
    taken.release().await.unwrap();
}
