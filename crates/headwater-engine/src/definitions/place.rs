//! Places in definitions, in a file or in code, and the faults found there.

use super::errors::{DefinitionErrors, Fault};
use super::yaml::{Mark, Node};

/// Where something stands: a path, and a line where there is a file.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    path: String,
    mark: Option<Mark>,
    node: Option<&'a Node>,
}

impl<'a> Place<'a> {
    /// The root of a file's tree.
    pub(super) fn root(node: &'a Node) -> Self {
        Self { path: String::new(), mark: Some(node.mark), node: Some(node) }
    }

    /// The root of definitions made in code.
    pub(super) fn code() -> Self {
        Self { path: String::new(), mark: None, node: None }
    }

    /// The value of a key here; where it is not there, the place that lacks it.
    pub(super) fn key(&self, key: &str) -> Self {
        let node = self.node.and_then(|node| node.entry(key)).map(|entry| &entry.node);
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { path, mark: node.map(|node| node.mark).or(self.mark), node }
    }

    /// The key itself.
    pub(super) fn name_of(&self, key: &str) -> Self {
        let mut place = self.key(key);
        if let Some(entry) = self.node.and_then(|node| node.entry(key)) {
            place.mark = Some(entry.mark);
        }
        place
    }

    /// An element of a list here. `name` is what it is called; its number where it has no name.
    pub(super) fn item(&self, index: usize, name: &str) -> Self {
        let node = match self.node.map(|node| &node.value) {
            Some(super::yaml::Value::List(items)) => items.get(index),
            _ => None,
        };
        let path = if name.is_empty() { format!("{}[{index}]", self.path) } else { format!("{}[{name}]", self.path) };
        Self { path, mark: node.map(|node| node.mark).or(self.mark), node }
    }

    /// Moves to a character of the text here, counted from 0, where the file shows that text letter for letter.
    pub(super) fn character(mut self, at: usize) -> Self {
        if let Some(Node { value: super::yaml::Value::Text { column: Some(column), .. }, mark }) = self.node {
            self.mark = Some((mark.0, column + at));
        }
        self
    }

    /// The line, where there is a file.
    pub(super) fn line(&self) -> Option<usize> {
        self.mark.map(|(line, _)| line)
    }

    /// The node, where there is a file that has it.
    pub(super) fn node(&self) -> Option<&'a Node> {
        self.node
    }
}

/// Collects faults.
#[derive(Debug, Default)]
pub(super) struct Faults {
    list: Vec<Fault>,
    silent: Vec<(String, Option<Mark>)>,
    unnamed: Vec<&'static str>,
}

impl Faults {
    /// Faults that are known already.
    pub(super) fn from(list: Vec<Fault>) -> Self {
        Self { list, ..Self::default() }
    }

    /// Says nothing of this place from now on: what is wrong there follows from a fault that is known.
    pub(super) fn silence(&mut self, place: &Place<'_>) {
        self.silent.push((place.path.clone(), place.mark));
    }

    /// Whether nothing is said of this place.
    pub(super) fn is_silent(&self, place: &Place<'_>) -> bool {
        self.silent.iter().any(|(path, mark)| *path == place.path && *mark == place.mark)
    }

    /// Says that a section has things whose names could not be read: a name that is not found may be one of them.
    pub(super) fn has_unnamed(&mut self, section: &'static str) {
        self.unnamed.push(section);
    }

    /// Whether every name in a section is known.
    pub(super) fn knows_names_of(&self, section: &str) -> bool {
        !self.unnamed.contains(&section)
    }

    /// Adds a fault, unless one is known at the same place: the first says what has to change there.
    pub(super) fn add(&mut self, place: &Place<'_>, message: impl Into<String>, hint: Option<String>) {
        let known = self.list.iter().any(|fault| fault.path == place.path && fault.position == place.mark);
        if known || self.is_silent(place) {
            return;
        }
        self.list.push(Fault { position: place.mark, path: place.path.clone(), message: message.into(), hint });
    }

    /// Adds a fault of something that is named like another: in code the two have the same place.
    pub(super) fn add_again(&mut self, place: &Place<'_>, message: impl Into<String>) {
        self.list.push(Fault { position: place.mark, path: place.path.clone(), message: message.into(), hint: None });
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The errors, in order of the file; nothing where there are none.
    pub(super) fn finish(mut self, file: Option<String>) -> Result<(), DefinitionErrors> {
        if self.list.is_empty() {
            return Ok(());
        }
        self.list.sort_by_key(|fault| fault.position);
        Err(DefinitionErrors { file, faults: self.list })
    }
}

/// The candidate that `name` was probably meant to be.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', ' ', '.'], "");
    let wanted = plain(name);
    if wanted.is_empty() {
        return None;
    }
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let known = plain(candidate);
            let distance = strsim::damerau_levenshtein(&wanted, &known);
            let longest = wanted.chars().count().max(known.chars().count());
            let part = wanted.len() >= 4 && known.len() >= 4 && (known.contains(&wanted) || wanted.contains(&known));
            let near = distance < longest && distance * 5 <= (longest * 2).max(5);
            // Two letters of five may be wrong; a part of a name may stand for it.
            (near || part).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// ``did you mean `x`?``
pub(super) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// Names in backticks, separated by commas; `none` for none.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names = names.into_iter().filter(|name| !name.is_empty()).map(|name| format!("`{name}`")).collect::<Vec<_>>();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
