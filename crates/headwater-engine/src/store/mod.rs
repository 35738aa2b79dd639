//! The feature store: the way in for programs.
//!
//! ```no_run
//! # async fn run() -> headwater_core::Result<()> {
//! use headwater_engine::store::{EntityColumns, FeatureStore, Features};
//!
//! let store = FeatureStore::open("headwater.yaml").await?;
//! store.apply().await?;
//! let answer = store
//!     .get_online_features(
//!         Features::names(["driver_stats:conv_rate"]),
//!         EntityColumns::default().column("driver_id", [1001, 1002]),
//!         false,
//!     )
//!     .await?;
//! println!("{:?}", answer.column("conv_rate"));
//! # Ok(())
//! # }
//! ```
//!
//! Every call but `plan` and `apply` works on what was applied last, whatever the definition file says by now;
//! [`FeatureStore::warnings`] tells where the two differ.

pub(crate) mod batch;
mod epochs;
mod features;
mod history;
mod jobs;
mod json;
mod manage;
mod materialize;
mod metrics;
mod online;
mod push;
mod reset;
#[cfg(test)]
mod tests;
mod verify;
mod windows;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arrow::array::RecordBatch;
use headwater_core::definitions::{Definitions, StoreDefinition};
use headwater_core::options::Config;
use headwater_core::plugin::OpenContext;
use headwater_core::time::SystemClock;
use headwater_core::{Clock, Error, Micros, OfflineStore, OnlineStore, Registry, Result};
use sha2::{Digest, Sha256};

pub use features::Features;
pub use jobs::{NextEpoch, Status, ViewStatus, WindowStatus};
pub use json::{EntityColumns, format_time, parse_time};
pub use manage::{Compacted, Teardown};
pub use materialize::{MaterializeProgress, Materialized, Reporter};
pub use metrics::WindowReads;
pub use online::{Entities, FeatureStatus, OnlineColumn, OnlineFeatures};
pub(crate) use push::field_mapping;
pub use push::{PushTarget, Pushed};
pub use reset::{Reset, ResetKind, ResetView};
pub use verify::{Difference, Verified, VerifyOptions};
#[cfg(test)]
pub(crate) use {
    epochs::materialize as materialize_windows, epochs::plan as plan_windows, history::get_historical_features,
    materialize::Interval as Between, materialize::materialize as materialize_views, online::ServingCache as Serving,
    online::get_online_features, verify::verify as verify_view,
};

use crate::definitions;
use crate::history::{EntityRows, HistoryOptions, TrainingSet};
use crate::project::Project;
use crate::state::State;
use crate::view::View;
use materialize::Interval;
use metrics::Metrics;
use online::ServingCache;

/// A project's feature store.
///
/// Cheap to share behind an `Arc`; every method takes `&self` and may be called from any number of tasks. It goes on with
/// the definitions that it found applied when it was first used, until it applies others itself: a program that is to
/// follow the `apply` of another opens a new one.
#[derive(Debug)]
pub struct FeatureStore {
    given: Definitions,
    registry: Registry,
    clock: Arc<dyn Clock>,
    stores: Mutex<Stores>,
    current: RwLock<Option<Arc<Current>>>,
    metrics: Arc<Metrics>,
}

/// What was applied last, opened.
#[derive(Debug)]
struct Current {
    project: Arc<Project>,
    /// Tells these definitions from others, for the status of jobs.
    fingerprint: String,
    /// When they were applied.
    applied: Micros,
    warnings: Vec<String>,
    serving: ServingCache,
}

/// The stores that are open, with what they were opened by: an `apply` that leaves them alone keeps them open.
#[derive(Debug, Default)]
struct Stores {
    online: Option<(Option<StoreDefinition>, Arc<dyn OnlineStore>)>,
    offline: Option<(Option<StoreDefinition>, Arc<dyn OfflineStore>)>,
}

/// Opens a [`FeatureStore`].
#[derive(Debug, Default)]
pub struct FeatureStoreBuilder {
    file: Option<PathBuf>,
    definitions: Option<Definitions>,
    registry: Option<Registry>,
    clock: Option<Arc<dyn Clock>>,
    stores: Stores,
}

impl FeatureStoreBuilder {
    /// Reads the definitions from a file.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Takes definitions made in code.
    #[must_use]
    pub fn definitions(mut self, definitions: Definitions) -> Self {
        self.definitions = Some(definitions);
        self
    }

