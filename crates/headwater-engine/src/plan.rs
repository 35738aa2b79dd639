//! What an `apply` would do.

use std::collections::BTreeMap;
use std::fmt;

use headwater_core::definitions::{AggregateFunction, Aggregation, Definitions};
use headwater_core::options::Duration;
use serde::Serialize;
use serde_json::Value;

/// The difference between what was applied last and what is given. Empty where an `apply` would change nothing.
///
/// `Display` is for people, `Serialize` for programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The project.
    pub project: String,
    /// The changes, ordered by kind and name.
    pub changes: Vec<Change>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// What kind of thing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The project itself: its description, owner, tags.
    Project,
    /// The online store.
    OnlineStore,
    /// The offline store.
    OfflineStore,
    /// An entity.
    Entity,
    /// A source.
    Source,
    /// A feature view over a batch source.
    FeatureView,
    /// A stream feature view.
    StreamFeatureView,
    /// A feature service.
    FeatureService,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Project => "project",
            Self::OnlineStore => "online store",
            Self::OfflineStore => "offline store",
            Self::Entity => "entity",
            Self::Source => "source",
            Self::FeatureView => "feature view",
            Self::StreamFeatureView => "stream feature view",
            Self::FeatureService => "feature service",
        })
    }
}

/// What happens to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It was not there.
    Created,
    /// It is there and says something else, or gets other rows.
    Changed,
    /// It is no longer there.
    Removed,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What kind of thing changes.
    pub kind: Kind,
    /// Its name; of a store, its plugin.
    pub name: String,
    /// What happens to it.
    pub action: Action,
    /// What it says now and said before. Empty where it is created or removed.
    pub fields: Vec<FieldChange>,
    /// What happens to the rows of a view.
    pub rows: Option<Rows>,
}

/// One key of a definition that changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// The key, with dots between nested ones: `schema.conv_rate.dtype`.
    pub key: String,
    /// What it said; `None` where it was not there.
    pub before: Option<Value>,
    /// What it says; `None` where it is no longer there.
    pub after: Option<Value>,
}

/// What happens to the rows of a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Rows {
    /// There were none.
    Begin {
        /// What they will lie under.
        generation: String,
    },
    /// They stay.
    Keep {
        /// What they lie under.
        generation: String,
        /// Columns that they are given; older rows hold null there.
        added: Vec<String>,
    },
    /// They stay, and the state of windows is built from them anew, as a new epoch; the old one serves meanwhile.
    Rebuild {
        /// What they lie under.
        generation: String,
        /// Columns that they are given; older rows hold null there.
        added: Vec<String>,
        /// What names the aggregations of the new epoch.
        windows: String,
        /// What named those of the old one; `None` where there were none.
        previous: Option<String>,
    },
    /// New ones are made beside them; they serve until the new ones have caught up.
    Replace {
        /// What the new ones will lie under.
        generation: String,
        /// What the old ones lie under.
        previous: String,
        /// Why the old ones do not do.
        because: Vec<String>,
    },
    /// Nothing reads them any more.
    Retire {
        /// What they lie under.
        generation: String,
    },
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { generation } => write!(f, "begin with generation {generation}"),
            Self::Keep { generation, added } if added.is_empty() => write!(f, "stay, generation {generation}"),
            Self::Keep { generation, added } => {
                write!(f, "stay, generation {generation}; those that are there hold null in {}", list(added))
            }
            Self::Rebuild { generation, added, windows, previous } => {
                write!(f, "stay, generation {generation}")?;
                if !added.is_empty() {
                    write!(f, "; those that are there hold null in {}", list(added))?;
                }
                write!(f, "\n    windows: new epoch of the aggregations {windows}, built from history; ")?;
                match previous {
                    Some(previous) => write!(f, "that of {previous} serves until it has caught up"),
                    None => f.write_str("until it has caught up windows are empty"),
                }
            }
            Self::Replace { generation, previous, because } => {
                write!(f, "new generation {generation}; {previous} serves until it has caught up")?;
                because.iter().try_for_each(|reason| write!(f, "\n      because {reason}"))
            }
            Self::Retire { generation } => write!(f, "generation {generation} is no longer read"),
        }
    }
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return write!(f, "project `{}`: nothing to change", self.project);
        }
        let count = |action| self.changes.iter().filter(|change| change.action == action).count();
        write!(
            f,
            "project `{}`: {} to create, {} to change, {} to remove",
            self.project,
            count(Action::Created),
            count(Action::Changed),
            count(Action::Removed)
        )?;
        for change in &self.changes {
            let sign = match change.action {
                Action::Created => '+',
                Action::Changed => '~',
                Action::Removed => '-',
            };
            write!(f, "\n{sign} {} `{}`", change.kind, change.name)?;
            for field in &change.fields {
                let show = |value: &Option<Value>| match value {
                    None => "nothing".to_owned(),
                    Some(Value::String(text)) => format!("`{}`", text.trim()),
                    Some(value) => format!("`{value}`"),
                };
                write!(f, "\n    {}: {} -> {}", field.key, show(&field.before), show(&field.after))?;
            }
            if let Some(rows) = &change.rows {
                write!(f, "\n    rows: {rows}")?;
            }
        }
        Ok(())
    }
}

