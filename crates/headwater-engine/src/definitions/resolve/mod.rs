//! From checked definitions to views.

mod input;
mod parts;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use headwater_core::definitions::{Definitions, FeatureView, Field, Source, SourceKind, ValueType, ViewTransform};
use headwater_core::transform::{Identity, PlannedTransform, Transform};
use headwater_core::{BatchSource, Clock, Error, ErrorKind, Registry, Result};

pub(super) use parts::type_name;
pub use parts::{Parts, generation};

use super::aggregations;
use super::effective::Effective;
use super::place::{did_you_mean, list};
use crate::project::source_config;
use crate::view::{BatchInput, Key, StreamInput, View};

/// A view and what its generation was made of.
#[derive(Debug, Clone)]
pub struct ResolvedView {
    /// The view.
    pub view: View,
    /// The parts of its generation.
    pub parts: Parts,
}

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Ask a table for its columns only where no definition says them.
    Needed,
    /// Compare the columns of every table that is there with what views want of it.
    Tables,
}

pub(super) async fn resolve(
    definitions: &Definitions,
    registry: &Registry,
    clock: &Arc<dyn Clock>,
    depth: Depth,
) -> Result<Vec<ResolvedView>> {
    let mut resolved = Vec::new();
    let mut errors: Vec<(String, Error)> = Vec::new();
    for view in &definitions.feature_views {
        let resolver = Resolver { definitions, registry, clock, view, depth };
        match resolver.resolve().await {
            Ok(view) => resolved.push(view),
            Err(error) => {
                let section = if view.stream { "stream_feature_views" } else { "feature_views" };
                errors.push((format!("{section}[{}]", view.name), error));
            }
        }
    }
    let Some((_, first)) = errors.first() else { return Ok(resolved) };
    // Of several kinds the first that nobody can wait away says most.
    let kind = errors.iter().map(|(_, error)| error).find(|e| !e.is_retryable()).map_or(first.kind(), Error::kind);
    let retryable = errors.iter().all(|(_, error)| error.is_retryable());
    let lines = errors.iter().map(|(path, error)| format!("{path}: {error}")).collect::<Vec<_>>();
    let error = Error::new(kind, lines.join("\n"));
    Err(if retryable { error.temporary() } else { error.permanent() })
}

struct Resolver<'d> {
    definitions: &'d Definitions,
    registry: &'d Registry,
    clock: &'d Arc<dyn Clock>,
    view: &'d FeatureView,
    depth: Depth,
}

impl<'d> Resolver<'d> {
    async fn resolve(&self) -> Result<ResolvedView> {
        let source = self.source(&self.view.source)?;
        let effective = Effective::of(self.definitions, source);
        let keys = self.keys()?;
        match source.kind {
            SourceKind::Batch => self.resolve_batch(source, &effective, keys).await,
            _ => self.resolve_stream(source, &effective, keys).await,
        }
    }

