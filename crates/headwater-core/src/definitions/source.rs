//! Where rows come from.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Annotations;
use crate::options::Duration;
use crate::stream::StartPosition;

/// What a stream's records look like before they are decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordFormat {
    /// `json`, `avro` or `protobuf`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The columns as Spark DDL (json), the reader's schema as Avro's JSON (avro).
    #[serde(default)]
    pub schema: Option<String>,
    /// The unit of numeric times in JSON: `s`, `ms` or `us`; text is RFC 3339 in any case.
    #[serde(default)]
    pub timestamp_unit: Option<String>,
    /// Options that only one format has.
    #[serde(default)]
    pub options: BTreeMap<String, Value>,
}

impl RecordFormat {
    /// JSON objects with these columns, as Spark DDL.
    pub fn json(ddl: impl Into<String>) -> Self {
        Self { kind: "json".into(), schema: Some(ddl.into()), timestamp_unit: None, options: BTreeMap::new() }
    }

    /// Avro, read with this schema: a record in Avro's JSON. Without a schema registry it is the writers' too.
    pub fn avro(schema: impl Into<String>) -> Self {
        Self { kind: "avro".into(), schema: Some(schema.into()), timestamp_unit: None, options: BTreeMap::new() }
    }

    /// Protobuf messages of the type `message`, described by the descriptor set file `descriptor_set`.
    pub fn protobuf(descriptor_set: impl Into<String>, message: impl Into<String>) -> Self {
        let options =
            [("descriptor_set".into(), descriptor_set.into().into()), ("message".into(), message.into().into())];
        Self { kind: "protobuf".into(), schema: None, timestamp_unit: None, options: options.into() }
    }

    /// Sets the unit of numeric times in JSON: `s`, `ms` or `us`.
    #[must_use]
    pub fn timestamp_unit(mut self, unit: impl Into<String>) -> Self {
        self.timestamp_unit = Some(unit.into());
        self
    }
}

/// What becomes of a record that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// It goes to the dead letters and the job goes on.
    #[default]
    DeadLetter,
    /// The job stops.
    Fail,
}

/// What becomes of an event older than the watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LateEvents {
    /// It counts wherever it can still change an answer.
    #[default]
    Accept,
    /// It goes to the dead letters.
    DeadLetter,
}

/// What a stream source says beside its connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamSettings {
    /// The batch source that holds the stream's history.
    pub batch_source: String,
    /// Where splits without a checkpoint begin. Text as in the file: `earliest`, `latest`, RFC 3339.
    #[serde(with = "start_text")]
    pub start: StartPosition,
    /// How records are encoded; `None` where the source hands over columns.
    pub record_format: Option<RecordFormat>,
    /// An event older than the newest event of its split by more than this is late.
    pub watermark_delay_threshold: Option<Duration>,
    /// What becomes of records that cannot be used.
    pub on_error: OnError,
    /// What becomes of late events.
    pub late_events: LateEvents,
    /// How far an event may be dated after the time stored with its record.
    pub max_future_skew: Duration,
}

impl StreamSettings {
    /// The settings of a stream over this batch source, everything else at its default.
    pub fn new(batch_source: impl Into<String>) -> Self {
        Self {
            batch_source: batch_source.into(),
            start: StartPosition::Earliest,
            record_format: None,
            watermark_delay_threshold: None,
            on_error: OnError::default(),
            late_events: LateEvents::default(),
            max_future_skew: Duration(600_000_000),
        }
    }

    /// Says how records are encoded.
    #[must_use]
    pub fn record_format(mut self, format: RecordFormat) -> Self {
        self.record_format = Some(format);
        self
    }

    /// Says where splits without a checkpoint begin.
    #[must_use]
    pub fn start(mut self, start: StartPosition) -> Self {
        self.start = start;
        self
    }

    /// Says how much older than its split's newest event an event may be before it counts as late.
    #[must_use]
    pub fn watermark_delay_threshold(mut self, threshold: Duration) -> Self {
        self.watermark_delay_threshold = Some(threshold);
        self
    }

    /// Says what becomes of records that cannot be used.
    #[must_use]
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = on_error;
        self
    }

    /// Says what becomes of late events.
    #[must_use]
    pub fn late_events(mut self, late_events: LateEvents) -> Self {
        self.late_events = late_events;
        self
    }

    /// Says how far an event may be dated after the time stored with its record.
    #[must_use]
    pub fn max_future_skew(mut self, skew: Duration) -> Self {
        self.max_future_skew = skew;
        self
    }
}