    /// Uses these plugins; by default those that are linked in.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = Some(registry);
        self
    }

    /// Takes the time from this clock; by default the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Uses this online store, whatever the definitions say.
    #[must_use]
    pub fn online_store(mut self, store: Arc<dyn OnlineStore>) -> Self {
        self.stores.online = Some((None, store));
        self
    }

    /// Uses this offline store, whatever the definitions say.
    #[must_use]
    pub fn offline_store(mut self, store: Arc<dyn OfflineStore>) -> Self {
        self.stores.offline = Some((None, store));
        self
    }

    /// Checks the definitions. Opens nothing yet: stores and sources are opened by the first call that needs them.
    ///
    /// # Errors
    /// `Invalid` with every fault of the definitions; `Conflict` where two plugins have one name.
    pub async fn open(self) -> Result<FeatureStore> {
        let registry = match self.registry {
            Some(registry) => registry,
            None => Registry::global()?,
        };
        let given = match (self.definitions, self.file) {
            (Some(definitions), None) => {
                definitions::check(&definitions, &registry)?;
                definitions
            }
            (None, Some(file)) => definitions::load(&file, &registry)?,
            (None, None) => return Err(Error::invalid("a store needs definitions: a file, or those made in code")),
            (Some(_), Some(_)) => {
                return Err(Error::invalid("a store takes definitions from a file or from code, not from both"));
            }
        };
        Ok(FeatureStore {
            given,
            registry,
            clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock)),
            stores: Mutex::new(self.stores),
            current: RwLock::new(None),
            metrics: Arc::default(),
        })
    }
}

impl FeatureStore {
    /// The store of a definition file, with the plugins that are linked in.
    ///
    /// # Errors
    /// As [`FeatureStoreBuilder::open`].
    pub async fn open(file: impl AsRef<Path>) -> Result<Self> {
        Self::builder().file(file.as_ref()).open().await
    }

    /// A store that is put together step by step.
    pub fn builder() -> FeatureStoreBuilder {
        FeatureStoreBuilder::default()
    }

    /// The definitions that the store was opened with, applied or not.
    pub fn definitions(&self) -> &Definitions {
        &self.given
    }

    /// The plugins.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Where time comes from.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// What was applied last, with its stores open.
    ///
    /// # Errors
    /// `NotFound` where nothing was applied yet; else those of the plugins.
    pub async fn project(&self) -> Result<Arc<Project>> {
        Ok(Arc::clone(&self.current().await?.project))
    }

    /// Where the definitions that the store was opened with differ from those that it works on.
    ///
    /// # Errors
    /// As [`FeatureStore::project`].
    pub async fn warnings(&self) -> Result<Vec<String>> {
        Ok(self.current().await?.warnings.clone())
    }

    /// The newest values of these features for these entities.
    ///
    /// The answer has the join keys first, in the request's order, then the features, view by view; its rows are the
    /// request's, duplicates too. A join key that is null names no entity and finds nothing, as in the point-in-time
    /// join. Columns that are no join key of any view asked are ignored. Features of everything (a view without
    /// entities) need no columns, and have one row then.
    ///
    /// Of a windowed view every entity has an answer, also one never seen: its windows at the time of the read, or at
    /// its newest event where that is later, which is what the answer's event timestamp says.
    ///
    /// With `full_feature_names` features are called `view__feature`.
    ///
    /// # Errors
    /// `NotFound` for unknown names; `Invalid` for missing, ragged or mistyped join keys, for names that would meet in the
    /// answer, and for views with `online: false`; `Corrupt` and `FormatVersion` for rows that cannot be read; those of
    /// the store.
    pub async fn get_online_features(
        &self,
        features: impl Into<Features>,
        entities: impl Into<Entities>,
        full_feature_names: bool,
    ) -> Result<OnlineFeatures> {
        let current = self.current().await?;
        online::get_online_features(
            &current.project,
            &current.serving,
            &features.into(),
            &entities.into(),
            full_feature_names,
        )
        .await
    }

    /// What reads of windowed views came to since the store was opened, by view: how many state rows are merged for an
    /// entity says whether the stream is partitioned by entity key. Training sets count results beyond their type here.
    pub fn window_reads(&self) -> BTreeMap<String, WindowReads> {
        self.metrics.all()
    }

