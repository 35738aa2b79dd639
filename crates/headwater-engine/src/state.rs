//! The registry file: what was applied last, and which generation of each view its rows have.
//!
//! Every command works with the definitions in it, whatever the definition file says meanwhile. It holds no secrets: an
//! option that is one is left out and taken from the definitions that a command is given.

mod file;
mod secrets;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use headwater_core::definitions::{Definitions, ViewTransform};
use headwater_core::{Clock, Error, Micros, Registry, Result};
use serde::{Deserialize, Serialize};

use crate::definitions::{Parts, ResolvedView, check, generation, resolve_with_parts};
use crate::plan::{Action, Change, Kind, Plan, Rows, compare};
use crate::view::View;

pub(crate) use file::Lock;

/// What was applied last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// When it was applied.
    applied_at: Micros,
    /// The definitions, without secrets and with the schema of every view.
    definitions: Definitions,
    /// The views, by name.
    views: BTreeMap<String, AppliedView>,
    /// Generations that are no longer current. They are never forgotten: rows of theirs may lie anywhere, so none is
    /// used again.
    previous: Vec<Previous>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct AppliedView {
    /// What its rows lie under.
    generation: String,
    /// What the generation is made of, with the columns that were added since.
    parts: Parts,
    /// Since when the generation is current.
    since: Micros,
    /// The schema was not given but found.
    found_schema: bool,
    /// What names its aggregations, if it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    windows: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Previous {
    view: String,
    generation: String,
    /// Since when it is no longer current.
    since: Micros,
}

impl State {
    /// What was applied, with what a registry file does not hold (secrets, code, the folder) taken from `given`.
    ///
    /// # Errors
    /// `Invalid` where `given` lacks code or a secret that is needed, or has another version of the code.
    pub(crate) fn definitions(&self, given: &Definitions) -> Result<Definitions> {
        let mut definitions = self.definitions.clone();
        definitions.base_dir.clone_from(&given.base_dir);
        secrets::restore(&mut definitions, given)?;
        for view in &mut definitions.feature_views {
            let ViewTransform::Code { version, transform } = &mut view.transform else { continue };
            let given = given.feature_views.iter().find(|given| given.name == view.name).map(|given| &given.transform);
            match given {
                Some(ViewTransform::Code { version: given, transform: code }) if given == version => {
                    *transform = Arc::clone(code);
                }
                Some(ViewTransform::Code { version: given, .. }) => {
                    return Err(Error::invalid(format!(
                        "the view `{}` was applied with version `{version}` of its code, and this program has `{given}`: \
                         apply it",
                        view.name
                    )));
                }
                _ => {
                    return Err(Error::invalid(format!(
                        "the view `{}` was applied with code (version `{version}`), which only the program that has it \
                         can give",
                        view.name
                    )));
                }
            }
        }
        Ok(definitions)
    }

    /// Whether `given` says something else than what was applied.
    pub(crate) fn differs(&self, given: &Definitions) -> bool {
        self.definitions(given).map_or(true, |applied| applied != self.with_found_schemas(given))
    }

    /// `given` with the schemas that were found when it was applied, where it gives none.
    fn with_found_schemas(&self, given: &Definitions) -> Definitions {
        let mut given = given.clone();
        for view in given.feature_views.iter_mut().filter(|view| view.schema.is_empty()) {
            let found = self.views.get(&view.name).is_some_and(|applied| applied.found_schema);
            let applied = self.definitions.feature_views.iter().find(|applied| applied.name == view.name);
            if let (true, Some(applied)) = (found, applied) {
                view.schema.clone_from(&applied.schema);
            }
        }
        given
    }

    /// Gives views their generations: those that the registry knows keep theirs.
    pub(crate) fn pin(&self, views: &mut [View]) {
        for view in views {
            if let Some(applied) = self.views.get(&view.name) {
                view.generation.clone_from(&applied.generation);
            }
        }
    }

    /// When it was applied.
    pub(crate) fn applied_at(&self) -> Micros {
        self.applied_at
    }

    /// Generations that are no longer current, of views that are there and of views that are gone: (view, generation).
    pub(crate) fn previous(&self) -> Vec<(String, String)> {
        self.previous.iter().map(|previous| (previous.view.clone(), previous.generation.clone())).collect()
    }

    /// Starts a new generation of a view whose definition is unchanged, and names it: its rows are to be made again.
    ///
    /// # Errors
    /// `NotFound` for a view that was never applied.
    pub(crate) fn renew(&mut self, view: &str, now: Micros) -> Result<String> {
        let applied =
            self.views.get(view).ok_or_else(|| Error::not_found(format!("the view `{view}` is not applied")))?;
        let (old, parts) = (applied.generation.clone(), applied.parts.clone());
        self.previous.push(Previous { view: view.to_owned(), generation: old, since: now });
        let generation = self.fresh(view, &parts);
        if let Some(applied) = self.views.get_mut(view) {
            applied.generation.clone_from(&generation);
            applied.since = now;
        }
        Ok(generation)
    }

