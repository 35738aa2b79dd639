//! From a file's tree to definitions.
//!
//! Here is reported what a tree can say that definitions cannot: unknown keys, values of the wrong kind. All else is
//! left to the checks that definitions made in code go through too. A thing that cannot be read whole is kept as far as
//! it goes, so that what refers to it is not reported as well.

use std::collections::BTreeMap;
use std::path::Path;

use headwater_core::definitions::{
    Definitions, Entity, FeatureService, FeatureView, Field, LateEvents, OnError, RecordFormat, Source,
    StoreDefinition, StreamSettings, ValueType, ViewTransform,
};
use headwater_core::options::{Duration, OptionSpec};
use headwater_core::stream::StartPosition;
use headwater_core::{Plugin, Registry};

use super::aggregations;
use super::keys::{Keys, option_value, unknown_key};
use super::place::{Faults, Place, did_you_mean, nearest};
use super::yaml::{Node, Value};
use crate::cast::parse_time;

/// The keys of a source that make it a stream.
pub(super) const STREAM_KEYS: [&str; 7] = [
    "batch_source",
    "record_format",
    "start",
    "watermark_delay_threshold",
    "on_error",
    "late_events",
    "max_future_skew",
];

/// Sections whose things are referred to by name.
pub(super) const ENTITIES: &str = "entities";
pub(super) const SOURCES: &str = "sources";
pub(super) const VIEWS: &str = "views";

/// Where each element of definitions stands, in the order of its list.
#[derive(Debug)]
pub(super) struct Origins<'a> {
    pub(super) root: Place<'a>,
    pub(super) entities: Vec<Place<'a>>,
    pub(super) sources: Vec<Place<'a>>,
    pub(super) views: Vec<Place<'a>>,
    pub(super) services: Vec<Place<'a>>,
}

impl Origins<'_> {
    /// The places of definitions made in code.
    pub(super) fn of_code(definitions: &Definitions) -> Self {
        let root = Place::code();
        let places = |key: &str, names: Vec<&str>| {
            names.iter().enumerate().map(|(index, name)| root.key(key).item(index, name)).collect::<Vec<_>>()
        };
        let views = definitions.feature_views.iter().enumerate().map(|(index, view)| {
            root.key(if view.stream { "stream_feature_views" } else { "feature_views" }).item(index, &view.name)
        });
        Self {
            entities: places("entities", definitions.entities.iter().map(|entity| entity.name.as_str()).collect()),
            sources: places("sources", definitions.sources.iter().map(|source| source.name.as_str()).collect()),
            views: views.collect(),
            services: places(
                "feature_services",
                definitions.feature_services.iter().map(|s| s.name.as_str()).collect(),
            ),
            root: root.clone(),
        }
    }
}

const ANNOTATIONS: [&str; 3] = ["description", "owner", "tags"];
const TOP_KEYS: [&str; 12] = [
    "project",
    "registry",
    "online_store",
    "offline_store",
    "entities",
    "sources",
    "feature_views",
    "stream_feature_views",
    "feature_services",
    "description",
    "owner",
    "tags",
];
const ENTITY_KEYS: [&str; 6] = ["name", "join_keys", "value_type", "description", "owner", "tags"];
/// The keys that every source may have, beside its plugin's options.
pub(super) const SOURCE_KEYS: [&str; 8] =
    ["name", "type", "timestamp_field", "created_timestamp_column", "field_mapping", "description", "owner", "tags"];
const VIEW_KEYS: [&str; 9] = ["name", "entities", "ttl", "schema", "source", "online", "description", "owner", "tags"];
/// The keys of stream feature views alone.
const STREAM_VIEW_KEYS: [&str; 5] = ["mode", "transform", "timestamp_field", "offline", "aggregations"];
const FIELD_KEYS: [&str; 5] = ["name", "dtype", "description", "owner", "tags"];
const SERVICE_KEYS: [&str; 5] = ["name", "features", "description", "owner", "tags"];

