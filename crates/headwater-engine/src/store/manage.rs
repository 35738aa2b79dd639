//! Applying definitions, and looking after what lies in the stores.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use headwater_core::offline::LogId;
use headwater_core::{Error, ErrorKind, Result};
use serde::Serialize;

use super::{Current, FeatureStore};
use crate::ingest::DEAD_LETTERS;
use crate::plan::Plan;
use crate::project::Project;
use crate::rows::{Serving, table_prefix, values_table};
use crate::state::{Lock, State, plan};
use crate::windows::epoch;

/// What a compaction did to one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// The view.
    pub view: String,
    /// The generation of its rows.
    pub generation: String,
    /// Pieces before.
    pub before: u64,
    /// Pieces after.
    pub after: u64,
}

/// What a teardown removed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Teardown {
    /// Tables of the online store.
    pub tables: Vec<String>,
    /// Logs of the offline store.
    pub logs: Vec<String>,
    /// The registry file, if there was one.
    pub registry: Option<String>,
}

impl FeatureStore {
    /// What [`FeatureStore::apply`] would do. Changes nothing.
    ///
    /// # Errors
    /// `Invalid` where the definitions do not fit their sources; `Corrupt` and `FormatVersion` for a registry file that
    /// cannot be read; those of the sources.
    pub async fn plan(&self) -> Result<Plan> {
        let state = State::read(&self.registry_path())?;
        Ok(plan(state.as_ref(), &self.given, &self.registry, &self.clock).await?.0)
    }

    /// Makes the definitions that the store was opened with those that every command uses.
    ///
    /// Values and logs of views that are no longer there stay where they are until [`FeatureStore::teardown`]. A view of
    /// a new generation is served from the old one until a job has caught up; one that no job feeds, until it is
    /// materialised; one that has neither, at once from the new.
    ///
    /// # Errors
    /// As [`FeatureStore::plan`]; `Conflict` while another process applies; those of the stores. The registry file is
    /// either the old one or the new one.
    pub async fn apply(&self) -> Result<Plan> {
        let path = self.registry_path();
        let lock = Lock::take(&path)?;
        let before = State::read(&path)?;
        let (plan, state) = plan(before.as_ref(), &self.given, &self.registry, &self.clock).await?;
        // Opened before it is written: what cannot be opened is not applied.
        let current = Arc::new(self.open_state(&state).await?);
        lock.write(&state)?;
        begin_serving(&current).await?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(current);
        Ok(plan)
    }

    /// Merges small pieces of the logs of this project's views, and of their dead letters. Rows stay what they were; jobs
    /// may run. Newest values of generations that no longer serve are dropped; their logs stay.
    ///
    /// # Errors
    /// Those of the offline store.
    pub async fn compact(&self) -> Result<Vec<Compacted>> {
        let project = self.project().await?;
        self.drop_outdated(&project).await?;
        let mut out = Vec::new();
        for log in project.offline.logs().await? {
            if belongs(&log, project.views.iter().map(|view| view.name.as_str())) {
                let done = project.offline.compact(&log).await?;
                out.push(Compacted {
                    view: log.view,
                    generation: log.generation,
                    before: done.before,
                    after: done.after,
                });
            }
        }
        Ok(out)
    }

    async fn drop_outdated(&self, project: &Project) -> Result<()> {
        let Some(state) = State::read(&self.registry_path())? else { return Ok(()) };
        let name = &project.definitions.project;
        let serving = Serving::read(project.online.as_ref(), name).await?;
        for (view, generation) in state.previous() {
            let current = project.views.iter().any(|known| known.name == view && known.generation == generation);
            // Until a newer generation serves, or the view is gone, this one does.
            let superseded = match serving.get(&view) {
                Some(serving) => serving.generation != generation,
                None => false,
            };
            let removed = project.views.iter().all(|known| known.name != view);
            if !current && (superseded || removed) {
                project.online.drop_table(&values_table(name, &view, &generation)).await?;
                epoch::remove_all(project.online.as_ref(), name, &view, &generation).await?;
            }
        }
        Ok(())
    }

    /// Starts new generations of these views.
    pub(super) async fn renew(&self, views: &[&str]) -> Result<Arc<Project>> {
        let path = self.registry_path();
        let lock = Lock::take(&path)?;
        let mut state = State::read(&path)?.ok_or_else(|| Error::not_found("nothing was applied yet"))?;
        for view in views {
            state.renew(view, self.clock.now())?;
        }
        let current = Arc::new(self.open_state(&state).await?);
        lock.write(&state)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&current));
        Ok(Arc::clone(&current.project))
    }

    /// Removes what this project keeps: its tables in the online store, its views' logs in the offline store, its
    /// registry file. Other projects in the same stores are left alone, and so are sources.
    ///
    /// # Errors
    /// Those of the stores. What is not removed then is removed by calling again.
    pub async fn teardown(&self) -> Result<Teardown> {
        let path = self.registry_path();
        let state = State::read(&path)?;
        // What was applied may be beyond opening by now; what is given names the same stores as a rule.
        let applied = state.as_ref().and_then(|state| state.definitions(&self.given).ok());
        let definitions = applied.as_ref().unwrap_or(&self.given);
        let (online, offline) = self.open_stores(definitions)?;

        let mut removed = Teardown::default();
        let prefix = table_prefix(&definitions.project);
        for table in online.tables().await? {
            if table.starts_with(&prefix) {
                online.drop_table(&table).await?;
                removed.tables.push(table);
            }
        }
        online.sync().await?;

        let mut views: BTreeSet<String> = definitions.feature_views.iter().map(|view| view.name.clone()).collect();
        if let Some(state) = &state {
            views.extend(state.previous().into_iter().map(|(view, _)| view));
        }
        for log in offline.logs().await? {
            if belongs(&log, views.iter().map(String::as_str)) {
                offline.remove(&log).await?;
                removed.logs.push(log.to_string());
            }
        }

        match std::fs::remove_file(&path) {
            Ok(()) => removed.registry = Some(path.to_string_lossy().into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::new(ErrorKind::Unavailable, "the registry file cannot be removed")
                    .permanent()
                    .with_context("path", path.display())
                    .with_source(error));
            }
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(removed)
    }
}

/// Whether a log is one of these views', or of their dead letters.
fn belongs<'a>(log: &LogId, mut views: impl Iterator<Item = &'a str>) -> bool {
    views.any(|view| {
        log.view == view
            || log.view == DEAD_LETTERS
                && log
                    .generation
                    .strip_prefix(view)
                    .is_some_and(|rest| rest.strip_prefix('-').is_some_and(|generation| !generation.contains('-')))
    })
}

/// Names a serving generation for views that have none, or have nothing to wait for.
async fn begin_serving(current: &Current) -> Result<()> {
    let project = &current.project;
    let serving = Serving::read(project.online.as_ref(), &project.definitions.project).await?;
    // Jobs say themselves when the views that they feed have caught up.
    for view in project.views.iter().filter(|view| view.online && !project.fed_by_job(view)) {
        let begin = match serving.get(&view.name) {
            None => true,
            Some(serving) => serving.generation != view.generation && view.batch.is_none(),
        };
        if begin {
            Serving { view: view.name.clone(), generation: view.generation.clone(), applied: project.clock.now() }
                .write(project.online.as_ref(), &project.definitions.project)
                .await?;
        }
    }
    project.online.sync().await
}
