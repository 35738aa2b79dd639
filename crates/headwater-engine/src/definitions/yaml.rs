//! YAML as a tree whose every node knows its line and column.
//!
//! The tree is bounded: by the length of the text, by depth, and by the number of nodes once aliases are unfolded.

use std::collections::{BTreeMap, HashMap};

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span};
use serde_json::{Number, Value as Json};

use super::errors::Fault;

/// The longest text that is read, in bytes.
pub(super) const MAX_BYTES: usize = 4 << 20;
const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 100_000;

/// A line and a column, both from 1.
pub(super) type Mark = (usize, usize);

/// Where `${NAME}` is looked up.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Where it begins.
    pub(super) mark: Mark,
    /// What it is.
    pub(super) value: Value,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Nothing was written.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Text.
    Text {
        /// The text, `${…}` expanded.
        text: String,
        /// The column at which it stands in one line, letter for letter as here; `None` where it is escaped, folded or
        /// expanded.
        column: Option<usize>,
        /// Part of it came from the environment: it may stand for a number or a boolean.
        expanded: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// Keys and values, in order.
    Map(Vec<Entry>),
}

/// A key of a map and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// Where the key begins.
    pub(super) mark: Mark,
    /// The key.
    pub(super) key: String,
    /// Its value.
    pub(super) node: Node,
}

impl Node {
    /// The value of a key, if this is a map that has it.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// What it is, for messages: ``the number `3` ``.
    pub(super) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(flag) => format!("`{flag}`"),
            Value::Number(number) => format!("the number `{number}`"),
            // What the environment holds may be a secret.
            Value::Text { expanded: true, .. } => "text from the environment".into(),
            Value::Text { text, .. } => format!("the text `{}`", shorten(text)),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "keys and values".into(),
        }
    }

    /// As JSON.
    pub(super) fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(flag) => Json::Bool(*flag),
            Value::Number(number) => Json::Number(number.clone()),
            Value::Text { text, .. } => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect())
            }
        }
    }
}

/// The first line of a text, cut where it is long.
pub(super) fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() > 60 || line.len() < text.trim_end().len() {
        format!("{}…", line.chars().take(60).collect::<String>())
    } else {
        line.to_owned()
    }
}