/// Reads a whole file.
pub(super) fn definitions<'a>(
    tree: &'a Node,
    base_dir: &Path,
    registry: &Registry,
    faults: &mut Faults,
) -> Option<(Definitions, Origins<'a>)> {
    let root = Place::root(tree);
    let mut keys = Keys::open(root.clone(), faults, "keys such as `project`", &TOP_KEYS)?;
    let mut definitions = Definitions::new(keys.text("project").unwrap_or_default()).base_dir(base_dir);
    if let Some(path) = keys.text("registry") {
        definitions.registry = path;
    }
    definitions.annotations = keys.annotations();
    let online = |plugin: &Plugin| plugin.online.map(|role| role.options);
    definitions.online_store = store(&mut keys, "online_store", registry, online);
    let offline = |plugin: &Plugin| plugin.offline.map(|role| role.options);
    definitions.offline_store = store(&mut keys, "offline_store", registry, offline);

    let mut origins =
        Origins { root, entities: Vec::new(), sources: Vec::new(), views: Vec::new(), services: Vec::new() };
    for place in elements(&mut keys, "entities", "entities") {
        let entity = entity(place.clone(), keys.faults);
        if entity.as_ref().is_none_or(|entity| entity.name.is_empty()) {
            keys.faults.has_unnamed(ENTITIES);
        }
        if let Some(entity) = entity {
            definitions.entities.push(entity);
            origins.entities.push(place);
        }
    }
    for place in elements(&mut keys, "sources", "sources") {
        let source = source(place.clone(), registry, keys.faults);
        if source.as_ref().is_none_or(|source| source.name.is_empty()) {
            keys.faults.has_unnamed(SOURCES);
        }
        if let Some(source) = source {
            definitions.sources.push(source);
            origins.sources.push(place);
        }
    }
    for (key, stream) in [("feature_views", false), ("stream_feature_views", true)] {
        for place in elements(&mut keys, key, "views") {
            let view = view(place.clone(), stream, keys.faults);
            if view.as_ref().is_none_or(|view| view.name.is_empty()) {
                keys.faults.has_unnamed(VIEWS);
            }
            if let Some(view) = view {
                definitions.feature_views.push(view);
                origins.views.push(place);
            }
        }
    }
    for place in elements(&mut keys, "feature_services", "services") {
        if let Some(service) = service(place.clone(), keys.faults) {
            definitions.feature_services.push(service);
            origins.services.push(place);
        }
    }
    // A section whose own name is mistyped has only things without names.
    for (key, section) in
        [("entities", ENTITIES), ("sources", SOURCES), ("feature_views", VIEWS), ("stream_feature_views", VIEWS)]
    {
        let place = keys.place.key(key);
        if keys.faults.is_silent(&place) {
            keys.faults.has_unnamed(section);
        }
    }
    Some((definitions, origins))
}

/// The places of a list's elements, each named after its `name`.
fn elements<'a>(keys: &mut Keys<'a, '_>, key: &str, what: &str) -> Vec<Place<'a>> {
    let place = keys.place.key(key);
    let items = keys.items(key, what);
    let names = items.iter().map(|item| match item.entry("name").map(|entry| &entry.node.value) {
        Some(Value::Text { text, .. }) => text.as_str(),
        _ => "",
    });
    names.enumerate().map(|(index, name)| place.item(index, name)).collect()
}

fn store(
    keys: &mut Keys<'_, '_>,
    key: &str,
    registry: &Registry,
    options: impl Fn(&Plugin) -> Option<&'static [OptionSpec]>,
) -> StoreDefinition {
    let place = keys.place.key(key);
    if !keys.has(key) {
        return StoreDefinition::new("");
    }
    let Some(mut keys) = Keys::open_any(place.clone(), keys.faults, "keys such as `type`") else {
        keys.faults.silence(&place.key("type"));
        return StoreDefinition::new("");
    };
    let plugin = keys.text("type").unwrap_or_default();
    let specs = registry.plugin(&plugin).and_then(options).unwrap_or_default();
    let mut known = vec!["type"];
    known.extend(ANNOTATIONS);
    StoreDefinition { plugin, annotations: keys.annotations(), options: rest(&keys, &known, specs) }
}

