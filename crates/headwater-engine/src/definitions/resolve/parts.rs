//! What makes a view's rows, and the generation that is named after it.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use headwater_core::transform::Fingerprint;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::input::Input;
use crate::view::{BatchInput, View};

/// What makes a view's rows. Two views with equal parts have equal rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// The source: its plugin and what the plugin calls its identity.
    pub source: String,
    /// Filter and unnest; empty where every record gives one row.
    pub rows: String,
    /// The join keys in order, each with its expression and type.
    pub keys: Vec<(String, String)>,
    /// The time column and its expression.
    pub event_time: (String, String),
    /// The other columns, each with its expression and type.
    pub columns: BTreeMap<String, String>,
}

impl Parts {
    pub(super) fn of_table(identity: &str, view: &View, batch: &BatchInput) -> Self {
        Self::new(identity, String::new(), view, |column| batch.column(column).to_owned())
    }

    pub(super) fn of_stream(input: &Input, view: &View, fingerprint: &Fingerprint) -> Self {
        let expression = |column: &str| {
            let expression = fingerprint.columns.get(column).map_or(column, String::as_str);
            annotate(expression, &input.notes)
        };
        Self::new(&input.identity, annotate(&fingerprint.rows, &input.notes), view, expression)
    }

    fn new(identity: &str, rows: String, view: &View, expression: impl Fn(&str) -> String) -> Self {
        let columns = view.columns().iter().map(|field| (field.name.clone(), field.dtype.to_string()));
        let created = view.created.iter().map(|name| (name.clone(), "unix_timestamp".to_owned()));
        Self {
            source: identity.to_owned(),
            rows,
            keys: view
                .keys
                .iter()
                .map(|key| (key.name.clone(), format!("{} as {}", expression(&key.name), key.value_type)))
                .collect(),
            event_time: (view.event_time.clone(), expression(&view.event_time)),
            columns: columns
                .chain(created)
                .map(|(name, dtype)| (name.clone(), format!("{} as {dtype}", expression(&name))))
                .collect(),
        }
    }

    /// What differs in `new` so that rows made by `self` cannot stand beside its rows; empty where they can: where
    /// columns were only added.
    pub fn breaks(&self, new: &Self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.source != new.source {
            reasons.push(format!("the source is `{}` and was `{}`", new.source, self.source));
        }
        if self.rows != new.rows {
            reasons.push("filter or unnest changed".to_owned());
        }
        if self.keys != new.keys {
            let names = |keys: &[(String, String)]| {
                keys.iter().map(|(name, expression)| format!("{name} ({expression})")).collect::<Vec<_>>().join(", ")
            };
            reasons.push(format!("the join keys are `{}` and were `{}`", names(&new.keys), names(&self.keys)));
        }
        if self.event_time != new.event_time {
            let name = |(name, expression): &(String, String)| format!("{name} ({expression})");
            reasons.push(format!("the event time is `{}` and was `{}`", name(&new.event_time), name(&self.event_time)));
        }
        for (name, old) in &self.columns {
            match new.columns.get(name) {
                None => reasons.push(format!("the column `{name}` is gone")),
                Some(new) if new != old => reasons.push(format!("the column `{name}` is `{new}` and was `{old}`")),
                Some(_) => {}
            }
        }
        reasons
    }

    /// The columns of `new` that are not in `self`.
    pub fn added(&self, new: &Self) -> Vec<String> {
        new.columns.keys().filter(|name| !self.columns.contains_key(*name)).cloned().collect()
    }
}

/// The name of a generation. `salt` tells generations with equal parts apart.
pub fn generation(parts: &Parts, salt: u32) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(text);
    };
    add(&parts.source);
    add(&parts.rows);
    let columns = parts.columns.iter();
    let keys = parts.keys.iter().map(|(name, expression)| (name, expression));
    let time = std::iter::once((&parts.event_time.0, &parts.event_time.1));
    // Lengths go before texts and counts before lists, so that no two parts run together.
    for list in [keys.collect::<Vec<_>>(), time.collect(), columns.collect()] {
        add(&list.len().to_string());
        for (name, expression) in list {
            add(name);
            add(expression);
        }
    }
    if salt > 0 {
        add(&salt.to_string());
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// An expression with what the columns in it are made of.
fn annotate(expression: &str, notes: &BTreeMap<String, String>) -> String {
    let words: Vec<&str> = expression.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    let mentioned = notes.iter().filter(|(name, _)| {
        let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_');
        if plain { words.contains(&name.as_str()) } else { expression.contains(name.as_str()) }
    });
    let notes = mentioned.map(|(name, note)| format!("{name}{note}")).collect::<Vec<_>>();
    if notes.is_empty() { expression.to_owned() } else { format!("{expression} [{}]", notes.join(", ")) }
}

/// The name of an Arrow type, as Spark's DDL has it. It is part of generations, so it must never change.
pub(in crate::definitions) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Int8 => "tinyint".into(),
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "int".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::Utf8 => "string".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Binary => "binary".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::List(item) => format!("array<{}>", type_name(item.data_type())),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| format!("{}: {}", field.name(), type_name(field.data_type())));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        DataType::Map(entries, _) => format!("map<{}>", type_name(entries.data_type())),
        // DDL makes no others; tables do, and their types are no part of a generation.
        other => other.to_string(),
    }
}