    /// The training set: these entity rows, each with the values that were known at its time.
    ///
    /// What counts is the rule of [`crate::history`]: per view the newest row at or before the entity row's time, no older
    /// than the view's ttl. Every entity row comes out, in order, with all its columns, then the features in the
    /// request's order. History is the view's batch source, and its log where it says `offline: true`.
    ///
    /// # Errors
    /// `NotFound` for unknown names; `Invalid` for names that would meet in the output, and for entity rows without join
    /// keys; else as [`crate::history::join`].
    pub async fn get_historical_features(
        &self,
        entities: EntityRows,
        features: impl Into<Features>,
        full_feature_names: bool,
        options: HistoryOptions,
    ) -> Result<TrainingSet> {
        let (project, features) = (self.project().await?, features.into());
        let set = history::get_historical_features(&project, entities, &features, full_feature_names, options).await?;
        set.overflows().iter().for_each(|(view, overflows)| self.metrics.trained(view, *overflows));
        Ok(set)
    }

    /// Compares what is served of a view with what its history says, for entities drawn from that history: the newest
    /// value or the windows of each as they were when it was read online, computed again by the point-in-time join.
    ///
    /// Entities are left out, and counted, whose events the log does not have yet, and which change meanwhile. What is in
    /// the batch source and was never materialised is missing online, and found as that.
    ///
    /// # Errors
    /// `NotFound` for an unknown view; `Invalid` for one without history of what it serves (`online: false`, a stream
    /// without `offline: true`, never materialised, not caught up); `Conflict` where windows are replaced meanwhile; those
    /// of the stores and of [`FeatureStore::get_historical_features`].
    pub async fn verify(&self, view: &str, options: &VerifyOptions) -> Result<Verified> {
        let current = self.current().await?;
        verify::verify(&current.project, current.serving.epochs(), view, options).await
    }

    /// Writes the newest batch rows from `start` to `end`, both inclusive, to the online store: of these views, or of all
    /// that are served online and have a batch source.
    ///
    /// Of a view with aggregations it builds a new epoch of its windows instead: of the batch rows from `start` to before
    /// `end`, or before now where that is earlier, and of the log's rows from there on. `start` has to reach back far
    /// enough for the longest window, and `end` not to lie before the log's first event. Reads go to it when all splits
    /// have caught up. Where `online: false` leaves it nothing to serve, training sets go by its `end` at once.
    ///
    /// Per entity the greatest version is written, nulls and all; a value in the store that is newer, from a stream or
    /// a push, stays. ttl is no filter here. Memory is bounded by a few batches. Running it again changes nothing, so
    /// rows that came late are brought in by materialising their interval once more.
    ///
    /// # Errors
    /// `Invalid` for an interval that ends before it begins, for views without batch source, for windows that cannot be
    /// built of it, before anything is written; for columns that the source lacks; `Data`, naming the row, where a value does not fit its field; those of source and store. What was written
    /// before an error stays.
    pub async fn materialize(
        &self,
        start: Micros,
        end: Micros,
        views: Option<&[String]>,
        report: Option<&Reporter>,
    ) -> Result<Vec<Materialized>> {
        self.materialize_interval(Interval::Between(start, end), views, report).await
    }

    /// As [`FeatureStore::materialize`], from where the last one of each view ended. A view that never was begins at
    /// `end - ttl`, or at the beginning where its values hold for ever. Windows are built of all batch rows that they reach
    /// back to from `end`.
    ///
    /// An `end` after now is remembered as now. One that was reached before is no error and reads nothing.
    ///
    /// # Errors
    /// As [`FeatureStore::materialize`].
    pub async fn materialize_incremental(
        &self,
        end: Micros,
        views: Option<&[String]>,
        report: Option<&Reporter>,
    ) -> Result<Vec<Materialized>> {
        self.materialize_interval(Interval::Until(end), views, report).await
    }

    async fn materialize_interval(
        &self,
        interval: Interval,
        views: Option<&[String]>,
        report: Option<&Reporter>,
    ) -> Result<Vec<Materialized>> {
        let current = self.current().await?;
        let done = materialize::materialize(&current.project, interval, views, report).await;
        current.serving.clear();
        done
    }

    /// Transforms rows of a push or stream source and writes them to every view that it feeds and that wants them.
    ///
    /// All is checked before anything is written. Logs are written before the online store; if that fails, repeating
    /// the call logs the rows a second time, as two pushes are two records. Of rows of one version the later push wins.
    ///
    /// # Errors
    /// `NotFound` for an unknown source; `Invalid` for one that takes no rows, for missing columns, and where no view
    /// wants the rows (`offline: true` for a push to offline) or one that it feeds has aggregations; `Data`, naming rows, where a value cannot be cast or
    /// transformed; those of the stores.
    pub async fn push(&self, source: &str, rows: &[RecordBatch], to: PushTarget) -> Result<Vec<Pushed>> {
        push::push(&self.current().await?.project, source, rows, to).await
    }

