//! The vocabulary of feature definitions: entities, sources, views and services, in Feast's words.
//!
//! A YAML file and these builders give the same thing. The structs hold what was written; the engine checks them (names,
//! references, types) when a store is opened.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::options::Duration;
use crate::stream::StartPosition;
use crate::transform::{PlannedTransform, Transform};

/// The type of a feature or key, as Feast names them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ValueType {
    /// Bytes.
    Bytes,
    /// UTF-8 text.
    String,
    /// 32-bit integers.
    Int32,
    /// 64-bit integers.
    Int64,
    /// 32-bit floats.
    Float32,
    /// 64-bit floats.
    Float64,
    /// Booleans.
    Bool,
    /// Microseconds since the epoch, UTC.
    UnixTimestamp,
    /// Lists of one of the others. Written `array(string)`.
    Array(Box<ValueType>),
}

impl ValueType {
    /// The names of the types that are no lists.
    pub const SCALARS: [&'static str; 8] =
        ["bytes", "string", "int32", "int64", "float32", "float64", "bool", "unix_timestamp"];

    /// Reads a type's name, in any case: `int64`, `array(string)`.
    ///
    /// # Errors
    /// `Invalid`, listing the types.
    pub fn parse(text: &str) -> Result<Self> {
        let name = text.trim().to_ascii_lowercase();
        if let Some(inner) = name.strip_prefix("array(").and_then(|rest| rest.strip_suffix(')')) {
            let inner = Self::parse(inner)?;
            if matches!(inner, Self::Array(_)) {
                return Err(Error::invalid(format!("`{text}`: lists of lists are not a feature type")));
            }
            return Ok(Self::Array(Box::new(inner)));
        }
        Ok(match name.as_str() {
            "bytes" => Self::Bytes,
            "string" => Self::String,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "float32" => Self::Float32,
            "float64" => Self::Float64,
            "bool" => Self::Bool,
            "unix_timestamp" => Self::UnixTimestamp,
            _ => {
                return Err(Error::invalid(format!(
                    "`{text}` is not a type; there are {} and lists of them such as `array(string)`",
                    Self::SCALARS.map(|name| format!("`{name}`")).join(", ")
                )));
            }
        })
    }

    /// The Arrow type of its values.
    pub fn to_arrow(&self) -> DataType {
        match self {
            Self::Bytes => DataType::Binary,
            Self::String => DataType::Utf8,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::UnixTimestamp => timestamp_type(),
            Self::Array(inner) => DataType::List(Arc::new(ArrowField::new("item", inner.to_arrow(), true))),
        }
    }
}

/// The Arrow type of every time in Headwater: `timestamp[us, UTC]`.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes => f.write_str("bytes"),
            Self::String => f.write_str("string"),
            Self::Int32 => f.write_str("int32"),
            Self::Int64 => f.write_str("int64"),
            Self::Float32 => f.write_str("float32"),
            Self::Float64 => f.write_str("float64"),
            Self::Bool => f.write_str("bool"),
            Self::UnixTimestamp => f.write_str("unix_timestamp"),
            Self::Array(inner) => write!(f, "array({inner})"),
        }
    }
}

impl TryFrom<String> for ValueType {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<ValueType> for String {
    fn from(value: ValueType) -> Self {
        value.to_string()
    }
}

/// What may be said of anything: description, owner and tags.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Annotations {
    /// Free text.
    pub description: String,
    /// Who looks after it.
    pub owner: String,
    /// Free keys and values.
    pub tags: BTreeMap<String, String>,
}

/// Gives a definition the builders for its annotations.
macro_rules! annotated {
    ($($name:ident),*) => {$(
        impl $name {
            /// Describes it.
            #[must_use]
            pub fn description(mut self, description: impl Into<String>) -> Self {
                self.annotations.description = description.into();
                self
            }

            /// Says who looks after it.
            #[must_use]
            pub fn owner(mut self, owner: impl Into<String>) -> Self {
                self.annotations.owner = owner.into();
                self
            }

            /// Adds a tag.
            #[must_use]
            pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
                self.annotations.tags.insert(key.into(), value.into());
                self
            }
        }
    )*};
}

annotated!(Entity, Field, Source, FeatureView, FeatureService, StoreDefinition, Definitions);

/// A thing that features describe, known by one join key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// Its name.
    pub name: String,
    /// The column that identifies it; the name where none is given.
    pub join_key: String,
    /// The type of that column.
    pub value_type: ValueType,
    /// Description, owner, tags.
    #[serde(default)]
    pub annotations: Annotations,
}

impl Entity {
    /// An entity whose join key is called like it.
    pub fn new(name: impl Into<String>, value_type: ValueType) -> Self {
        let name = name.into();
        Self { join_key: name.clone(), name, value_type, annotations: Annotations::default() }
    }

    /// Names the join key.
    #[must_use]
    pub fn join_key(mut self, join_key: impl Into<String>) -> Self {
        self.join_key = join_key.into();
        self
    }
}

