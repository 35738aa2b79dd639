//! Views as the engine works with them: checked, resolved, with one row layout.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{BinaryArray, RecordBatch, UInt32Array};
use arrow::datatypes::{Field as ArrowField, Schema, SchemaRef};
use headwater_core::definitions::{Field, ValueType, timestamp_type};
use headwater_core::offline::LogId;
use headwater_core::transform::PlannedTransform;
use headwater_core::{Micros, Origin, SplitId};

use crate::windows::Windows;

/// A join key of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The column.
    pub name: String,
    /// Its type: the entity's.
    pub value_type: ValueType,
}

/// A view whose references are resolved.
///
/// Its rows always have the columns of [`View::schema`], whichever way they come: from the stream, from the batch
/// source, from the log or from a caller.
#[derive(Debug, Clone)]
pub struct View {
    /// Its name.
    pub name: String,
    /// What makes its rows, as a short hash. Online rows, log and checkpoints live under it.
    pub generation: String,
    /// Its join keys, in order of the entities. Empty for features of everything.
    pub keys: Vec<Key>,
    /// The column with the event time, never null.
    pub event_time: String,
    /// The column with the created time, if its source has one.
    pub created: Option<String>,
    /// Its features, in order of the schema: what is served and asked for.
    pub features: Vec<Field>,
    /// How its features follow from windows of its rows; `None` where a row's columns are the features.
    pub windows: Option<Arc<Windows>>,
    /// How long a value holds; zero = for ever.
    pub ttl: Micros,
    /// Values are served online.
    pub online: bool,
    /// Rows are logged to the offline store.
    pub offline: bool,
    /// The batch source with its history, if it has one.
    pub batch: Option<BatchInput>,
    /// The stream or push source that feeds it, if one does.
    pub stream: Option<StreamInput>,
}

/// How a batch source's columns become a view's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchInput {
    /// The source's name.
    pub source: String,
    /// Column of the view → column of the batch source: the two times where their names differ, and what
    /// `field_mapping` renames. Columns that are not in it have the same name in both.
    pub columns: BTreeMap<String, String>,
}

impl BatchInput {
    /// The source's name for a column of the view.
    pub fn column<'a>(&'a self, view_column: &'a str) -> &'a str {
        self.columns.get(view_column).map_or(view_column, String::as_str)
    }
}

/// How a stream's records become a view's rows.
#[derive(Debug, Clone)]
pub struct StreamInput {
    /// The source's name.
    pub source: String,
    /// The columns of a decoded record, as the transform gets them: after `field_mapping`, with the source's metadata
    /// columns (`__timestamp` …) at the end.
    pub input: SchemaRef,
    /// The planned transform. Its output has at least the columns of [`View::schema`], not yet cast.
    pub transform: Arc<dyn PlannedTransform>,
}

impl View {
    /// The columns of its rows that are no key and no time: the features, or what the aggregations are computed from.
    pub fn columns(&self) -> &[Field] {
        self.windows.as_ref().map_or(&self.features, |windows| &windows.columns)
    }

    /// The columns of its rows: join keys, event time, created (if any), then [`View::columns`]. Keys and event time are
    /// never null.
    pub fn schema(&self) -> SchemaRef {
        let mut fields: Vec<ArrowField> =
            self.keys.iter().map(|key| ArrowField::new(&key.name, key.value_type.to_arrow(), false)).collect();
        fields.push(ArrowField::new(&self.event_time, timestamp_type(), false));
        if let Some(created) = &self.created {
            fields.push(ArrowField::new(created, timestamp_type(), true));
        }
        fields.extend(self.columns().iter().map(|f| ArrowField::new(&f.name, f.dtype.to_arrow(), true)));
        Arc::new(Schema::new(fields))
    }

    /// Its log in the offline store.
    pub fn log(&self) -> LogId {
        LogId { view: self.name.clone(), generation: self.generation.clone() }
    }
}

/// Rows of a view with what their versions need.
#[derive(Debug, Clone)]
pub struct ViewRows {
    /// The rows, with the columns of [`View::schema`].
    pub rows: RecordBatch,
    /// Which way they came in.
    pub origin: Origin,
    /// The split they were read from.
    pub split: SplitId,
    /// The position of each row's record; equal for rows of one record.
    pub positions: BinaryArray,
    /// Which of the rows of its record each one is; `None` where every record gave one row.
    pub ordinals: Option<UInt32Array>,
}
