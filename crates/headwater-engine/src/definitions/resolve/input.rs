//! The columns that a stream's records bring to a transform.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use headwater_core::definitions::{RecordFormat, Source, SourceKind, ViewTransform, timestamp_type};
use headwater_core::transform::{Fingerprint, PlannedTransform, Transformed};
use headwater_core::{Error, ErrorKind, Result};

use super::parts::type_name;
use super::{Effective, Resolver};
use crate::definitions::ddl;
use crate::ingest::formats;
use crate::project::source_config;
use crate::view::View;

/// What a stream brings.
#[derive(Debug)]
pub(super) struct Input {
    /// The columns, renamed, with the metadata columns at the end.
    pub(super) schema: SchemaRef,
    /// The source's identity.
    pub(super) identity: String,
    /// Column → what definitions make of it, to be read behind its name: ` from other: double`.
    pub(super) notes: BTreeMap<String, String>,
    /// Whether numbers may stand for times.
    pub(super) timestamp_unit: bool,
}

pub(super) async fn columns(
    resolver: &Resolver<'_>,
    source: &Source,
    effective: &Effective<'_>,
    view: &View,
) -> Result<Input> {
    match &source.kind {
        SourceKind::Stream(settings) => {
            stream_columns(resolver, source, settings.record_format.as_ref(), effective, view).await
        }
        _ => push_columns(resolver, source, effective, view),
    }
}

fn push_columns(resolver: &Resolver<'_>, source: &Source, effective: &Effective<'_>, view: &View) -> Result<Input> {
    let identity = format!("push {}", source.name);
    let text = source.options.get("schema").and_then(|schema| schema.as_str());
    let (fields, notes) = match text {
        Some(text) => {
            let schema = read_ddl(text)?;
            (renamed(&schema, effective)?, notes(&schema, effective, true))
        }
        None if matches!(resolver.view.transform, ViewTransform::None) && !view.features.is_empty() => {
            (view.schema().fields().to_vec(), BTreeMap::new())
        }
        None => {
            return Err(Error::invalid(format!(
                "the push source `{}` has no `schema` (Spark DDL) that says which columns are pushed; only a view \
                 without a transform and with a `schema` of its own can do without",
                source.name
            )));
        }
    };
    Ok(Input { schema: Arc::new(Schema::new(fields)), identity, notes, timestamp_unit: false })
}

async fn stream_columns(
    resolver: &Resolver<'_>,
    source: &Source,
    format: Option<&RecordFormat>,
    effective: &Effective<'_>,
    view: &View,
) -> Result<Input> {
    let (config, context) = source_config(resolver.definitions, source, Arc::clone(resolver.clock));
    let role = resolver.registry.role(&source.plugin, "stream source", |plugin| plugin.stream)?;
    let stream = (role.open)(&config, &context)?;
    let capabilities = stream.capabilities();
    if stream.deletes() && !resolver.view.aggregations.is_empty() {
        return Err(Error::invalid(format!(
            "the source `{}` deletes entities by records without a value, and windows cannot forget events: a view with \
             `aggregations` needs a source that ignores such records",
            source.name
        )));
    }
    let mut identity = resolver.identity(source, &stream.identity());
    let mut timestamp_unit = false;

    let (mut fields, notes) = match (capabilities.encoded, format) {
        (true, Some(format)) if format.kind == "json" => {
            let schema = read_ddl(format.schema.as_deref().unwrap_or_default())?;
            if let Some(unit) = &format.timestamp_unit {
                timestamp_unit = true;
                // Another unit makes other times of the same records.
                identity = format!("{identity} in {unit}");
            }
            (renamed(&schema, effective)?, notes(&schema, effective, true))
        }
        (true, Some(format)) => {
            let described = formats::describe(format, &resolver.definitions.base_dir)?;
            identity.push_str(&described.identity);
            let mut notes = notes(&described.schema, effective, true);
            for (field, more) in described.schema.fields().iter().zip(&described.notes) {
                notes.entry(effective.renamed_owned(field.name())).or_default().push_str(more);
            }
            (renamed(&described.schema, effective)?, notes)
        }
        (true, None) => {
            return Err(Error::invalid(format!(
                "the records of `{}` are bytes: a `record_format` has to say what they look like",
                source.name
            )));
        }
        (false, Some(_)) => {
            return Err(Error::invalid(format!(
                "the records of `{}` come as columns: a `record_format` has no place there",
                source.name
            )));
        }
        (false, None) => match stream.schema().await {
            Ok(Some(schema)) => (renamed(&schema, effective)?, notes(&schema, effective, false)),
            Ok(None) => {
                return Err(Error::unexpected(format!("the plugin `{}` knows no columns", source.plugin)));
            }
            // What is not there yet has to have the columns of the view, if nothing is done to them.
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && matches!(resolver.view.transform, ViewTransform::None)
                    && !view.features.is_empty() =>
            {
                (view.schema().fields().to_vec(), BTreeMap::new())
            }
            Err(error) => return Err(error),
        },
    };
    if let Some(metadata) = &capabilities.metadata {
        fields.retain(|field| metadata.column_with_name(field.name()).is_none());
        fields.extend(metadata.fields().iter().cloned());
    }
    Ok(Input { schema: Arc::new(Schema::new(fields)), identity, notes, timestamp_unit })
}

