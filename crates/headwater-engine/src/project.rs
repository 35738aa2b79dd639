//! A project with its plugins opened: what every command works on.

use std::sync::Arc;

use headwater_core::definitions::{Definitions, Source, SourceKind};
use headwater_core::options::Config;
use headwater_core::plugin::{OpenContext, SourceContext};
use headwater_core::{
    BatchSource, Clock, Error, OfflineStore, OnlineStore, Registry, Result, StreamProducer, StreamSource,
};

use crate::view::View;

/// A project whose definitions are checked and whose stores are open. Sources are opened when they are needed.
#[derive(Debug)]
pub struct Project {
    /// What was defined.
    pub definitions: Definitions,
    /// The plugins.
    pub registry: Registry,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The online store.
    pub online: Arc<dyn OnlineStore>,
    /// The offline store.
    pub offline: Arc<dyn OfflineStore>,
    /// The views, resolved.
    pub views: Vec<Arc<View>>,
}

impl Project {
    /// The view of this name.
    ///
    /// # Errors
    /// `NotFound`, naming the project and its views.
    pub fn view(&self, name: &str) -> Result<&Arc<View>> {
        self.views.iter().find(|view| view.name == name).ok_or_else(|| {
            Error::not_found(format!(
                "there is no feature view `{name}` in project `{}`{}",
                self.definitions.project,
                suggest(name, self.views.iter().map(|view| view.name.as_str()))
            ))
        })
    }

    /// The source of this name.
    ///
    /// # Errors
    /// `NotFound`, naming the project and its sources.
    pub fn source(&self, name: &str) -> Result<&Source> {
        self.definitions.sources.iter().find(|source| source.name == name).ok_or_else(|| {
            Error::not_found(format!(
                "there is no source `{name}` in project `{}`{}",
                self.definitions.project,
                suggest(name, self.definitions.sources.iter().map(|source| source.name.as_str()))
            ))
        })
    }

    /// Opens a batch source.
    ///
    /// # Errors
    /// `NotFound` for an unknown name, `Unsupported` where its plugin is missing, else the plugin's.
    pub fn batch_source(&self, name: &str) -> Result<Arc<dyn BatchSource>> {
        let (config, context) = self.open(name)?;
        let role = self.registry.role(&self.source(name)?.plugin, "batch source", |plugin| plugin.batch)?;
        (role.open)(&config, &context)
    }

    /// Opens a stream source.
    ///
    /// # Errors
    /// As [`Project::batch_source`].
    pub fn stream_source(&self, name: &str) -> Result<Arc<dyn StreamSource>> {
        let (config, context) = self.open(name)?;
        let role = self.registry.role(&self.source(name)?.plugin, "stream source", |plugin| plugin.stream)?;
        (role.open)(&config, &context)
    }

    /// Opens a producer for a stream source.
    ///
    /// # Errors
    /// As [`Project::batch_source`].
    pub fn producer(&self, name: &str) -> Result<Arc<dyn StreamProducer>> {
        let (config, context) = self.open(name)?;
        let role = self.registry.role(&self.source(name)?.plugin, "producer", |plugin| plugin.producer)?;
        (role.open)(&config, &context)
    }

    /// Whether an ingestion job fills this view: its source is a stream.
    pub fn fed_by_job(&self, view: &View) -> bool {
        let source = view.stream.as_ref().and_then(|stream| self.source(&stream.source).ok());
        source.is_some_and(|source| matches!(source.kind, SourceKind::Stream(_)))
    }

    fn open(&self, name: &str) -> Result<(Config, OpenContext)> {
        let source = self.source(name)?;
        Ok(source_config(&self.definitions, source, Arc::clone(&self.clock)))
    }
}

/// What the factory of a source's plugin is given.
pub(crate) fn source_config(
    definitions: &Definitions,
    source: &Source,
    clock: Arc<dyn Clock>,
) -> (Config, OpenContext) {
    let record_format = match &source.kind {
        SourceKind::Stream(settings) => settings.record_format.as_ref().map(|format| format.kind.clone()),
        _ => None,
    };
    let config = Config {
        name: format!("source `{}`", source.name),
        options: source.options.clone(),
        base_dir: definitions.base_dir.clone(),
    };
    let context = OpenContext {
        project: definitions.project.clone(),
        clock,
        source: Some(SourceContext {
            timestamp_field: source.timestamp_field.clone().unwrap_or_default(),
            created_timestamp_column: source.created_timestamp_column.clone(),
            record_format,
        }),
    };
    (config, context)
}

/// The end of a message about an unknown name: the nearest known one, else all there are.
pub(crate) fn suggest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let nearest = known.iter().map(|other| (strsim::damerau_levenshtein(name, other), *other)).min();
    match nearest {
        Some((distance, other)) if distance <= 1 + name.len() / 4 => format!("; did you mean `{other}`?"),
        Some(_) => {
            format!("; there are {}", known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
        }
        None => "; there are none".into(),
    }
}
