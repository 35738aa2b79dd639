//! The vocabulary of feature definitions: entities, sources, views and services, in Feast's words.
//!
//! A YAML file and these builders give the same thing. The structs hold what was written; the engine checks them (names,
//! references, types) when a store is opened.

mod aggregation;
mod source;
mod values;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use aggregation::{AggregateFunction, Aggregation};
pub use source::{LateEvents, OnError, RecordFormat, Source, SourceKind, StreamSettings};
pub use values::{ValueType, timestamp_type};
pub use view::{FeatureView, ViewTransform};

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