/// A plugin's options: the keys that are not `known`.
fn rest(keys: &Keys<'_, '_>, known: &[&str], specs: &[OptionSpec]) -> BTreeMap<String, serde_json::Value> {
    let kind = |key: &str| specs.iter().find(|spec| spec.name == key).map(|spec| spec.kind);
    keys.rest(known).map(|entry| (entry.key.clone(), option_value(&entry.node, kind(&entry.key)))).collect()
}

/// A required type. Where it is missing or wrong that is reported, and another stands in for it.
fn value_type(keys: &mut Keys<'_, '_>, key: &str, what: &str) -> ValueType {
    let there = keys.has(key);
    let text = keys.text(key);
    let place = keys.place.key(key);
    let Some(text) = text else {
        let fault = if there { "is empty" } else { "is missing" };
        keys.faults.add(&place, format!("`{key}` {fault}: the type of {what}, such as `int64`"), None);
        return ValueType::String;
    };
    ValueType::parse(&text).unwrap_or_else(|error| {
        let meant = match text.trim().to_ascii_lowercase().as_str() {
            "int" | "integer" | "long" | "bigint" => Some("int64"),
            "float" | "real" => Some("float32"),
            "double" => Some("float64"),
            "text" | "str" | "varchar" | "utf8" => Some("string"),
            "boolean" => Some("bool"),
            "timestamp" | "datetime" => Some("unix_timestamp"),
            "binary" => Some("bytes"),
            other if other.contains('(') => None,
            other => nearest(other, ValueType::SCALARS),
        };
        keys.faults.add(&place, error.message(), meant.map(|name| format!("did you mean `{name}`?")));
        ValueType::String
    })
}

fn entity(place: Place<'_>, faults: &mut Faults) -> Option<Entity> {
    let mut keys = Keys::open(place, faults, "an entity, such as `{ name: driver, value_type: int64 }`", &ENTITY_KEYS)?;
    let mut entity = Entity::new(keys.text("name").unwrap_or_default(), ValueType::String);
    let at = keys.place.key("join_keys");
    let before = keys.faults.len();
    let join_keys = keys.texts("join_keys", "one column");
    if join_keys.len() > 1 {
        let message = "an entity has one join key: make an entity for each and list them in a view's `entities`";
        keys.faults.add(&at, message, None);
    }
    if keys.faults.len() > before || keys.faults.is_silent(&at) {
        // Which column it is nobody knows, and one fault is enough.
        entity.join_key = String::new();
        keys.faults.silence(&at);
    } else if let Some(join_key) = join_keys.into_iter().next() {
        entity.join_key = join_key;
    }
    entity.value_type = value_type(&mut keys, "value_type", "its join key");
    entity.annotations = keys.annotations();
    Some(entity)
}

/// What a source's keys make of it. A plugin that can be both is a stream where a key says so that only streams have.
fn is_stream(keys: &Keys<'_, '_>, plugin: Option<&'static Plugin>) -> bool {
    let stream_key = STREAM_KEYS.iter().any(|key| keys.has(key));
    let Some(plugin) = plugin else { return stream_key };
    match (plugin.stream, plugin.batch) {
        (Some(_), None) => true,
        (None, Some(_)) => false,
        (None, None) => stream_key,
        (Some(stream), Some(batch)) => {
            let only_stream = |key: &str| {
                stream.options.iter().any(|spec| spec.name == key) && !batch.options.iter().any(|spec| spec.name == key)
            };
            stream_key || keys.rest(&[]).any(|entry| only_stream(&entry.key))
        }
    }
}

