//! Avro schemas as text, and what Arrow makes of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use headwater_core::definitions::timestamp_type;
use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

const PRIMITIVES: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

/// The schema `text` with the schemas of `references` where it names them first, and names and namespaces apart. Uuids
/// become what they are made of: text, or bytes.
pub(super) fn whole(text: &str, references: &[(String, String)]) -> Result<String, String> {
    let read = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| format!("no Avro schema: {error}"));
    let mut root = read(text)?;
    let mut known = FxHashMap::default();
    for (name, text) in references {
        let schema = read(text)?;
        let own = schema.get("name").and_then(Value::as_str).map(|own| full_name(own, namespace(&schema)));
        known.extend(own.map(|own| (own, schema.clone())));
        known.insert(name.clone(), schema);
    }
    Inline { references: known, seen: BTreeSet::new() }.walk(&mut root, "");
    if root.get("type").and_then(Value::as_str) != Some("record") {
        return Err("the schema is not one of a record".into());
    }
    Ok(root.to_string())
}

fn namespace(schema: &Value) -> &str {
    schema.get("namespace").and_then(Value::as_str).unwrap_or_default()
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

struct Inline {
    references: FxHashMap<String, Value>,
    /// The names that are defined by now.
    seen: BTreeSet<String>,
}

impl Inline {
    fn walk(&mut self, schema: &mut Value, inside: &str) {
        match schema {
            Value::String(name) if !PRIMITIVES.contains(&name.as_str()) => {
                let full = full_name(name, inside);
                *schema = full.as_str().into();
                if !self.seen.contains(&full)
                    && let Some(mut definition) = self.references.get(&full).cloned()
                {
                    // It does not take the namespace of where it is put.
                    if let Some(definition) = definition.as_object_mut() {
                        definition.entry("namespace").or_insert_with(|| "".into());
                    }
                    self.walk(&mut definition, "");
                    *schema = definition;
                }
            }
            Value::Array(branches) => branches.iter_mut().for_each(|branch| self.walk(branch, inside)),
            Value::Object(object) => {
                if object.get("logicalType").is_some_and(|logical| logical == "uuid") {
                    object.remove("logicalType");
                }
                let name = object.get("name").and_then(Value::as_str);
                let own = object.get("namespace").and_then(Value::as_str);
                let full = name.map(|name| full_name(name, own.unwrap_or(inside)));
                if let Some(full) = &full {
                    // Arrow finds a name again only where it is not written in one with its namespace.
                    let (namespace, name) = full.rsplit_once('.').unwrap_or(("", full));
                    let (namespace, name) = (namespace.to_owned(), name.to_owned());
                    object.insert("name".into(), name.into());
                    object.insert("namespace".into(), namespace.into());
                }
                match object.get("type").and_then(Value::as_str) {
                    Some("record" | "error") => {
                        let inside = full.as_deref().and_then(|full| full.rsplit_once('.')).map_or("", |(of, _)| of);
                        let inside = inside.to_owned();
                        self.seen.extend(full);
                        let fields = object.get_mut("fields").and_then(Value::as_array_mut);
                        for field in fields.into_iter().flatten() {
                            if let Some(of) = field.get_mut("type") {
                                self.walk(of, &inside);
                            }
                        }
                    }
                    Some("enum" | "fixed") => self.seen.extend(full),
                    Some("array") => object.get_mut("items").into_iter().for_each(|of| self.walk(of, inside)),
                    Some("map") => object.get_mut("values").into_iter().for_each(|of| self.walk(of, inside)),
                    _ => object.get_mut("type").into_iter().for_each(|of| self.walk(of, inside)),
                }
            }
            _ => {}
        }
    }
}

/// The reader's schema for records of this writer: what the writer's numbers count stays as the writer has it, for a cast
/// to convert. Avro's own rules read a number of milliseconds as one of microseconds where the reader says so.
pub(super) fn reader_for(reader: &str, writer: &str) -> Result<String, String> {
    let read = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| format!("no Avro schema: {error}"));
    let (mut reader, writer) = (read(reader)?, read(writer)?);
    keep_units(&mut reader, &writer)?;
    Ok(reader.to_string())
}

