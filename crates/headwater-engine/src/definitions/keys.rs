//! Reading the keys of one map of a definition file.

use std::collections::BTreeMap;

use headwater_core::definitions::Annotations;
use headwater_core::options::Duration;
use serde_json::Value as Json;

use super::place::{Faults, Place, did_you_mean, list};
use super::yaml::{Entry, Node, Value};

/// The keys of a map.
pub(super) struct Keys<'a, 'f> {
    /// Where the map stands.
    pub(super) place: Place<'a>,
    /// What is wrong.
    pub(super) faults: &'f mut Faults,
    entries: &'a [Entry],
}

impl<'a, 'f> Keys<'a, 'f> {
    /// The keys of the map here; a fault where there is something else. `what` says what was expected.
    pub(super) fn open_any(place: Place<'a>, faults: &'f mut Faults, what: &str) -> Option<Self> {
        let node = place.node()?;
        let Value::Map(entries) = &node.value else {
            faults.add(&place, format!("expected {what}, found {}", node.describe()), None);
            return None;
        };
        Some(Self { place, faults, entries })
    }

    /// As [`Keys::open_any`], with a fault for each key that is not among `known`.
    pub(super) fn open(place: Place<'a>, faults: &'f mut Faults, what: &str, known: &[&str]) -> Option<Self> {
        let keys = Self::open_any(place, faults, what)?;
        for entry in keys.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            unknown_key(keys.faults, &keys.place, &entry.key, known, "key");
        }
        Some(keys)
    }

    /// The value of a key; nothing where it is absent or empty.
    fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node).filter(|n| n.value != Value::Null)
    }

    /// Whether a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    fn wrong(&mut self, key: &str, expected: &str, node: &Node, hint: Option<String>) {
        let place = self.place.key(key);
        self.faults.add(&place, format!("expected {expected}, found {}", node.describe()), hint);
    }

    /// Text.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        let node = self.get(key)?;
        match &node.value {
            Value::Text { text, .. } => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => {
                self.wrong(key, "text", node, Some("put it in quotes".into()));
                None
            }
            _ => {
                self.wrong(key, "text", node, None);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        let Some(node) = self.get(key) else { return default };
        match &node.value {
            Value::Bool(flag) => *flag,
            Value::Text { text, expanded: true, .. } if text == "true" || text == "false" => text == "true",
            Value::Text { text, .. } => {
                let meant = match text.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "y" | "true" => Some("did you mean `true`?".to_owned()),
                    "no" | "off" | "n" | "false" => Some("did you mean `false`?".to_owned()),
                    _ => None,
                };
                self.wrong(key, "`true` or `false`", node, meant);
                default
            }
            _ => {
                self.wrong(key, "`true` or `false`", node, None);
                default
            }
        }
    }

    /// A length of time. A bare `0` is one too.
    pub(super) fn duration(&mut self, key: &str) -> Option<Duration> {
        let node = self.get(key)?;
        match &node.value {
            Value::Number(number) if number.as_u64() == Some(0) => Some(Duration(0)),
            Value::Text { text, .. } => match Duration::parse(text) {
                Ok(duration) => Some(duration),
                Err(message) => {
                    let place = self.place.key(key);
                    self.faults.add(&place, message, None);
                    None
                }
            },
            Value::Number(number) => {
                let hint = format!("did you mean `{number}s`?");
                self.wrong(key, "a duration, an integer and one of `us ms s m h d w`", node, Some(hint));
                None
            }
            _ => {
                self.wrong(key, "a duration, an integer and one of `us ms s m h d w`", node, None);
                None
            }
        }
    }

    /// A whole number from 0 on.
    pub(super) fn whole(&mut self, key: &str) -> Option<u32> {
        let node = self.get(key)?;
        let number = match &node.value {
            Value::Number(number) => number.as_u64(),
            Value::Text { text, expanded: true, .. } => text.parse().ok(),
            _ => None,
        };
        let number = number.and_then(|number| u32::try_from(number).ok());
        if number.is_none() {
            self.wrong(key, "a whole number", node, None);
        }
        number
    }

    /// A number.
    pub(super) fn number(&mut self, key: &str) -> Option<f64> {
        let node = self.get(key)?;
        let number = match &node.value {
            Value::Number(number) => number.as_f64(),
            Value::Text { text, expanded: true, .. } => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            self.wrong(key, "a number", node, None);
        }
        number
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&mut self, key: &str, words: &[(&'static str, T)]) -> Option<T> {
        let node = self.get(key)?;
        let names = words.iter().map(|(name, _)| *name);
        if let Value::Text { text, .. } = &node.value {
            if let Some((_, value)) = words.iter().find(|(name, _)| name == text) {
                return Some(*value);
            }
            self.wrong(key, &format!("one of {}", list(names.clone())), node, did_you_mean(text, names));
        } else {
            self.wrong(key, &format!("one of {}", list(names)), node, None);
        }
        None
    }

    /// A list, each element with its place; empty where the key is absent.
    pub(super) fn items(&mut self, key: &str, what: &str) -> &'a [Node] {
        let Some(node) = self.get(key) else { return &[] };
        if let Value::List(items) = &node.value {
            return items;
        }
        let hint = match &node.value {
            Value::Text { text, expanded: false, .. } => Some(format!("did you mean `[{text}]`?")),
            Value::Map(_) => Some("begin each element with `- `".into()),
            _ => None,
        };
        self.wrong(key, &format!("a list of {what}"), node, hint);
        &[]
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &str, what: &str) -> Vec<String> {
        let place = self.place.key(key);
        let mut texts = Vec::new();
        for (index, node) in self.items(key, what).iter().enumerate() {
            if let Value::Text { text, .. } = &node.value {
                texts.push(text.clone());
            } else {
                self.faults.add(&place.item(index, ""), format!("expected text, found {}", node.describe()), None);
                // Keeps the numbers of the elements behind it.
                texts.push(String::new());
            }
        }
        texts
    }

    /// Keys with texts, numbers or booleans.
    pub(super) fn map(&mut self, key: &str) -> BTreeMap<String, String> {
        let Some(node) = self.get(key) else { return BTreeMap::new() };
        let Value::Map(entries) = &node.value else {
            self.wrong(key, "keys and values", node, None);
            return BTreeMap::new();
        };
        let place = self.place.key(key);
        let mut map = BTreeMap::new();
        for entry in entries {
            let value = match &entry.node.value {
                Value::Text { text, .. } => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                _ => {
                    let message = format!("expected text, found {}", entry.node.describe());
                    self.faults.add(&place.key(&entry.key), message, None);
                    continue;
                }
            };
            map.insert(entry.key.clone(), value);
        }
        map
    }

    /// Description, owner and tags.
    pub(super) fn annotations(&mut self) -> Annotations {
        Annotations {
            description: self.text("description").unwrap_or_default(),
            owner: self.text("owner").unwrap_or_default(),
            tags: self.map("tags"),
        }
    }

    /// The keys that are not among `known`: a plugin's options.
    pub(super) fn rest(&self, known: &[&str]) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| !known.contains(&entry.key.as_str()))
    }

    /// Reports a key that has no place here, if it is there.
    pub(super) fn refuse(&mut self, key: &str, message: &str) {
        if self.has(key) {
            let place = self.place.name_of(key);
            self.faults.add(&place, message, None);
        }
    }
}

/// Reports an unknown key, and says nothing more of the key that it was meant to be.
pub(super) fn unknown_key(faults: &mut Faults, place: &Place<'_>, key: &str, known: &[&str], what: &str) {
    let hint = did_you_mean(key, known.iter().copied());
    if let Some(meant) = super::place::nearest(key, known.iter().copied()) {
        faults.silence(&place.key(meant));
    }
    faults.add(&place.name_of(key), format!("unknown {what} `{key}`; there are {}", list(known.iter().copied())), hint);
}

/// The value of an option. What came from the environment may stand for a number or a boolean, where `spec` wants one.
pub(super) fn option_value(node: &Node, kind: Option<headwater_core::options::OptionType>) -> Json {
    use headwater_core::options::OptionType;
    match (&node.value, kind) {
        (Value::Text { text, expanded: true, .. }, Some(OptionType::Integer)) => {
            text.parse::<u64>().map_or_else(|_| node.to_json(), Json::from)
        }
        (Value::Text { text, expanded: true, .. }, Some(OptionType::Bool)) => {
            text.parse::<bool>().map_or_else(|_| node.to_json(), Json::from)
        }
        _ => node.to_json(),
    }
}
