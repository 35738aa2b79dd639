//! The checks that every definition goes through, from a file or from code.

mod sources;
mod views;

use std::collections::{BTreeMap, BTreeSet};

use headwater_core::definitions::{Definitions, FeatureService, FeatureView, StoreDefinition};
use headwater_core::options::{Config, OptionSpec};
use headwater_core::plugin::SourceContext;
use headwater_core::{Plugin, Registry, Result};
use serde_json::Value as Json;

pub(super) use sources::source_options;

use super::aggregations;
use super::keys::unknown_key;
use super::place::{Faults, Place, did_you_mean, list};
use super::read::{Origins, VIEWS};

/// Reports everything that is wrong.
pub(super) fn check(definitions: &Definitions, registry: &Registry, origins: &Origins<'_>, faults: &mut Faults) {
    let root = &origins.root;
    if definitions.project.is_empty() {
        faults.add(&root.key("project"), "`project` is missing: a name for all that is defined here", None);
    } else {
        name_is_valid(faults, &root.key("project"), &definitions.project);
    }
    if definitions.registry.trim().is_empty() {
        faults.add(
            &root.key("registry"),
            "`registry` is empty: the path of the file that remembers what is applied",
            None,
        );
    }
    let online = Store {
        key: "online_store",
        what: "online store",
        example: "{ type: sqlite, path: data/online.db }",
        options: |plugin| plugin.online.map(|role| role.options),
        check: |plugin, config| plugin.online.map_or(Ok(()), |role| (role.check)(config, &SourceContext::default())),
    };
    online.check(&definitions.online_store, definitions, registry, root, faults);
    let offline = Store {
        key: "offline_store",
        what: "offline store",
        example: "{ type: parquet, path: data/offline }",
        options: |plugin| plugin.offline.map(|role| role.options),
        check: |plugin, config| plugin.offline.map_or(Ok(()), |role| (role.check)(config, &SourceContext::default())),
    };
    offline.check(&definitions.offline_store, definitions, registry, root, faults);

    let entities: Vec<&str> = definitions.entities.iter().map(|entity| entity.name.as_str()).collect();
    names(faults, &origins.entities, &entities, "entity", "entities");
    for (entity, place) in definitions.entities.iter().zip(&origins.entities) {
        let at = place.key("join_keys");
        if entity.join_key.is_empty() && !entity.name.is_empty() {
            faults.add(&at, "a join key is the name of a column", None);
        }
        column_is_valid(faults, &at, &entity.join_key);
    }

    let sources: Vec<&str> = definitions.sources.iter().map(|source| source.name.as_str()).collect();
    names(faults, &origins.sources, &sources, "source", "sources");
    for (source, place) in definitions.sources.iter().zip(&origins.sources) {
        sources::check(source, definitions, registry, place, faults);
    }

    let views: Vec<&str> = definitions.feature_views.iter().map(|view| view.name.as_str()).collect();
    names(faults, &origins.views, &views, "feature view", "feature views");
    for (view, place) in definitions.feature_views.iter().zip(&origins.views) {
        views::check(view, definitions, registry, place, faults);
    }

    let services: Vec<&str> = definitions.feature_services.iter().map(|service| service.name.as_str()).collect();
    names(faults, &origins.services, &services, "feature service", "feature services");
    for (service, place) in definitions.feature_services.iter().zip(&origins.services) {
        check_service(service, definitions, origins, place, faults);
    }
}