fn read_ddl(text: &str) -> Result<SchemaRef> {
    ddl::parse(text)
        .map_err(|error| Error::invalid(format!("`schema`: {} (character {})", error.message, error.at + 1)))
}

fn renamed(schema: &Schema, effective: &Effective<'_>) -> Result<Vec<FieldRef>> {
    let mut fields: Vec<FieldRef> = Vec::new();
    for field in schema.fields() {
        let name = effective.renamed_owned(field.name());
        if fields.iter().any(|other| *other.name() == name) {
            return Err(Error::invalid(format!(
                "two columns would be called `{name}`; `field_mapping` makes one of them of another"
            )));
        }
        fields.push(Arc::new(field.as_ref().clone().with_name(name)));
    }
    Ok(fields)
}

fn notes(schema: &Schema, effective: &Effective<'_>, typed: bool) -> BTreeMap<String, String> {
    let mut notes = BTreeMap::new();
    for field in schema.fields() {
        let name = effective.renamed_owned(field.name());
        let mut note = String::new();
        if name != *field.name() {
            note.push_str(&format!(" from {}", field.name()));
        }
        if typed {
            note.push_str(&format!(": {}", type_name(field.data_type())));
        }
        if !note.is_empty() {
            notes.insert(name, note);
        }
    }
    notes
}

/// A transform with a null created time beside its columns.
#[derive(Debug)]
pub(super) struct WithoutCreated {
    inner: Arc<dyn PlannedTransform>,
    created: String,
    output: SchemaRef,
}

impl WithoutCreated {
    pub(super) fn new(inner: Arc<dyn PlannedTransform>, created: &str) -> Self {
        let mut fields = inner.output().fields().to_vec();
        fields.push(Arc::new(Field::new(created, timestamp_type(), true)));
        Self { inner, created: created.to_owned(), output: Arc::new(Schema::new(fields)) }
    }
}

impl PlannedTransform for WithoutCreated {
    fn output(&self) -> SchemaRef {
        Arc::clone(&self.output)
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = self.inner.fingerprint();
        fingerprint.columns.insert(self.created.clone(), "NULL".into());
        fingerprint
    }

    fn apply(&self, input: &RecordBatch) -> Result<Transformed> {
        let mut transformed = self.inner.apply(input)?;
        let rows = transformed.rows.num_rows();
        let mut columns = transformed.rows.columns().to_vec();
        columns.push(new_null_array(&timestamp_type(), rows));
        // The planned columns may promise more than a batch keeps, such as no nulls.
        let mut fields = transformed.rows.schema().fields().to_vec();
        fields.push(Arc::new(Field::new(&self.created, timestamp_type(), true)));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        transformed.rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        Ok(transformed)
    }
}