/// A feature: its name and type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub dtype: ValueType,
    /// Description, owner, tags.
    #[serde(default)]
    pub annotations: Annotations,
}

impl Field {
    /// A feature.
    pub fn new(name: impl Into<String>, dtype: ValueType) -> Self {
        Self { name: name.into(), dtype, annotations: Annotations::default() }
    }
}

/// What a stream's records look like before they are decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordFormat {
    /// `json`, `avro` or `protobuf`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The columns as Spark DDL (json), the reader's schema (avro).
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

    /// Avro, read with this schema (Avro's JSON); `None` = the writer's.
    pub fn avro(schema: Option<String>) -> Self {
        Self { kind: "avro".into(), schema, timestamp_unit: None, options: BTreeMap::new() }
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
    /// The features. Empty: every column of the source or the transform that is no key and no time.
    pub schema: Vec<Field>,
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

/// The features that one model asks for: whole views (`view`) or single features (`view:feature`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureService {
    /// Its name.
    pub name: String,
    /// `view` or `view:feature`.
    pub features: Vec<String>,
    /// Description, owner, tags.
    #[serde(default)]
    pub annotations: Annotations,
}

impl FeatureService {
    /// A service of these features.
    pub fn new(name: impl Into<String>, features: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            name: name.into(),
            features: features.into_iter().map(Into::into).collect(),
            annotations: Annotations::default(),
        }
    }
}

/// An online or offline store: the plugin and its options.
///
/// `Debug` shows which options there are, not their values: a secret may be among them.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreDefinition {
    /// The plugin.
    #[serde(rename = "type")]
    pub plugin: String,
    /// Its options, as they were written.
    #[serde(default)]
    pub options: BTreeMap<String, Value>,
    /// Description, owner, tags.
    #[serde(default)]
    pub annotations: Annotations,
}

impl fmt::Debug for StoreDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreDefinition")
            .field("plugin", &self.plugin)
            .field("options", &self.options.keys())
            .field("annotations", &self.annotations)
            .finish()
    }
}

impl StoreDefinition {
    /// A store of the plugin `plugin`.
    pub fn new(plugin: impl Into<String>) -> Self {
        Self { plugin: plugin.into(), options: BTreeMap::new(), annotations: Annotations::default() }
    }

    /// Sets an option.
    #[must_use]
    pub fn option(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.options.insert(key.into(), value.into());
        self
    }
}

/// Everything that a definition file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definitions {
    /// The project: the first part of every group id.
    pub project: String,
    /// The file that remembers what was applied; relative to [`Definitions::base_dir`].
    pub registry: String,
    /// Where newest values are served from.
    pub online_store: StoreDefinition,
    /// Where history is logged to.
    pub offline_store: StoreDefinition,
    /// The entities.
    pub entities: Vec<Entity>,
    /// The sources.
    pub sources: Vec<Source>,
    /// The views, batch and stream.
    pub feature_views: Vec<FeatureView>,
    /// The services.
    pub feature_services: Vec<FeatureService>,
    /// Description, owner, tags of the project.
    #[serde(default)]
    pub annotations: Annotations,
    /// The folder that relative paths start from: the definition file's. Not serialised.
    #[serde(skip)]
    pub base_dir: PathBuf,
}

impl Definitions {
    /// An empty project with its stores in memory.
    pub fn new(project: impl Into<String>) -> Self {
        Self {
            project: project.into(),
            registry: "data/registry.json".into(),
            online_store: StoreDefinition::new("memory"),
            offline_store: StoreDefinition::new("memory"),
            entities: Vec::new(),
            sources: Vec::new(),
            feature_views: Vec::new(),
            feature_services: Vec::new(),
            annotations: Annotations::default(),
            base_dir: PathBuf::from("."),
        }
    }

    /// Names the file that remembers what was applied.
    #[must_use]
    pub fn registry(mut self, path: impl Into<String>) -> Self {
        self.registry = path.into();
        self
    }

    /// Says where newest values are served from.
    #[must_use]
    pub fn online_store(mut self, store: StoreDefinition) -> Self {
        self.online_store = store;
        self
    }

    /// Says where history is logged to.
    #[must_use]
    pub fn offline_store(mut self, store: StoreDefinition) -> Self {
        self.offline_store = store;
        self
    }

    /// Names the folder that relative paths start from.
    #[must_use]
    pub fn base_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.base_dir = folder.into();
        self
    }

    /// Adds an entity.
    #[must_use]
    pub fn entity(mut self, entity: Entity) -> Self {
        self.entities.push(entity);
        self
    }

    /// Adds a source.
    #[must_use]
    pub fn source(mut self, source: Source) -> Self {
        self.sources.push(source);
        self
    }

    /// Adds a view.
    #[must_use]
    pub fn view(mut self, view: FeatureView) -> Self {
        self.feature_views.push(view);
        self
    }

    /// Adds a service.
    #[must_use]
    pub fn service(mut self, service: FeatureService) -> Self {
        self.feature_services.push(service);
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