/// The changes from `old` to `new`, without what happens to rows.
pub(crate) fn compare(old: Option<&Definitions>, new: &Definitions) -> Vec<Change> {
    let before = old.map(things).unwrap_or_default();
    let after = things(new);
    let mut changes = Vec::new();
    for ((kind, name), words) in &after {
        match before.get(&(*kind, name.clone())) {
            None if *kind == Kind::Project => {}
            None => changes.push(change(*kind, name, Action::Created, Vec::new())),
            Some(old) if old != words => changes.push(change(*kind, name, Action::Changed, fields(old, words))),
            Some(_) => {}
        }
    }
    for (kind, name) in before.keys() {
        if !after.contains_key(&(*kind, name.clone())) {
            changes.push(change(*kind, name, Action::Removed, Vec::new()));
        }
    }
    changes
}

fn change(kind: Kind, name: &str, action: Action, fields: Vec<FieldChange>) -> Change {
    Change { kind, name: name.to_owned(), action, fields, rows: None }
}

type Words = BTreeMap<String, Value>;

/// Everything that is defined, each thing with its keys.
fn things(definitions: &Definitions) -> BTreeMap<(Kind, String), Words> {
    let mut things = BTreeMap::new();
    let mut project = words(&definitions.annotations);
    project.insert("registry".into(), definitions.registry.clone().into());
    things.insert((Kind::Project, definitions.project.clone()), project);
    let online = &definitions.online_store;
    things.insert((Kind::OnlineStore, online.plugin.clone()), words(online));
    let offline = &definitions.offline_store;
    things.insert((Kind::OfflineStore, offline.plugin.clone()), words(offline));
    for entity in &definitions.entities {
        things.insert((Kind::Entity, entity.name.clone()), words(entity));
    }
    for source in &definitions.sources {
        things.insert((Kind::Source, source.name.clone()), words(source));
    }
    for view in &definitions.feature_views {
        let kind = if view.stream { Kind::StreamFeatureView } else { Kind::FeatureView };
        let mut said = words(view);
        said.remove("aggregations");
        for aggregation in &view.aggregations {
            said.extend(aggregation_words(aggregation));
        }
        things.insert((kind, view.name.clone()), said);
    }
    for service in &definitions.feature_services {
        things.insert((Kind::FeatureService, service.name.clone()), words(service));
    }
    things
}

fn words(thing: &impl Serialize) -> Words {
    let mut words = BTreeMap::new();
    if let Ok(value) = serde_json::to_value(thing) {
        flatten("", &value, &mut words);
    }
    words
}

/// What an aggregation says, under its feature's name and in the words of a definition file.
fn aggregation_words(aggregation: &Aggregation) -> Words {
    let length = |length: Option<Duration>| length.map(|length| Value::from(length.to_string()));
    let (n, percentile) = match aggregation.function {
        AggregateFunction::LastN { n } | AggregateFunction::LastDistinctN { n } => (Some(n), None),
        AggregateFunction::ApproxPercentile { percentile } => (None, Some(percentile)),
        _ => (None, None),
    };
    let said = [
        ("column", aggregation.column.clone().map(Value::from)),
        ("function", Some(aggregation.function.name().into())),
        ("time_window", length(aggregation.time_window)),
        ("slide_interval", length(aggregation.slide_interval)),
        ("n", n.map(Value::from)),
        ("percentile", percentile.map(Value::from)),
    ];
    let feature = aggregation.feature();
    let said = said.into_iter().filter_map(|(key, value)| Some((format!("aggregations.{feature}.{key}"), value?)));
    said.collect()
}

/// Puts nested values under dotted keys, as a definition file would name them.
fn flatten(key: &str, value: &Value, words: &mut Words) {
    match value {
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        Value::Object(entries) => {
            for (name, value) in entries {
                flatten(&join(key, name), value, words);
            }
        }
        Value::Array(items) if items.iter().all(|item| item.get("name").is_some_and(Value::is_string)) => {
            for item in items {
                let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
                flatten(&join(key, name), item, words);
            }
        }
        Value::Number(number) if matches!(key, "ttl" | "watermark_delay_threshold" | "max_future_skew") => {
            let length = number.as_i64().map_or_else(|| number.to_string(), |micros| Duration(micros).to_string());
            words.insert(key.to_owned(), length.into());
        }
        value => {
            words.insert(key.to_owned(), value.clone());
        }
    }
}

fn join(key: &str, name: &str) -> String {
    match (key, name) {
        // These group what a file writes side by side.
        ("" | "kind", "stream" | "push" | "options" | "annotations") => match (key, name) {
            ("", "stream") => "stream".into(),
            _ => String::new(),
        },
        ("", name) => name.to_owned(),
        ("transform", "text" | "code") => "transform.".into(),
        ("transform.", "text") => "transform".into(),
        ("transform.", name) => name.to_owned(),
        (key, "annotations") => key.to_owned(),
        (key, name) => format!("{key}.{name}"),
    }
}

fn fields(old: &Words, new: &Words) -> Vec<FieldChange> {
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    let changed = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    changed
        .map(|key| FieldChange { key: key.clone(), before: old.get(key).cloned(), after: new.get(key).cloned() })
        .collect()
}