fn source(place: Place<'_>, registry: &Registry, faults: &mut Faults) -> Option<Source> {
    let mut keys = Keys::open_any(place, faults, "a source, with keys such as `name` and `type`")?;
    let name = keys.text("name").unwrap_or_default();
    let plugin_name = keys.text("type").unwrap_or_default();
    let plugin = registry.plugin(&plugin_name);

    let mut known = SOURCE_KEYS.to_vec();
    let mut source = if plugin_name == "push" {
        known.push("batch_source");
        for key in STREAM_KEYS.into_iter().filter(|key| *key != "batch_source") {
            keys.refuse(key, &format!("`{key}` is for streams that are read; a push source is written to"));
        }
        known.extend(STREAM_KEYS);
        Source::push(name, keys.text("batch_source"))
    } else if is_stream(&keys, plugin) {
        known.extend(STREAM_KEYS);
        let settings = stream_settings(&mut keys);
        Source::stream(name, plugin_name, settings)
    } else {
        if plugin.is_some_and(|plugin| plugin.batch.is_some()) {
            for key in STREAM_KEYS {
                keys.refuse(key, &format!("`{key}` is for streams, and `{plugin_name}` reads tables alone"));
            }
            known.extend(STREAM_KEYS);
        }
        Source::batch(name, plugin_name)
    };
    source.timestamp_field = keys.text("timestamp_field");
    source.created_timestamp_column = keys.text("created_timestamp_column");
    source.field_mapping = keys.map("field_mapping");
    source.annotations = keys.annotations();
    source.options = rest(&keys, &known, super::check::source_options(&source, plugin).unwrap_or_default());
    Some(source)
}

fn stream_settings(keys: &mut Keys<'_, '_>) -> StreamSettings {
    let mut settings = StreamSettings::new(keys.text("batch_source").unwrap_or_default());
    settings.record_format = record_format(keys);
    if let Some(start) = start(keys) {
        settings.start = start;
    }
    settings.watermark_delay_threshold = keys.duration("watermark_delay_threshold");
    let on_error = [("dead_letter", OnError::DeadLetter), ("fail", OnError::Fail)];
    settings.on_error = keys.word("on_error", &on_error).unwrap_or_default();
    let late_events = [("accept", LateEvents::Accept), ("dead_letter", LateEvents::DeadLetter)];
    settings.late_events = keys.word("late_events", &late_events).unwrap_or_default();
    if let Some(skew) = keys.duration("max_future_skew") {
        settings.max_future_skew = skew;
    }
    settings
}

fn start(keys: &mut Keys<'_, '_>) -> Option<StartPosition> {
    let text = keys.text("start")?;
    match text.as_str() {
        "earliest" => Some(StartPosition::Earliest),
        "latest" => Some(StartPosition::Latest),
        _ => match parse_time(&text) {
            Ok(time) => Some(StartPosition::At(time)),
            Err(_) => {
                let place = keys.place.key("start");
                let message =
                    format!("`{text}` is no start: `earliest`, `latest` or a time such as `2026-01-31T00:00:00Z`");
                keys.faults.add(&place, message, did_you_mean(&text, ["earliest", "latest"]));
                None
            }
        },
    }
}

fn record_format(keys: &mut Keys<'_, '_>) -> Option<RecordFormat> {
    if !keys.has("record_format") {
        return None;
    }
    let place = keys.place.key("record_format");
    let mut keys = Keys::open_any(place.clone(), keys.faults, "keys such as `{ type: json, schema: id bigint }`")?;
    let mut format = RecordFormat {
        kind: keys.text("type").unwrap_or_default(),
        schema: None,
        timestamp_unit: None,
        options: BTreeMap::new(),
    };
    let known: &[&str] = match format.kind.as_str() {
        "json" => &["type", "schema", "timestamp_unit"],
        "avro" => &["type", "schema"],
        "protobuf" => &["type", "descriptor_set", "message"],
        // The type is reported, and nothing is known of the other keys.
        _ => return Some(format),
    };
    let unknown: Vec<String> = keys.rest(known).map(|entry| entry.key.clone()).collect();
    for key in unknown {
        unknown_key(keys.faults, &keys.place, &key, known, &format!("key of a {} format", format.kind));
    }
    if known.contains(&"schema") {
        format.schema = keys.text("schema");
    }
    if known.contains(&"timestamp_unit") {
        format.timestamp_unit = keys.text("timestamp_unit");
    }
    for key in ["descriptor_set", "message"] {
        if known.contains(&key)
            && let Some(text) = keys.text(key)
        {
            format.options.insert(key.into(), text.into());
        }
    }
    Some(format)
}

