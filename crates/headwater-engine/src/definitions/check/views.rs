//! Checks of feature views.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;
use headwater_core::Registry;
use headwater_core::definitions::{Definitions, FeatureView, Source, SourceKind, ViewTransform};

use super::column_is_valid;
use crate::definitions::aggregations;
use crate::definitions::ddl;
use crate::definitions::effective::Effective;
use crate::definitions::place::{Faults, Place, did_you_mean, list};
use crate::definitions::read::{ENTITIES, SOURCES};

pub(super) fn check(
    view: &FeatureView,
    definitions: &Definitions,
    registry: &Registry,
    place: &Place<'_>,
    faults: &mut Faults,
) {
    let source = check_source(view, definitions, place, faults);
    let keys = check_entities(view, definitions, place, faults);
    let effective = source.map(|source| Effective::of(definitions, source));
    check_schema(view, source, effective.as_ref(), &keys, place, faults);
    check_transform(view, registry, place, faults);
    if !view.stream && view.offline {
        faults.add(&place.key("offline"), "`offline` is for views among `stream_feature_views`", None);
    }
    if let Some(column) = &view.timestamp_field {
        let at = place.key("timestamp_field");
        column_is_valid(faults, &at, column);
        let created = effective.as_ref().and_then(|e| e.created.map(|created| e.renamed(created)));
        if !view.stream {
            faults.add(&at, "`timestamp_field` is for views among `stream_feature_views`", None);
        } else if column.is_empty() {
            faults.add(&at, "`timestamp_field` is the name of a column", None);
        } else if created == Some(column) && effective.as_ref().is_some_and(|e| e.timestamp_field != e.created) {
            faults.add(
                &at,
                format!("event time and created time are both `{column}`; they are columns of their own"),
                None,
            );
        }
    }
    let mut columns = None;
    if let (Some(source), Some(effective), ViewTransform::None) = (source, &effective, &view.transform) {
        columns = columns_of(source, effective);
        if let Some(columns) = &columns {
            check_columns(view, source, effective, columns, &keys, place, faults);
        }
    }
    let taken = aggregations::Columns {
        keys: keys.iter().map(|(_, key)| *key).collect(),
        event_time: event_time(view, effective.as_ref()),
        created: effective.as_ref().and_then(|e| e.created.map(|created| e.renamed(created))),
    };
    aggregations::check(view, &taken, columns.as_deref(), place, faults);
}

fn check_source<'d>(
    view: &FeatureView,
    definitions: &'d Definitions,
    place: &Place<'_>,
    faults: &mut Faults,
) -> Option<&'d Source> {
    let at = place.key("source");
    if view.source.is_empty() {
        faults.add(&at, "`source` is missing: the name of the source of its rows", None);
        return None;
    }
    let fits = |source: &&Source| (source.kind != SourceKind::Batch) == view.stream;
    let candidates = || definitions.sources.iter().filter(fits).map(|source| source.name.as_str());
    let Some(source) = definitions.sources.iter().find(|source| source.name == view.source) else {
        let message = format!("there is no source `{}`; there are {}", view.source, list(candidates()));
        if faults.knows_names_of(SOURCES) {
            faults.add(&at, message, did_you_mean(&view.source, candidates()));
        }
        return None;
    };
    if source.name.is_empty() || fits(&source) {
        return Some(source);
    }
    if view.stream {
        let message = format!(
            "`{}` is a batch source; a stream feature view needs a stream or push source, and those are {}",
            source.name,
            list(candidates())
        );
        let hint = format!("with a `batch_source`, `{}` would be a stream", source.name);
        faults.add(&at, message, Some(hint));
    } else {
        let message = format!("`{}` is a stream; a view of it belongs under `stream_feature_views`", source.name);
        faults.add(&at, message, None);
    }
    None
}

/// Checks the entities; the join keys of those that are known.
fn check_entities<'d>(
    view: &FeatureView,
    definitions: &'d Definitions,
    place: &Place<'_>,
    faults: &mut Faults,
) -> Vec<(usize, &'d str)> {
    let at = place.key("entities");
    let mut keys: Vec<(usize, &str)> = Vec::new();
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for (index, name) in view.entities.iter().enumerate() {
        let here = at.item(index, "");
        if name.is_empty() {
            faults.add(&here, "expected the name of an entity, found nothing", None);
            continue;
        }
        let Some(entity) = definitions.entities.iter().find(|entity| entity.name == *name) else {
            let known = || definitions.entities.iter().map(|entity| entity.name.as_str());
            let by_key = definitions.entities.iter().find(|entity| entity.join_key == *name);
            let hint = match by_key {
                Some(entity) => Some(format!("`{name}` is the join key of the entity `{}`", entity.name)),
                None => did_you_mean(name, known()),
            };
            if faults.knows_names_of(ENTITIES) {
                faults.add(&here, format!("there is no entity `{name}`; there are {}", list(known())), hint);
            }
            continue;
        };
        if entity.join_key.is_empty() {
            continue;
        }
        if let Some(other) = names.insert(&entity.join_key, name) {
            let message = if other == name {
                format!("the entity `{name}` is there twice")
            } else {
                format!("the entities `{other}` and `{name}` have the same join key, `{}`", entity.join_key)
            };
            faults.add(&here, message, None);
            continue;
        }
        keys.push((index, &entity.join_key));
    }
    keys
}