/// What a source is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // A definition has a handful of sources.
pub enum SourceKind {
    /// A table.
    Batch,
    /// A stream of events.
    Stream(StreamSettings),
    /// Rows that callers push; history lies in the batch source, if there is one.
    Push {
        /// The batch source.
        batch_source: Option<String>,
    },
}

/// Where rows come from.
///
/// `Debug` shows which options there are, not their values: a secret may be among them.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its `type`: the name of a plugin, or `push`.
    #[serde(rename = "type")]
    pub plugin: String,
    /// What it is for.
    pub kind: SourceKind,
    /// The column with the event time; a stream or push source takes its batch source's where it has none itself.
    pub timestamp_field: Option<String>,
    /// The column with the time at which a row was made; inherited likewise.
    pub created_timestamp_column: Option<String>,
    /// Column in the source → name in views; inherited likewise.
    #[serde(default)]
    pub field_mapping: BTreeMap<String, String>,
    /// The plugin's options, as they were written. A push source has one: `schema`, the columns of what is pushed as
    /// Spark DDL, where its views have transforms.
    #[serde(default)]
    pub options: BTreeMap<String, Value>,
    /// Description, owner, tags.
    #[serde(default)]
    pub annotations: Annotations,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("plugin", &self.plugin)
            .field("kind", &self.kind)
            .field("timestamp_field", &self.timestamp_field)
            .field("created_timestamp_column", &self.created_timestamp_column)
            .field("field_mapping", &self.field_mapping)
            .field("options", &self.options.keys())
            .field("annotations", &self.annotations)
            .finish()
    }
}

impl Source {
    fn new(name: impl Into<String>, plugin: impl Into<String>, kind: SourceKind) -> Self {
        Self {
            name: name.into(),
            plugin: plugin.into(),
            kind,
            timestamp_field: None,
            created_timestamp_column: None,
            field_mapping: BTreeMap::new(),
            options: BTreeMap::new(),
            annotations: Annotations::default(),
        }
    }

    /// A table read by the plugin `plugin`.
    pub fn batch(name: impl Into<String>, plugin: impl Into<String>) -> Self {
        Self::new(name, plugin, SourceKind::Batch)
    }

    /// A stream read by the plugin `plugin`.
    pub fn stream(name: impl Into<String>, plugin: impl Into<String>, settings: StreamSettings) -> Self {
        Self::new(name, plugin, SourceKind::Stream(settings))
    }

    /// Rows pushed by callers.
    pub fn push(name: impl Into<String>, batch_source: Option<String>) -> Self {
        Self::new(name, "push", SourceKind::Push { batch_source })
    }

    /// Sets an option of the plugin.
    #[must_use]
    pub fn option(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.options.insert(key.into(), value.into());
        self
    }

    /// Names the column with the event time.
    #[must_use]
    pub fn timestamp_field(mut self, column: impl Into<String>) -> Self {
        self.timestamp_field = Some(column.into());
        self
    }

    /// Names the column with the created time.
    #[must_use]
    pub fn created_timestamp_column(mut self, column: impl Into<String>) -> Self {
        self.created_timestamp_column = Some(column.into());
        self
    }

    /// Renames a column: views know `column` as `name`.
    #[must_use]
    pub fn field_mapping(mut self, column: impl Into<String>, name: impl Into<String>) -> Self {
        self.field_mapping.insert(column.into(), name.into());
        self
    }
}

mod start_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::stream::StartPosition;

    pub(super) fn serialize<S: Serializer>(start: &StartPosition, serializer: S) -> Result<S::Ok, S::Error> {
        match start {
            StartPosition::Earliest => serializer.serialize_str("earliest"),
            StartPosition::Latest => serializer.serialize_str("latest"),
            StartPosition::At(time) => serializer.serialize_str(&format!("{time}us")),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StartPosition, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "earliest" => Ok(StartPosition::Earliest),
            "latest" => Ok(StartPosition::Latest),
            other => other
                .strip_suffix("us")
                .and_then(|micros| micros.parse().ok())
                .map(StartPosition::At)
                .ok_or_else(|| D::Error::custom(format!("`{other}` is no start position"))),
        }
    }
}