/// Reads one YAML document. `None` where nothing can be made of it; `faults` says why.
pub(super) fn parse(text: &str, environment: Environment<'_>, faults: &mut Vec<Fault>) -> Option<Node> {
    if text.len() > MAX_BYTES {
        faults.push(fault((1, 1), format!("the file is longer than {MAX_BYTES} bytes")));
        return None;
    }
    let options: Options = granit_parser::options! {
        // Longer than any definition needs, and still far from the stack's end.
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut builder = Builder {
        text,
        parser: Parser::new_from_str_with_options(text, options),
        environment,
        anchors: HashMap::new(),
        nodes: 0,
        faults,
    };
    match builder.document() {
        Ok(node) => node,
        Err(fault) => {
            builder.faults.push(fault);
            None
        }
    }
}

fn fault(position: Mark, message: impl Into<String>) -> Fault {
    Fault { position: Some(position), path: String::new(), message: message.into(), hint: None }
}

fn mark(span: &Span) -> Mark {
    (span.start.line().max(1), span.start.col() + 1)
}

struct Builder<'t, 'e> {
    text: &'t str,
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    environment: Environment<'e>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    faults: &'e mut Vec<Fault>,
}

impl<'t> Builder<'t, '_> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn document(&mut self) -> Result<Option<Node>, Fault> {
        let mut document = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(document),
                Event::DocumentStart(..) if document.is_some() => {
                    return Err(fault(mark(&span), "a definition file is one YAML document; a second one begins here"));
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => document = Some(self.node(event, &span, 0)?),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: &Span, depth: usize) -> Result<Node, Fault> {
        let mark = mark(span);
        self.count(1, mark)?;
        if depth > MAX_DEPTH {
            return Err(fault(mark, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let force_text = match tag.as_ref().map(|tag| (tag.core_suffix(), tag.original())) {
                    None => false,
                    Some((Some("str"), _)) => true,
                    Some((Some(_), _)) => false,
                    Some((None, tag)) => {
                        self.faults.push(fault(mark, format!("the tag `{tag}` means nothing here")));
                        false
                    }
                };
                (anchor, self.scalar(&text, style, force_text, span))
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    if event == Event::SequenceEnd {
                        break;
                    }
                    items.push(self.node(event, &span, depth + 1)?);
                }
                (anchor, Value::List(items))
            }
            Event::MappingStart(_, anchor, _) => (anchor, Value::Map(self.entries(depth)?)),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(fault(mark, "an alias inside what it stands for"));
                };
                self.count(size(&node), mark)?;
                return Ok(Node { mark, value: node.value });
            }
            other => return Err(fault(mark, format!("unexpected YAML: {other:?}"))),
        };
        let node = Node { mark, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<Entry>, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: BTreeMap<String, Mark> = BTreeMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(entries);
            }
            let at = mark(&span);
            let key = match &event {
                Event::Scalar(text, ..) => Some(text.to_string()),
                _ => None,
            };
            // Anchors on keys count too, and so does what a strange key is made of.
            self.node(event, &span, depth + 1)?;
            let (event, span) = self.next()?;
            let mut node = self.node(event, &span, depth + 1)?;
            if node.value == Value::Null {
                // A parser has no good place for what is not there.
                node.mark = at;
            }
            let Some(key) = key else {
                self.faults.push(fault(at, "a key has to be a name"));
                continue;
            };
            if key == "<<" {
                self.faults.push(fault(at, "merge keys are not supported: write the keys out"));
                continue;
            }
            if let Some((line, _)) = seen.get(&key) {
                self.faults.push(fault(at, format!("the key `{key}` is there twice, first in line {line}")));
                continue;
            }
            seen.insert(key.clone(), at);
            entries.push(Entry { mark: at, key, node });
        }
    }

    fn count(&mut self, nodes: usize, mark: Mark) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(fault(mark, format!("more than {MAX_NODES} values, aliases unfolded")));
        }
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, force_text: bool, span: &Span) -> Value {
        let at = mark(span);
        let (expanded, changed) = match expand(text, self.environment) {
            Ok(expanded) => expanded,
            Err(message) => {
                self.faults.push(fault(at, message));
                (text.to_owned(), true)
            }
        };
        if !changed
            && style == ScalarStyle::Plain
            && !force_text
            && let Some(value) = plain(text)
        {
            return value;
        }
        let verbatim = span.slice(self.text).and_then(|source| {
            if source == text {
                Some(at.1)
            } else {
                let inner = source.get(1..source.len().saturating_sub(1))?;
                (inner == text).then_some(at.1 + 1)
            }
        });
        Value::Text { column: verbatim.filter(|_| !changed && !text.contains('\n')), text: expanded, expanded: changed }
    }

    fn syntax(&self, error: &ScanError) -> Fault {
        let marker = error.marker();
        let position = (marker.line().max(1), marker.col() + 1);
        let line = self.text.lines().nth(position.0 - 1).unwrap_or_default();
        let hint = if line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t') {
            Some("YAML is indented with blanks, never with tabs".to_owned())
        } else if line.contains("${") && line.contains(['{', '[']) {
            Some("between braces and brackets, text with `${…}` in it has to stand in quotes".to_owned())
        } else if error.info().contains("quoted") {
            Some("is a quote not closed, here or above?".to_owned())
        } else if line.matches(": ").count() > 1 && !line.contains(['{', '"', '\'']) {
            Some("text with `: ` in it has to stand in quotes".to_owned())
        } else if line.trim_start().starts_with(['@', '`', '%', '&', '*', '!', '|', '>']) || line.contains(": %") {
            Some("text that begins with a special sign has to stand in quotes".to_owned())
        } else {
            None
        };
        Fault { position: Some(position), path: String::new(), message: format!("not YAML: {}", error.info()), hint }
    }
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|entry| 1 + size(&entry.node)).sum::<usize>(),
        _ => 1,
    }
}

/// What an unquoted scalar means in YAML 1.2; `None` for text.
fn plain(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        _ => {}
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let number = if let Some(octal) = text.strip_prefix("0o") {
        i64::from_str_radix(octal, 8).ok().map(Number::from)
    } else if let Some(hex) = text.strip_prefix("0x") {
        i64::from_str_radix(hex, 16).ok().map(Number::from)
    } else if digits.bytes().all(|b| b.is_ascii_digit()) {
        text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from)).ok()
    } else if digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-')) {
        text.parse::<f64>().ok().and_then(Number::from_f64)
    } else {
        None
    };
    number.map(Value::Number)
}

/// Replaces `${NAME}` by the variable and `$$` by `$`; says whether anything was replaced.
fn expand(text: &str, environment: Environment<'_>) -> Result<(String, bool), String> {
    if !text.contains('$') {
        return Ok((text.to_owned(), false));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut changed = false;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            changed = true;
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let Some((name, after)) = after.split_once('}') else {
                return Err("`${` is not closed by a `}`; write `$${` where no variable is meant".into());
            };
            let valid = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if name.is_empty() || !valid || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(format!(
                    "`${{{}}}` names no environment variable; write `$${{` where none is meant",
                    shorten(name)
                ));
            }
            let value = environment(name).ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
            out.push_str(&value);
            changed = true;
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok((out, changed))
}