    /// Writes transformed rows of a view to the online store. The view's own transform is not run.
    ///
    /// The rows need the join keys, the event time, the created time if the view has one, and every feature; columns
    /// beyond these are ignored. All batches are written, or none.
    ///
    /// # Errors
    /// As [`FeatureStore::push`].
    pub async fn write_to_online_store(&self, view: &str, rows: &[RecordBatch]) -> Result<Pushed> {
        push::write_to_store(&self.current().await?.project, view, rows, PushTarget::Online).await
    }

    /// Appends transformed rows of a view to its log. Otherwise as [`FeatureStore::write_to_online_store`].
    ///
    /// # Errors
    /// As [`FeatureStore::push`]; `Invalid` for a view without `offline: true`.
    pub async fn write_to_offline_store(&self, view: &str, rows: &[RecordBatch]) -> Result<Pushed> {
        push::write_to_store(&self.current().await?.project, view, rows, PushTarget::Offline).await
    }

    async fn current(&self) -> Result<Arc<Current>> {
        if let Some(current) = &*self.current.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(current));
        }
        let state = State::read(&self.registry_path())?.ok_or_else(|| {
            Error::not_found(format!(
                "nothing was applied yet for project `{}`: run `headwater apply`, or call `apply`",
                self.given.project
            ))
        })?;
        let current = Arc::new(self.open_state(&state).await?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&current));
        Ok(current)
    }

    async fn open_state(&self, state: &State) -> Result<Current> {
        let definitions = state.definitions(&self.given)?;
        let mut views = definitions::resolve(&definitions, &self.registry, &self.clock).await?;
        state.pin(&mut views);
        let mut warnings = Vec::new();
        if state.differs(&self.given) {
            warnings
                .push("the definitions differ from those applied last, which are used: see `headwater plan`".into());
        }
        let (online, offline) = self.open_stores(&definitions)?;
        let fingerprint = fingerprint(&definitions, &views)?;
        Ok(Current {
            fingerprint,
            applied: state.applied_at(),
            project: Arc::new(Project {
                definitions,
                registry: self.registry.clone(),
                clock: Arc::clone(&self.clock),
                online,
                offline,
                views: views.into_iter().map(Arc::new).collect(),
            }),
            warnings,
            serving: ServingCache::new(Arc::clone(&self.metrics)),
        })
    }

    fn open_stores(&self, definitions: &Definitions) -> Result<(Arc<dyn OnlineStore>, Arc<dyn OfflineStore>)> {
        let context =
            OpenContext { project: definitions.project.clone(), clock: Arc::clone(&self.clock), source: None };
        let config = |what: &str, store: &StoreDefinition| Config {
            name: what.to_owned(),
            options: store.options.clone(),
            base_dir: definitions.base_dir.clone(),
        };
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let online = match &stores.online {
            Some((by, store)) if by.as_ref().is_none_or(|by| *by == definitions.online_store) => Arc::clone(store),
            _ => {
                let definition = &definitions.online_store;
                let role = self.registry.role(&definition.plugin, "online store", |plugin| plugin.online)?;
                let store = (role.open)(&config("online_store", definition), &context)?;
                stores.online = Some((Some(definition.clone()), Arc::clone(&store)));
                store
            }
        };
        let offline = match &stores.offline {
            Some((by, store)) if by.as_ref().is_none_or(|by| *by == definitions.offline_store) => Arc::clone(store),
            _ => {
                let definition = &definitions.offline_store;
                let role = self.registry.role(&definition.plugin, "offline store", |plugin| plugin.offline)?;
                let store = (role.open)(&config("offline_store", definition), &context)?;
                stores.offline = Some((Some(definition.clone()), Arc::clone(&store)));
                store
            }
        };
        Ok((online, offline))
    }

    fn registry_path(&self) -> PathBuf {
        self.given.base_dir.join(&self.given.registry)
    }
}

/// A short text that differs where definitions or generations do.
fn fingerprint(definitions: &Definitions, views: &[View]) -> Result<String> {
    let text = serde_json::to_vec(definitions)
        .map_err(|error| Error::unexpected("the definitions cannot be written").with_source(error))?;
    let hash = views.iter().fold(Sha256::new().chain_update(text), |hash, view| hash.chain_update(&view.generation));
    Ok(hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}
