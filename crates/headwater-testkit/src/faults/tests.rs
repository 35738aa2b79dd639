use std::sync::Arc;

use headwater_core::memory::{MemoryOfflineStore, MemoryOnlineStore};
use headwater_core::online::OnlineRow;
use headwater_core::{OfflineStore, OnlineStore};

use super::{Fault, Faults, FlakyOffline, FlakyOnline};

fn row(value: &'static str) -> Vec<OnlineRow> {
    vec![OnlineRow { key: "a".into(), version: "1".into(), value: value.into(), expiry: None }]
}

async fn value(store: &dyn OnlineStore) -> Option<String> {
    let rows = store.get("t", &["a".into()]).await.unwrap();
    rows[0].as_ref().map(|row| String::from_utf8_lossy(&row.value).into_owned())
}

#[tokio::test]
async fn a_call_fails_before_or_after_it_is_done() {
    let faults = Faults::new();
    let inner = Arc::new(MemoryOnlineStore::new());
    let store = FlakyOnline::new(Arc::clone(&inner) as Arc<dyn OnlineStore>, &faults);
    faults.plan("put", 1, Fault::Before);
    faults.plan("put", 2, Fault::After);
    faults.plan("put", 4, Fault::Permanent);
    assert!(store.put("t", row("first")).await.unwrap_err().is_retryable());
    assert_eq!(value(inner.as_ref()).await, None);
    assert!(store.put("t", row("second")).await.unwrap_err().is_retryable());
    assert_eq!(value(inner.as_ref()).await.as_deref(), Some("second"));
    assert!(store.put("t", row("third")).await.is_ok());
    assert!(!store.put("t", row("fourth")).await.unwrap_err().is_retryable());
    assert_eq!(value(&store).await.as_deref(), Some("third"));
    assert_eq!((faults.calls("put"), faults.calls("get")), (4, 1));
}

#[tokio::test]
async fn every_nth_call_fails_until_healed() {
    let faults = Faults::new();
    let store = FlakyOffline::new(Arc::new(MemoryOfflineStore::new()), &faults);
    faults.plan_every("logs", 3, Fault::Before);
    let mut failed = Vec::new();
    for _ in 0..6 {
        failed.push(store.logs().await.is_err());
    }
    assert_eq!(failed, [false, false, true, false, false, true]);
    faults.heal();
    for _ in 0..6 {
        assert!(store.logs().await.is_ok());
    }
}

#[tokio::test]
async fn a_stalled_call_waits_for_its_release() {
    let faults = Faults::new();
    let inner = Arc::new(MemoryOnlineStore::new());
    let store = FlakyOnline::new(Arc::clone(&inner) as Arc<dyn OnlineStore>, &faults);
    faults.stall();
    let mut put = store.put("t", row("late"));
    assert!(futures::poll!(&mut put).is_pending());
    assert_eq!(value(inner.as_ref()).await, None);
    faults.release();
    put.await.unwrap();
    assert_eq!(value(inner.as_ref()).await.as_deref(), Some("late"));
}