/// Checks that names are there, well formed, and differ by more than case.
fn names(faults: &mut Faults, places: &[Place<'_>], names: &[&str], one: &str, many: &str) {
    let mut seen: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    for (index, (name, place)) in names.iter().zip(places).enumerate() {
        let at = place.key("name");
        if name.is_empty() {
            faults.add(&at, format!("`name` is missing: what the {one} is called"), None);
            continue;
        }
        name_is_valid(faults, &at, name);
        if let Some((first, other)) = seen.get(&name.to_lowercase()) {
            let line = places.get(*first).and_then(Place::line).map_or(String::new(), |l| format!(", one in line {l}"));
            let case = if other == name { "" } else { " but for upper and lower case" };
            faults.add_again(&at, format!("two {many} are called `{name}`{case}{line}"));
        } else {
            seen.insert(name.to_lowercase(), (index, name));
        }
    }
}

/// Names are parts of paths, of table names and of references such as `view:feature`.
fn name_is_valid(faults: &mut Faults, place: &Place<'_>, name: &str) {
    let wrong = |c: char| !(c.is_alphanumeric() || c == '_' || c == '-');
    if name.starts_with(|c: char| !c.is_alphanumeric()) {
        faults.add(place, format!("the name `{name}` has to begin with a letter or a digit"), None);
    } else if let Some(c) = name.chars().find(|c| wrong(*c)) {
        let message = format!("the name `{name}` has `{c}` in it; letters, digits, `_` and `-` make a name");
        faults.add(place, message, Some(format!("did you mean `{}`?", name.replace(wrong, "_"))));
    } else if name.len() > 200 {
        faults.add(place, "a name is no longer than 200 bytes", None);
    }
}

/// Columns that begin with `_` are Headwater's own: `_split`, `__timestamp`.
pub(super) fn column_is_valid(faults: &mut Faults, place: &Place<'_>, column: &str) {
    if column.starts_with('_') {
        faults.add(place, format!("the column `{column}` begins with `_`, as Headwater's own columns do"), None);
    }
}

struct Store {
    key: &'static str,
    what: &'static str,
    example: &'static str,
    options: fn(&Plugin) -> Option<&'static [OptionSpec]>,
    check: fn(&Plugin, &Config) -> Result<()>,
}

impl Store {
    fn check(
        &self,
        store: &StoreDefinition,
        definitions: &Definitions,
        registry: &Registry,
        root: &Place<'_>,
        faults: &mut Faults,
    ) {
        let place = root.key(self.key);
        if store.plugin.is_empty() {
            if place.node().is_some_and(|node| matches!(node.value, super::yaml::Value::Map(_))) {
                faults.add(&place.key("type"), format!("`type` is missing: the plugin of the {}", self.what), None);
            } else {
                faults.add(&place, format!("`{}` is missing, such as `{}`", self.key, self.example), None);
            }
            return;
        }
        let Some(plugin) =
            known_plugin(faults, &place, &store.plugin, registry, self.what, |plugin| (self.options)(plugin).is_some())
        else {
            return;
        };
        let Some(specs) = (self.options)(plugin) else { return };
        let envelope = ["type", "description", "owner", "tags"];
        if options(faults, &place, specs, &envelope, &store.options) {
            let config = Config {
                name: self.what.into(),
                options: store.options.clone(),
                base_dir: definitions.base_dir.clone(),
            };
            if let Err(error) = (self.check)(plugin, &config) {
                faults.add(&place, error.message(), None);
            }
        }
    }
}

/// The plugin of this name, if it plays a role. A plugin that this build only knows by name passes: it is missed where
/// it is used.
fn known_plugin(
    faults: &mut Faults,
    place: &Place<'_>,
    name: &str,
    registry: &Registry,
    what: &str,
    role: impl Fn(&'static Plugin) -> bool,
) -> Option<&'static Plugin> {
    let plugin = registry.plugin(name);
    if let Some(plugin) = plugin
        && (role(plugin) || (!plugin.enabled && plugin.roles().is_empty()))
    {
        return Some(plugin);
    }
    let at = place.key("type");
    let (there, known): (Vec<_>, Vec<_>) =
        registry.plugins().filter(|plugin| role(plugin)).partition(|plugin| plugin.enabled);
    let mut message = match plugin {
        Some(plugin) => format!("`{name}` is no {what}, but {}", plugin.roles().join(" and ")),
        None => format!("there is no {what} of type `{name}`"),
    };
    let mut names: Vec<&str> = there.iter().map(|plugin| plugin.name).collect();
    if what == "source" {
        names.push("push");
    }
    message.push_str(&format!("; compiled in are {}", list(names.iter().copied())));
    if !known.is_empty() {
        let known = list(known.iter().map(|plugin| plugin.name));
        message.push_str(&format!("; known, but not in this build, are {known}"));
    }
    names.extend(known.iter().map(|plugin| plugin.name));
    faults.add(&at, message, did_you_mean(name, names));
    None
}

/// Checks names and types of a plugin's options. Says whether all is well.
fn options(
    faults: &mut Faults,
    place: &Place<'_>,
    specs: &[OptionSpec],
    envelope: &[&str],
    options: &BTreeMap<String, Json>,
) -> bool {
    let before = faults.len();
    for (key, value) in options {
        match specs.iter().find(|spec| spec.name == key) {
            // Nothing was written behind the key: the default.
            Some(spec) if value.is_null() && spec.default == Some("None") => {}
            Some(spec) => {
                if let Err(message) = spec.kind.check(value) {
                    faults.add(&place.key(key), format!("option `{key}`: {message}"), None);
                }
            }
            None => {
                let known: Vec<&str> = specs.iter().map(|spec| spec.name).chain(envelope.iter().copied()).collect();
                unknown_key(faults, place, key, &known, "option");
            }
        }
    }
    for spec in specs.iter().filter(|spec| spec.default.is_none() && !options.contains_key(spec.name)) {
        let doc = spec.doc.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        let message = format!("option `{}` is missing: {}", spec.name, doc.trim_end_matches('.'));
        faults.add(&place.key(spec.name), message, None);
    }
    faults.len() == before
}

fn check_service(
    service: &FeatureService,
    definitions: &Definitions,
    origins: &Origins<'_>,
    place: &Place<'_>,
    faults: &mut Faults,
) {
    let features = place.key("features");
    if service.features.is_empty() {
        faults.add(&features, "`features` names no view: a view, or features as `view:feature`", None);
    }
    let mut seen = BTreeSet::new();
    for (index, reference) in service.features.iter().enumerate() {
        let at = features.item(index, "");
        if reference.is_empty() {
            // What stands there is no text; it is reported.
            faults.add(&at, "expected the name of a view, found nothing", None);
            continue;
        }
        let (name, feature) = match reference.split_once(':') {
            Some((name, feature)) => (name, Some(feature)),
            None => (reference.as_str(), None),
        };
        let mut views = definitions.feature_views.iter().zip(&origins.views);
        let Some((view, view_place)) = views.find(|(view, _)| view.name == name) else {
            let names = definitions.feature_views.iter().map(|view| view.name.as_str());
            let hint = did_you_mean(name, names.clone());
            if faults.knows_names_of(VIEWS) {
                faults.add(&at, format!("there is no feature view `{name}`; there are {}", list(names)), hint);
            }
            continue;
        };
        if let Some(feature) = feature
            && let Some(names) = features_of(view, view_place, faults)
            && !names.iter().any(|name| name == feature)
        {
            let names = || names.iter().map(String::as_str);
            let message = format!("the view `{name}` has no feature `{feature}`; it has {}", list(names()));
            faults.add(&at, message, did_you_mean(feature, names()));
        }
        if !seen.insert(reference) {
            faults.add(&at, format!("`{reference}` is there twice"), None);
        }
    }
}

/// The features of a view, where they are known by now: without a schema its source or its transform says them.
fn features_of(view: &FeatureView, place: &Place<'_>, faults: &Faults) -> Option<Vec<String>> {
    if !view.aggregations.is_empty() {
        return aggregations::features(view, place, faults);
    }
    (!view.schema.is_empty()).then(|| view.schema.iter().map(|field| field.name.clone()).collect())
}