fn check_schema(
    view: &FeatureView,
    source: Option<&Source>,
    effective: Option<&Effective<'_>>,
    keys: &[(usize, &str)],
    place: &Place<'_>,
    faults: &mut Faults,
) {
    let schema = place.key("schema");
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, field) in view.schema.iter().enumerate() {
        let at = schema.item(index, &field.name).key("name");
        if field.name.is_empty() {
            faults.add(&at, "`name` is missing: what the feature is called", None);
            continue;
        }
        if seen.insert(&field.name, index).is_some() {
            faults.add_again(&at, format!("two features are called `{}`", field.name));
            continue;
        }
        column_is_valid(faults, &at, &field.name);
        if keys.iter().any(|(_, key)| *key == field.name) {
            let message = format!("`{}` is a join key; `schema` lists the features alone", field.name);
            faults.add(&at, message, None);
        }
        let event_time = event_time(view, effective);
        let created = effective.and_then(|e| e.created.map(|column| e.renamed(column)));
        if event_time == Some(&field.name) {
            faults.add(&at, format!("`{}` is the event time; `schema` lists the features alone", field.name), None);
        } else if created == Some(&field.name) {
            faults.add(&at, format!("`{}` is the created time; `schema` lists the features alone", field.name), None);
        }
        if let (Some(effective), Some(source), true) = (effective, source, view.aggregations.is_empty())
            && let Some(name) = effective.mapping.get(&field.name)
            && !effective.mapping.values().any(|name| *name == field.name)
        {
            let message =
                format!("the `field_mapping` of `{}` makes `{}` of the column `{}`", source.name, name, field.name);
            faults.add(&at, message, Some(format!("did you mean `{name}`?")));
        }
    }
}

fn check_transform(view: &FeatureView, registry: &Registry, place: &Place<'_>, faults: &mut Faults) {
    let at = place.key("mode");
    match &view.transform {
        ViewTransform::None => return,
        ViewTransform::Code { version, .. } => {
            if version.is_empty() {
                faults.add(&at, "code needs a version, which changes whenever its results do", None);
            }
        }
        ViewTransform::Text { mode, text } => {
            let plugin = registry.plugin(mode);
            let placeholder = plugin.is_some_and(|plugin| !plugin.enabled && plugin.roles().is_empty());
            if !placeholder && plugin.is_none_or(|plugin| plugin.transform.is_none()) {
                let known = registry.plugins().filter(|plugin| plugin.transform.is_some()).map(|plugin| plugin.name);
                let known: Vec<&str> = known.chain(["none"]).collect();
                let message = format!("there is no mode `{mode}`; compiled in are {}", list(known.iter().copied()));
                faults.add(&at, message, did_you_mean(mode, known));
            }
            if text.trim().is_empty() {
                let message = format!("`mode: {mode}` needs a `transform`");
                faults.add(&place.key("transform"), message, None);
            }
        }
    }
    if !view.stream {
        faults.add(&at, "transforms are for views among `stream_feature_views`", None);
    }
}

/// The column with a view's event time.
fn event_time<'d>(view: &'d FeatureView, effective: Option<&Effective<'d>>) -> Option<&'d str> {
    let column = view.timestamp_field.as_deref();
    column.or_else(|| effective.and_then(|e| e.timestamp_field.map(|column| e.renamed(column))))
}

/// The columns of a source, as views call them, where it says them and they are not in doubt.
fn columns_of(source: &Source, effective: &Effective<'_>) -> Option<Vec<(String, DataType)>> {
    let text = match &source.kind {
        SourceKind::Stream(settings) => {
            settings.record_format.as_ref().filter(|format| format.kind == "json").and_then(|f| f.schema.as_deref())
        }
        SourceKind::Push { .. } => source.options.get("schema").and_then(|schema| schema.as_str()),
        SourceKind::Batch => None,
    };
    if effective.mapping.values().any(|name| name.starts_with('_')) {
        return None;
    }
    let schema = text.and_then(|text| ddl::parse(text).ok())?;
    let targets: BTreeSet<&String> = effective.mapping.values().collect();
    let mapped = effective.mapping.keys().all(|column| schema.column_with_name(column).is_some());
    if !mapped || targets.len() < effective.mapping.len() || targets.iter().any(|name| name.is_empty()) {
        // What the columns are called is in doubt, and reported as that.
        return None;
    }
    let fields = schema.fields().iter();
    Some(fields.map(|field| (effective.renamed_owned(field.name()), field.data_type().clone())).collect())
}

/// Checks that what a view without a transform wants is there in its source.
fn check_columns(
    view: &FeatureView,
    source: &Source,
    effective: &Effective<'_>,
    columns: &[(String, DataType)],
    keys: &[(usize, &str)],
    place: &Place<'_>,
    faults: &mut Faults,
) {
    let columns: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let mut wants = |at: Place<'_>, column: &str, what: &str| {
        if !column.is_empty() && !columns.contains(&column) && !column.starts_with('_') {
            let message = format!(
                "{what} `{column}` is no column of the source `{}`, which has {}",
                source.name,
                list(columns.iter().copied())
            );
            faults.add(&at, message, did_you_mean(column, columns.iter().copied()));
        }
    };
    for (index, key) in keys {
        wants(place.key("entities").item(*index, ""), key, "the join key");
    }
    // The schema of a view with aggregations lists what is made of columns.
    let schema = if view.aggregations.is_empty() { view.schema.as_slice() } else { &[] };
    for (index, field) in schema.iter().enumerate() {
        wants(place.key("schema").item(index, &field.name).key("name"), &field.name, "the feature");
    }
    if let Some(column) = &view.timestamp_field {
        wants(place.key("timestamp_field"), column, "the event time");
    } else if source.timestamp_field.is_none()
        && let Some(column) = effective.timestamp_field
    {
        wants(place.key("source"), effective.renamed(column), "the event time");
    }
}