    /// A generation under which no rows of the view ever lay.
    fn fresh(&self, view: &str, parts: &Parts) -> String {
        fresh(&self.previous, view, parts)
    }
}

fn fresh(previous: &[Previous], view: &str, parts: &Parts) -> String {
    let taken = |name: &String| previous.iter().any(|p| p.view == view && p.generation == *name);
    (0_u32..).map(|salt| generation(parts, salt)).find(|name| !taken(name)).unwrap_or_default()
}

/// Compares what is given with what was applied: the plan, and the state that [`Lock::write`] makes true.
///
/// # Errors
/// As [`crate::definitions::resolve`]; faults of the definitions themselves as `Invalid`.
pub(crate) async fn plan(
    state: Option<&State>,
    given: &Definitions,
    registry: &Registry,
    clock: &Arc<dyn Clock>,
) -> Result<(Plan, State)> {
    check(given, registry)?;
    if let Some(state) = state
        && state.definitions.project != given.project
    {
        return Err(Error::invalid(format!(
            "the registry file `{}` belongs to the project `{}`; the project `{}` needs one of its own",
            given.registry, state.definitions.project, given.project
        )));
    }
    let resolved = resolve_with_parts(given, registry, clock).await?;
    let mut definitions = given.clone();
    for (view, resolved) in definitions.feature_views.iter_mut().zip(&resolved) {
        if view.schema.is_empty() {
            view.schema.clone_from(&resolved.view.features);
        }
    }
    secrets::remove(&mut definitions, registry);
    // The registry file may be moved with its project.
    definitions.base_dir = PathBuf::new();

    let now = clock.now();
    let mut previous = state.map(|state| state.previous.clone()).unwrap_or_default();
    let mut rows = BTreeMap::new();
    let mut views = BTreeMap::new();
    for ResolvedView { view, parts } in resolved {
        let found_schema = given.feature_views.iter().any(|g| g.name == view.name && g.schema.is_empty());
        let old = state.and_then(|state| state.views.get(&view.name));
        let windows = view.windows.as_ref().map(|windows| windows.fingerprint.clone());
        let breaks = |old: &AppliedView| {
            let mut because = old.parts.breaks(&parts);
            if old.windows.is_some() && windows.is_none() {
                // Nobody kept the newest value of each entity.
                because.push("it has no aggregations any more".to_owned());
            }
            because
        };
        let applied = match old.map(|old| (old, breaks(old))) {
            None => {
                let generation = fresh(&previous, &view.name, &parts);
                rows.insert(view.name.clone(), Rows::Begin { generation: generation.clone() });
                AppliedView { generation, parts, since: now, found_schema, windows }
            }
            Some((old, because)) if because.is_empty() => {
                let (generation, added) = (old.generation.clone(), old.parts.added(&parts));
                let kept = match &windows {
                    Some(windows) if old.windows.as_ref() != Some(windows) => {
                        let (windows, previous) = (windows.clone(), old.windows.clone());
                        Rows::Rebuild { generation, added, windows, previous }
                    }
                    _ => Rows::Keep { generation, added },
                };
                rows.insert(view.name.clone(), kept);
                AppliedView { parts, found_schema, windows, ..old.clone() }
            }
            Some((old, because)) => {
                previous.push(Previous { view: view.name.clone(), generation: old.generation.clone(), since: now });
                let generation = fresh(&previous, &view.name, &parts);
                let replaced = old.generation.clone();
                let change = Rows::Replace { generation: generation.clone(), previous: replaced, because };
                rows.insert(view.name.clone(), change);
                AppliedView { generation, parts, since: now, found_schema, windows }
            }
        };
        views.insert(view.name, applied);
    }
    for (name, old) in state.iter().flat_map(|state| &state.views) {
        if !views.contains_key(name) {
            previous.push(Previous { view: name.clone(), generation: old.generation.clone(), since: now });
            rows.insert(name.clone(), Rows::Retire { generation: old.generation.clone() });
        }
    }

    let mut changes = compare(state.map(|state| &state.definitions), &definitions);
    for change in &mut changes {
        if matches!(change.kind, Kind::FeatureView | Kind::StreamFeatureView) {
            change.rows = rows.remove(&change.name);
        }
    }
    // A view whose own words are the same may still get other rows: from another source.
    for (name, rows) in rows {
        let moves = match &rows {
            Rows::Keep { added, .. } => !added.is_empty(),
            _ => true,
        };
        if moves {
            let stream = definitions.feature_views.iter().any(|view| view.name == name && view.stream);
            let kind = if stream { Kind::StreamFeatureView } else { Kind::FeatureView };
            changes.push(Change { kind, name, action: Action::Changed, fields: Vec::new(), rows: Some(rows) });
        }
    }
    changes.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    let plan = Plan { project: given.project.clone(), changes };
    Ok((plan, State { applied_at: now, definitions, views, previous }))
}
