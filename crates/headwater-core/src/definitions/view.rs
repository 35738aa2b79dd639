//! What is made of them.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use super::{Aggregation, Annotations, Field, ValueType};
use crate::error::{Error, Result};
use crate::options::Duration;
use crate::transform::{PlannedTransform, Transform};

/// How a view's rows are made from its source's.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViewTransform {
    /// They are the source's.
    #[default]
    None,
    /// By a plugin: `mode: sql` and the text of `transform`.
    Text {
        /// The plugin.
        mode: String,
        /// What it is to do.
        text: String,
    },
    /// By code. Such a view cannot come from a file; programs that open the store give it again.
    Code {
        /// Changes exactly when the code's results change.
        version: String,
        /// The code. It is not serialised; what is read back refuses to be planned.
        #[serde(skip, default = "missing_code")]
        transform: Arc<dyn Transform>,
    },
}

/// Stands where code was that a file cannot hold.
#[derive(Debug)]
struct MissingCode;

impl Transform for MissingCode {
    fn plan(&self, _input: &SchemaRef) -> Result<Arc<dyn PlannedTransform>> {
        Err(Error::invalid("this view is transformed by code, which only the program that has it can give"))
    }
}

fn missing_code() -> Arc<dyn Transform> {
    Arc::new(MissingCode)
}

impl PartialEq for ViewTransform {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Text { mode: a, text: b }, Self::Text { mode: c, text: d }) => a == c && b == d,
            (Self::Code { version: a, .. }, Self::Code { version: b, .. }) => a == b,
            _ => false,
        }
    }
}

/// A group of features of the same entities, from one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureView {
    /// Its name.
    pub name: String,
    /// Whether it was declared among `stream_feature_views`: its source is then a stream or push source.
    pub stream: bool,
    /// The entities it describes; none for features of everything.
    pub entities: Vec<String>,
    /// How long a value holds; zero = for ever.
    pub ttl: Duration,
    /// The features. Empty: every column of the source or the transform that is no key and no time; of a view with
    /// aggregations: theirs.
    pub schema: Vec<Field>,
    /// What is computed over windows of the view's rows; none: the newest row is served.
    #[serde(default)]
    pub aggregations: Vec<Aggregation>,
    /// The source's name.
    pub source: String,
    /// How the source's rows become the view's.
    pub transform: ViewTransform,
    /// The column with the event time, where it is not the source's.
    pub timestamp_field: Option<String>,
    /// Values are served online.
    pub online: bool,
    /// The job logs to the offline store.
    pub offline: bool,
    /// Description, owner, tags.
    pub annotations: Annotations,
}

impl FeatureView {
    /// A view over a batch source.
    pub fn batch(name: impl Into<String>, source: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            stream: false,
            entities: Vec::new(),
            ttl: Duration(0),
            schema: Vec::new(),
            aggregations: Vec::new(),
            source: source.into(),
            transform: ViewTransform::None,
            timestamp_field: None,
            online: true,
            offline: false,
            annotations: Annotations::default(),
        }
    }

    /// A view over a stream or push source.
    pub fn stream(name: impl Into<String>, source: impl Into<String>) -> Self {
        Self { stream: true, ..Self::batch(name, source) }
    }

    /// Adds an entity.
    #[must_use]
    pub fn entity(mut self, entity: impl Into<String>) -> Self {
        self.entities.push(entity.into());
        self
    }

    /// Adds a feature.
    #[must_use]
    pub fn feature(mut self, name: impl Into<String>, dtype: ValueType) -> Self {
        self.schema.push(Field::new(name, dtype));
        self
    }

    /// Adds a feature that is described.
    #[must_use]
    pub fn field(mut self, field: Field) -> Self {
        self.schema.push(field);
        self
    }

    /// Adds an aggregation.
    #[must_use]
    pub fn aggregation(mut self, aggregation: Aggregation) -> Self {
        self.aggregations.push(aggregation);
        self
    }

    /// Names the column with the event time, where it is not the source's.
    #[must_use]
    pub fn timestamp_field(mut self, column: impl Into<String>) -> Self {
        self.timestamp_field = Some(column.into());
        self
    }

    /// Sets how long a value holds.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Transforms by SQL.
    #[must_use]
    pub fn sql(mut self, text: impl Into<String>) -> Self {
        self.transform = ViewTransform::Text { mode: "sql".into(), text: text.into() };
        self
    }

    /// Transforms by code. `version` has to change whenever the code's results do.
    #[must_use]
    pub fn code(mut self, version: impl Into<String>, transform: impl Transform + 'static) -> Self {
        self.transform = ViewTransform::Code { version: version.into(), transform: Arc::new(transform) };
        self
    }

    /// Logs to the offline store.
    #[must_use]
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// Serves online.
    #[must_use]
    pub fn online(mut self, online: bool) -> Self {
        self.online = online;
        self
    }
}
