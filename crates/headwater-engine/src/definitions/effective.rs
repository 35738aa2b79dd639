//! What a source says of its rows, with what it inherits from its batch source.

use std::collections::BTreeMap;

use headwater_core::definitions::{Definitions, Source, SourceKind};

/// The times and names of a source's rows.
#[derive(Debug, Clone)]
pub(super) struct Effective<'d> {
    /// The column with the event time, as the source calls it.
    pub(super) timestamp_field: Option<&'d str>,
    /// The column with the created time, as the source calls it.
    pub(super) created: Option<&'d str>,
    /// Whether the source does not say itself which column holds the created time.
    pub(super) created_inherited: bool,
    /// Column in the source → name in views.
    pub(super) mapping: &'d BTreeMap<String, String>,
    /// The batch source that holds its history, if it is not one itself.
    pub(super) batch: Option<&'d Source>,
}

impl<'d> Effective<'d> {
    pub(super) fn of(definitions: &'d Definitions, source: &'d Source) -> Self {
        let batch = match &source.kind {
            SourceKind::Batch => None,
            SourceKind::Stream(settings) => find(definitions, &settings.batch_source),
            SourceKind::Push { batch_source } => batch_source.as_deref().and_then(|name| find(definitions, name)),
        };
        let own = source.created_timestamp_column.as_deref();
        let mapping = if source.field_mapping.is_empty() {
            batch.map_or(&source.field_mapping, |batch| &batch.field_mapping)
        } else {
            &source.field_mapping
        };
        Self {
            timestamp_field: source.timestamp_field.as_deref().or(batch.and_then(|b| b.timestamp_field.as_deref())),
            created: own.or(batch.and_then(|batch| batch.created_timestamp_column.as_deref())),
            created_inherited: own.is_none(),
            mapping,
            batch,
        }
    }

    /// What views call a column of the source.
    pub(super) fn renamed(&self, column: &'d str) -> &'d str {
        self.mapping.get(column).map_or(column, String::as_str)
    }

    /// As [`Effective::renamed`], for columns that do not come from definitions.
    pub(super) fn renamed_owned(&self, column: &str) -> String {
        self.mapping.get(column).map_or(column, String::as_str).to_owned()
    }
}

/// The batch source of this name.
fn find<'d>(definitions: &'d Definitions, name: &str) -> Option<&'d Source> {
    definitions.sources.iter().find(|source| source.name == name && source.kind == SourceKind::Batch)
}