    fn source(&self, name: &str) -> Result<&'d Source> {
        let source = self.definitions.sources.iter().find(|source| source.name == name);
        source.ok_or_else(|| Error::not_found(format!("there is no source `{name}`")))
    }

    fn keys(&self) -> Result<Vec<Key>> {
        let keys = self.view.entities.iter().map(|name| {
            let entity = self.definitions.entities.iter().find(|entity| entity.name == *name);
            let entity = entity.ok_or_else(|| Error::not_found(format!("there is no entity `{name}`")))?;
            Ok(Key { name: entity.join_key.clone(), value_type: entity.value_type.clone() })
        });
        keys.collect()
    }

    fn event_time(&self, effective: &Effective<'_>) -> Result<String> {
        let column = self.view.timestamp_field.as_deref();
        let column = column.or_else(|| effective.timestamp_field.map(|column| effective.renamed(column)));
        column
            .map(str::to_owned)
            .ok_or_else(|| Error::invalid("no `timestamp_field` says which column is the event time"))
    }

    /// The view without features and inputs.
    fn outline(&self, keys: Vec<Key>, event_time: String, created: Option<String>) -> View {
        View {
            name: self.view.name.clone(),
            generation: String::new(),
            keys,
            event_time,
            created,
            // Those of aggregations are known when the columns are.
            features: if self.view.aggregations.is_empty() { self.view.schema.clone() } else { Vec::new() },
            ttl: self.view.ttl.0,
            online: self.view.online,
            offline: self.view.offline,
            batch: None,
            stream: None,
            windows: None,
        }
    }

    async fn resolve_batch(&self, source: &Source, effective: &Effective<'_>, keys: Vec<Key>) -> Result<ResolvedView> {
        let event_time = self.event_time(effective)?;
        let created = effective.created.map(|column| effective.renamed(column).to_owned());
        let mut view = self.outline(keys, event_time, created);
        let table = self.open_batch(source)?;
        let columns = if view.features.is_empty() || self.depth == Depth::Tables {
            columns_of(table.as_ref()).await?
        } else {
            None
        };
        if view.features.is_empty() {
            let Some(columns) = &columns else {
                return Err(Error::invalid(format!(
                    "`schema` is not given, and the source `{}` has nothing yet to take it from",
                    source.name
                )));
            };
            let renamed = columns.fields().iter().map(|f| (effective.renamed_owned(f.name()), f.data_type().clone()));
            view.features = infer(renamed, &view)?;
        }
        let batch = self.batch_input(source, effective, &view);
        if let Some(columns) = &columns {
            fits_table(columns, &batch, &view)?;
        }
        let parts = Parts::of_table(&self.identity(source, &table.identity()), &view, &batch);
        view.batch = Some(batch);
        view.generation = generation(&parts, 0);
        Ok(ResolvedView { view, parts })
    }

    async fn resolve_stream(&self, source: &Source, effective: &Effective<'_>, keys: Vec<Key>) -> Result<ResolvedView> {
        let event_time = self.event_time(effective)?;
        let created = effective.created.map(|column| effective.renamed(column).to_owned());
        let mut view = self.outline(keys, event_time, created);
        let input = input::columns(self, source, effective, &view).await?;
        let mut transform = self.plan(&input.schema)?;
        if let Some(created) = &view.created
            && effective.created_inherited
            && transform.output().column_with_name(created).is_none()
        {
            // The table knows when its rows were made; the stream need not.
            transform = Arc::new(input::WithoutCreated::new(transform, created));
        }
        let output = transform.output();
        if !self.view.aggregations.is_empty() {
            let windows = aggregations::windows(self.view, &output)?;
            view.features = windows.features.iter().map(|feature| feature.field.clone()).collect();
            view.windows = Some(Arc::new(windows));
        } else if view.features.is_empty() {
            let columns = output.fields().iter().map(|field| (field.name().clone(), field.data_type().clone()));
            view.features = infer(columns, &view)?;
        }
        fits_output(&output, &view, input.timestamp_unit)?;
        if let Some(table) = effective.batch {
            let batch = self.batch_input(table, &Effective::of(self.definitions, table), &view);
            if self.depth == Depth::Tables
                && let Some(columns) = columns_of(self.open_batch(table)?.as_ref()).await?
            {
                fits_table(&columns, &batch, &view).map_err(|error| {
                    Error::invalid(format!(
                        "its history, the batch source `{}`, holds transformed rows too: {}",
                        table.name,
                        error.message()
                    ))
                })?;
            }
            view.batch = Some(batch);
        }
        let parts = Parts::of_stream(&input, &view, &transform.fingerprint());
        view.stream = Some(StreamInput { source: source.name.clone(), input: input.schema, transform });
        view.generation = generation(&parts, 0);
        Ok(ResolvedView { view, parts })
    }

    fn plan(&self, input: &SchemaRef) -> Result<Arc<dyn PlannedTransform>> {
        match &self.view.transform {
            ViewTransform::None => Identity.plan(input),
            ViewTransform::Text { mode, text } => {
                let open = self.registry.role(mode, "transform", |plugin| plugin.transform)?;
                open(text)?.plan(input)
            }
            ViewTransform::Code { transform, .. } => transform.plan(input),
        }
    }

    fn open_batch(&self, source: &Source) -> Result<Arc<dyn BatchSource>> {
        let (config, context) = source_config(self.definitions, source, Arc::clone(self.clock));
        let role = self.registry.role(&source.plugin, "batch source", |plugin| plugin.batch)?;
        (role.open)(&config, &context)
    }

    /// A source's identity, which stays the same where the project's folder is moved.
    fn identity(&self, source: &Source, identity: &str) -> String {
        let folder = self.definitions.base_dir.to_string_lossy();
        let identity = match identity.split_once(folder.as_ref()) {
            Some((before, after)) if folder.len() > 1 && after.starts_with(['/', '\\']) => {
                format!("{before}.{after}")
            }
            _ => identity.to_owned(),
        };
        format!("{} {identity}", source.plugin)
    }

    /// How the columns of the batch source become the view's.
    fn batch_input(&self, table: &Source, effective: &Effective<'_>, view: &View) -> BatchInput {
        let mut columns = BTreeMap::new();
        let wanted = view.keys.iter().map(|key| &key.name).chain(view.columns().iter().map(|field| &field.name));
        for name in wanted {
            if let Some((column, _)) = effective.mapping.iter().find(|(_, renamed)| *renamed == name) {
                columns.insert(name.clone(), column.clone());
            }
        }
        let times = [(Some(&view.event_time), effective.timestamp_field), (view.created.as_ref(), effective.created)];
        for (name, column) in times {
            if let (Some(name), Some(column)) = (name, column)
                && name != column
            {
                columns.insert(name.clone(), column.to_owned());
            }
        }
        BatchInput { source: table.name.clone(), columns }
    }
}

