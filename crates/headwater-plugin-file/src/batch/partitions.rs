//! Hive partitions: folders called `key=value` are columns of every row below them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field};

/// What Hive writes for a null.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The values of one file's partitions, by column.
pub(super) type Constants = HashMap<String, ArrayRef>;

/// The partition columns of files at these relative paths, typed by all their values, and each file's values.
///
/// A column is `int64` where every value is an integer, `date32` where every value is a date, else text.
pub(super) fn infer<'a>(
    relative: impl Iterator<Item = &'a str>,
    is_in_files: impl Fn(&str) -> bool,
) -> (Vec<Field>, Vec<Constants>) {
    let mut names: Vec<String> = Vec::new();
    let files: Vec<Vec<(String, Option<String>)>> = relative.map(parse).collect();
    for (name, _) in files.iter().flatten() {
        // What a file says of a row itself is at least as exact as its folder's name.
        if !names.contains(name) && !is_in_files(name) {
            names.push(name.clone());
        }
    }
    let mut fields = Vec::with_capacity(names.len());
    let mut constants = vec![Constants::new(); files.len()];
    for name in names {
        let values: Vec<Option<&str>> = files
            .iter()
            .map(|file| file.iter().find(|(key, _)| *key == name).and_then(|(_, value)| value.as_deref()))
            .collect();
        let text: ArrayRef = Arc::new(StringArray::from(values));
        let typed = [DataType::Int64, DataType::Date32].iter().find_map(|data_type| {
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(&text, data_type, &strict).ok()
        });
        let column = typed.filter(|_| text.null_count() < text.len()).unwrap_or(text);
        for (index, file) in constants.iter_mut().enumerate() {
            let value =
                if column.is_null(index) { new_null_array(column.data_type(), 1) } else { column.slice(index, 1) };
            file.insert(name.clone(), value);
        }
        fields.push(Field::new(name, column.data_type().clone(), true));
    }
    (fields, constants)
}

/// The `key=value` folders of a path, percent-decoded.
fn parse(relative: &str) -> Vec<(String, Option<String>)> {
    let folders = relative.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders
        .split('/')
        .filter_map(|folder| folder.split_once('='))
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (decode(key), (value != NULL).then(|| decode(value))))
        .collect()
}

/// Reads `%XX` as the byte it stands for. What is no such sequence stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        match after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(b'%');
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}