fn view(place: Place<'_>, stream: bool, faults: &mut Faults) -> Option<FeatureView> {
    let mut known = VIEW_KEYS.to_vec();
    known.extend(STREAM_VIEW_KEYS);
    let mut keys = Keys::open(place, faults, "a view, with keys such as `name` and `source`", &known)?;
    if !stream {
        for key in STREAM_VIEW_KEYS {
            keys.refuse(key, &format!("`{key}` is for views among `stream_feature_views`"));
        }
    }

    let mut view = FeatureView::batch(keys.text("name").unwrap_or_default(), keys.text("source").unwrap_or_default());
    view.stream = stream;
    view.entities = keys.texts("entities", "names of entities");
    view.ttl = keys.duration("ttl").unwrap_or(Duration(0));
    view.online = keys.flag("online", true);
    view.annotations = keys.annotations();
    let schema = keys.place.key("schema");
    for (index, item) in
        keys.items("schema", "fields, such as `{ name: conv_rate, dtype: float32 }`").iter().enumerate()
    {
        let name = match item.entry("name").map(|entry| &entry.node.value) {
            Some(Value::Text { text, .. }) => text.as_str(),
            _ => "",
        };
        view.schema.push(field(schema.item(index, name), keys.faults));
    }
    if stream {
        view.offline = keys.flag("offline", false);
        view.timestamp_field = keys.text("timestamp_field");
        view.transform = transform(&mut keys);
        view.aggregations = aggregations::read(&mut keys);
    }
    Some(view)
}

fn transform(keys: &mut Keys<'_, '_>) -> ViewTransform {
    let text = keys.text("transform");
    let mode = keys.text("mode");
    match (mode.filter(|mode| mode != "none"), text) {
        (Some(mode), text) => ViewTransform::Text { mode, text: text.unwrap_or_default() },
        (None, None) => ViewTransform::None,
        (None, Some(text)) => {
            let fault =
                if keys.has("mode") { "`mode: none` takes no `transform`" } else { "a `transform` needs a `mode`" };
            let place = keys.place.name_of("transform");
            keys.faults.add(&place, fault, Some("did you mean `mode: sql`?".into()));
            // The view has a transform, whatever is to read it.
            let mode = keys.place.key("mode");
            keys.faults.silence(&mode);
            ViewTransform::Text { mode: "sql".into(), text }
        }
    }
}

fn field(place: Place<'_>, faults: &mut Faults) -> Field {
    // A fault keeps its place in the list, so that the fields behind it keep theirs.
    let placeholder = || Field::new("", ValueType::String);
    let what = "a field, such as `{ name: conv_rate, dtype: float32 }`";
    let Some(mut keys) = Keys::open(place.clone(), faults, what, &FIELD_KEYS) else {
        faults.silence(&place.key("name"));
        return placeholder();
    };
    let mut field = Field::new(keys.text("name").unwrap_or_default(), ValueType::String);
    field.dtype = value_type(&mut keys, "dtype", "the feature");
    field.annotations = keys.annotations();
    field
}

fn service(place: Place<'_>, faults: &mut Faults) -> Option<FeatureService> {
    let what = "a service, with keys such as `name` and `features`";
    let mut keys = Keys::open(place, faults, what, &SERVICE_KEYS)?;
    let name = keys.text("name").unwrap_or_default();
    let features = keys.texts("features", "views, or features as `view:feature`");
    let mut service = FeatureService::new(name, features);
    service.annotations = keys.annotations();
    Some(service)
}