/// The columns of a table; nothing where it is not there yet.
async fn columns_of(table: &dyn BatchSource) -> Result<Option<SchemaRef>> {
    match table.schema().await {
        Ok(schema) => Ok(Some(schema)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The features of a view that names none: every column that is no key, no time and not Headwater's own.
fn infer(columns: impl Iterator<Item = (String, DataType)>, view: &View) -> Result<Vec<Field>> {
    let mut features = Vec::new();
    for (name, data_type) in columns {
        let taken = view.keys.iter().any(|key| key.name == name)
            || view.event_time == name
            || view.created.as_ref() == Some(&name)
            || name.starts_with('_');
        if !taken {
            let dtype = value_type(&data_type).ok_or_else(|| {
                Error::invalid(format!(
                    "`schema` is not given, and no feature type fits the column `{name}`, which is {data_type}; list the \
                     features in `schema`"
                ))
            })?;
            features.push(Field::new(name, dtype));
        }
    }
    Ok(features)
}

/// The narrowest feature type that holds every value of an Arrow type.
pub(super) fn value_type(data_type: &DataType) -> Option<ValueType> {
    Some(match data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => ValueType::Int32,
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => ValueType::Int64,
        DataType::Float16 | DataType::Float32 => ValueType::Float32,
        DataType::Float64 | DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) => {
            ValueType::Float64
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ValueType::String,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            ValueType::Bytes
        }
        DataType::Boolean => ValueType::Bool,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => ValueType::UnixTimestamp,
        DataType::Dictionary(_, values) => value_type(values)?,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            match value_type(item.data_type())? {
                ValueType::Array(_) => return None,
                item => ValueType::Array(Box::new(item)),
            }
        }
        _ => return None,
    })
}

/// Checks that a transform gives a view's columns, in types that can be cast.
fn fits_output(output: &SchemaRef, view: &View, timestamp_unit: bool) -> Result<()> {
    let mut faults = Vec::new();
    for wanted in view.schema().fields() {
        let name = wanted.name();
        let Some((_, field)) = output.column_with_name(name) else {
            let what = match name {
                _ if view.keys.iter().any(|key| key.name == *name) => "the join key",
                _ if view.event_time == *name => "the event time",
                _ if view.created.as_ref() == Some(name) => "the created time",
                _ if view.windows.is_some() => "the column",
                _ => "the feature",
            };
            faults.push(format!("{what} `{name}` does not come out of the transform, {}", alternatives(name, output)));
            continue;
        };
        if !castable(field.data_type(), wanted.data_type(), timestamp_unit) {
            faults.push(uncastable(name, field.data_type(), wanted.data_type(), timestamp_unit));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::invalid(faults.join("; "))) }
}

/// Checks that a table has a view's columns, in types that can be cast.
fn fits_table(columns: &SchemaRef, batch: &BatchInput, view: &View) -> Result<()> {
    let mut faults = Vec::new();
    for wanted in view.schema().fields() {
        let name = batch.column(wanted.name());
        match columns.column_with_name(name) {
            None => faults.push(format!("there is no column `{name}`, {}", alternatives(name, columns))),
            Some((_, field)) if !castable(field.data_type(), wanted.data_type(), false) => {
                faults.push(uncastable(name, field.data_type(), wanted.data_type(), false));
            }
            Some(_) => {}
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::invalid(faults.join("; "))) }
}

fn alternatives(name: &str, columns: &Schema) -> String {
    let names = || columns.fields().iter().map(|field| field.name().as_str());
    let there = format!("which has {}", list(names()));
    match did_you_mean(name, names()) {
        Some(hint) => format!("{there}: {hint}"),
        None => there,
    }
}

fn uncastable(name: &str, from: &DataType, to: &DataType, timestamp_unit: bool) -> String {
    let time = matches!(to, DataType::Timestamp(..)) && from.is_numeric() && !timestamp_unit;
    let hint = if time { "; a `timestamp_unit` in the `record_format` says what the number counts" } else { "" };
    format!("the column `{name}` is {} and can never become {}{hint}", type_name(from), type_name(to))
}

/// Whether some value of one type can become one of the other.
fn castable(from: &DataType, to: &DataType, timestamp_unit: bool) -> bool {
    use DataType::{Dictionary, FixedSizeList, LargeList, List, Null, RunEndEncoded};
    match (from, to) {
        _ if from == to => true,
        (Null, _) => true,
        (Dictionary(_, from), _) => castable(from, to, timestamp_unit),
        (RunEndEncoded(_, from), _) => castable(from.data_type(), to, timestamp_unit),
        (List(from) | LargeList(from) | FixedSizeList(from, _), List(to)) => {
            castable(from.data_type(), to.data_type(), timestamp_unit)
        }
        _ if from.is_nested() || to.is_nested() => false,
        (DataType::Boolean, DataType::Timestamp(..)) => false,
        (_, DataType::Timestamp(..)) if from.is_numeric() => timestamp_unit,
        _ => arrow::compute::can_cast_types(from, to),
    }
}