fn keep_units(reader: &mut Value, writer: &Value) -> Result<(), String> {
    if let Some(branch) = writer.as_array().and_then(|branches| only_branch(branches)) {
        return keep_units(reader, branch);
    }
    let Value::Object(of_reader) = reader else {
        let Some(branches) = reader.as_array_mut() else { return Ok(()) };
        let mut others = branches.iter_mut().filter(|branch| **branch != "null");
        return match (others.next(), others.next()) {
            (Some(branch), None) => keep_units(branch, writer),
            _ => Ok(()),
        };
    };
    let Value::Object(of_writer) = writer else { return Ok(()) };
    match (of_reader.get("type").and_then(Value::as_str), of_writer.get("type").and_then(Value::as_str)) {
        (None, _) => of_reader.get_mut("type").map_or(Ok(()), |of| keep_units(of, writer)),
        (_, None) => of_writer.get("type").map_or(Ok(()), |of| keep_units(reader, of)),
        (Some("record"), Some("record")) => {
            let written = of_writer.get("fields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let fields = of_reader.get_mut("fields").and_then(Value::as_array_mut);
            for field in fields.into_iter().flatten() {
                let aliases = field.get("aliases").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let mut names = field.get("name").into_iter().chain(aliases);
                let same = names.find_map(|name| written.iter().find(|other| other.get("name") == Some(name)));
                let (Some(same), Some(of)) = (same.and_then(|same| same.get("type")).cloned(), field.get_mut("type"))
                else {
                    continue;
                };
                keep_units(of, &same)?;
            }
            Ok(())
        }
        (Some("array"), Some("array")) => keep_both(of_reader, of_writer, "items"),
        (Some("map"), Some("map")) => keep_both(of_reader, of_writer, "values"),
        (Some(read), Some(written)) => {
            const UNITS: [&str; 3] = ["logicalType", "precision", "scale"];
            let (Some(meant), Some(given)) = (of_reader.get("logicalType"), of_writer.get("logicalType")) else {
                return Ok(());
            };
            if UNITS.iter().all(|key| of_reader.get(*key) == of_writer.get(*key)) {
                return Ok(());
            }
            if read != written {
                return Err(format!("{given} of {written} does not become {meant} of {read}"));
            }
            for key in UNITS {
                match of_writer.get(key) {
                    Some(value) => of_reader.insert(key.to_owned(), value.clone()),
                    None => of_reader.remove(key),
                };
            }
            Ok(())
        }
    }
}

fn keep_both(reader: &mut Map<String, Value>, writer: &Map<String, Value>, key: &str) -> Result<(), String> {
    match (reader.get_mut(key), writer.get(key)) {
        (Some(reader), Some(writer)) => keep_units(reader, writer),
        _ => Ok(()),
    }
}

/// The branch of a union that is not null, if there is one.
fn only_branch(branches: &[Value]) -> Option<&Value> {
    let mut others = branches.iter().filter(|branch| **branch != "null");
    others.next().filter(|_| others.next().is_none())
}

/// The type of the column that a value becomes: enums are text, fixed ones bytes, times microseconds.
pub(super) fn plain_type(from: &DataType) -> DataType {
    let plain = |field: &Field| Arc::new(Field::new(field.name(), plain_type(field.data_type()), field.is_nullable()));
    match from {
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Timestamp(..) => timestamp_type(),
        DataType::List(item) => DataType::List(plain(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| plain(field)).collect::<Fields>()),
        DataType::Map(entries, sorted) => DataType::Map(plain(entries), *sorted),
        other => other.clone(),
    }
}

/// What a reader's schema says of its fields that makes other values of the same records: defaults and aliases.
pub(super) fn notes(text: &str, fields: &[Field]) -> Vec<String> {
    let schema: Value = serde_json::from_str(text).unwrap_or_default();
    let described = schema.get("fields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let note = |field: &Field| {
        let described = described.iter().find(|other| other.get("name").is_some_and(|name| *name == **field.name()));
        let say = |key: &str| {
            let value = described.and_then(|field| field.get(key))?;
            Some(format!(" {key} {value}"))
        };
        format!("{}{}", say("default").unwrap_or_default(), say("aliases").unwrap_or_default())
    };
    fields.iter().map(note).collect()
}
