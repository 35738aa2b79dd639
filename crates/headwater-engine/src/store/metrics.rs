//! What a store counts.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// What reads of a windowed view came to, since the store was opened: online, where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct WindowReads {
    /// Entities that were read.
    pub entities: u64,
    /// State rows that were merged for them: `rows / entities` is how many splits an entity's events came from.
    pub rows: u64,
    /// The most rows of one entity.
    pub most_rows: u64,
    /// Values that are null because they are beyond their feature's type.
    pub overflows: u64,
    /// As `overflows`, of training sets.
    pub training_overflows: u64,
}

/// What reads came to, by windowed view.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<BTreeMap<String, WindowReads>>);

impl Metrics {
    pub(super) fn read(&self, view: &str, entities: u64, rows: u64, most_rows: u64, overflows: u64) {
        self.count(view, |counted| {
            // Once is enough to say so; how often is counted.
            if overflows > 0 && counted.overflows == 0 {
                tracing::warn!(view, "a window's result is beyond its feature's type, and null for it");
            }
            counted.entities += entities;
            counted.rows += rows;
            counted.most_rows = counted.most_rows.max(most_rows);
            counted.overflows += overflows;
        });
    }

    /// Of a training set.
    pub(super) fn trained(&self, view: &str, overflows: u64) {
        self.count(view, |counted| counted.training_overflows += overflows);
    }

    fn count(&self, view: &str, count: impl FnOnce(&mut WindowReads)) {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match views.get_mut(view) {
            Some(counted) => count(counted),
            None => count(views.entry(view.to_owned()).or_default()),
        }
    }

    pub(super) fn all(&self) -> BTreeMap<String, WindowReads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
