#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // Any bits make a value here.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray,
    RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field as ArrowField, Schema};
use headwater_core::definitions::{Field, ValueType};
use headwater_core::online::OnlineRow;
use headwater_core::{ErrorKind, Origin, Position, RowVersion, SplitId};
use proptest::prelude::*;

use super::{KeyColumns, RowDecoder, RowEncoder};
use crate::view::{Key, View, ViewRows};

fn scalars() -> Vec<ValueType> {
    ValueType::SCALARS.iter().map(|name| ValueType::parse(name).unwrap()).collect()
}

fn types() -> Vec<ValueType> {
    let mut types = scalars();
    types.extend(scalars().into_iter().map(|inner| ValueType::Array(Box::new(inner))));
    types
}

fn view(keys: &[(&str, ValueType)], features: &[(&str, ValueType)]) -> View {
    View {
        name: "stats".into(),
        generation: "g1".into(),
        keys: keys
            .iter()
            .map(|(name, value_type)| Key { name: (*name).into(), value_type: value_type.clone() })
            .collect(),
        event_time: "event_timestamp".into(),
        created: Some("created".into()),
        features: features.iter().map(|(name, dtype)| Field::new(*name, dtype.clone())).collect(),
        ttl: 0,
        online: true,
        offline: false,
        batch: None,
        stream: None,
        windows: None,
    }
}

/// A column of `value_type` made from numbers; every type has its edges among the first few.
fn column(value_type: &ValueType, cells: &[Option<i64>]) -> ArrayRef {
    let cells = cells.iter().copied();
    match value_type {
        ValueType::Bytes => Arc::new(
            cells
                .map(|cell| cell.map(|n| if n == 0 { Vec::new() } else { n.to_le_bytes().to_vec() }))
                .map(|cell| cell.map(|bytes| bytes.into_boxed_slice()))
                .collect::<BinaryArray>(),
        ),
        ValueType::String => Arc::new(
            cells
                .map(|cell| cell.map(|n| if n == 0 { String::new() } else { format!("ключ-{n}") }))
                .collect::<StringArray>(),
        ),
        ValueType::Int32 => Arc::new(cells.map(|cell| cell.map(|n| n as i32)).collect::<Int32Array>()),
        ValueType::Int64 => Arc::new(cells.collect::<Int64Array>()),
        ValueType::Float32 => Arc::new(
            cells.map(|cell| cell.map(|n| if n == 1 { f32::NAN } else { n as f32 / 3.0 })).collect::<Float32Array>(),
        ),
        ValueType::Float64 => Arc::new(
            cells
                .map(|cell| {
                    cell.map(|n| match n {
                        1 => f64::NAN,
                        2 => f64::NEG_INFINITY,
                        3 => -0.0,
                        n => n as f64 / 3.0,
                    })
                })
                .collect::<Float64Array>(),
        ),
        ValueType::Bool => Arc::new(cells.map(|cell| cell.map(|n| n % 2 == 0)).collect::<BooleanArray>()),
        ValueType::UnixTimestamp => Arc::new(cells.collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        ValueType::Array(inner) => {
            // Cell `n` is a list of |n| % 20 elements, every third of them null where `n` is odd.
            let cells: Vec<Option<i64>> = cells.collect();
            let lists: Vec<Vec<Option<i64>>> = cells
                .iter()
                .map(|cell| {
                    let n = cell.unwrap_or(0);
                    (0..n.unsigned_abs() % 20)
                        .map(|i| (n % 2 == 0 || i % 3 > 0).then_some(n.wrapping_add(i as i64)))
                        .collect()
                })
                .collect();
            let values = column(inner, &lists.concat());
            Arc::new(ListArray::new(
                Arc::new(ArrowField::new("item", inner.to_arrow(), true)),
                OffsetBuffer::from_lengths(lists.iter().map(Vec::len)),
                values,
                Some(NullBuffer::from(cells.iter().map(Option::is_some).collect::<Vec<_>>())),
            ))
        }
    }
}

/// One row for each of `times`: (key, event time, created, feature cell).
fn rows(view: &View, times: &[(i64, i64, Option<i64>, Option<i64>)]) -> ViewRows {
    let mut columns: Vec<ArrayRef> = view
        .keys
        .iter()
        .map(|key| column(&key.value_type, &times.iter().map(|t| Some(t.0)).collect::<Vec<_>>()))
        .collect();
    columns.push(column(&ValueType::UnixTimestamp, &times.iter().map(|t| Some(t.1)).collect::<Vec<_>>()));
    columns.push(column(&ValueType::UnixTimestamp, &times.iter().map(|t| t.2).collect::<Vec<_>>()));
    for feature in &view.features {
        columns.push(column(&feature.dtype, &times.iter().map(|t| t.3).collect::<Vec<_>>()));
    }
    let positions: Vec<Position> = (1..=times.len() as u64).map(Position::from_u64).collect();
    ViewRows {
        rows: RecordBatch::try_new(view.schema(), columns).unwrap(),
        origin: Origin::Stream,
        split: SplitId::from("s\0plit"),
        positions: positions.iter().map(|p| Some(p.as_bytes())).collect::<BinaryArray>(),
        ordinals: None,
    }
}

fn decode(view: &View, asked: &[usize], rows: &[OnlineRow]) -> Vec<ArrayRef> {
    let decoder = RowDecoder::new(view, asked, true);
    let mut columns = decoder.columns(rows.len());
    for row in rows {
        columns.append(&row.value).unwrap();
    }
    columns.finish()
}

fn all_types_view() -> View {
    let types = types();
    let names: Vec<String> = types.iter().map(ToString::to_string).collect();
    let features: Vec<(&str, ValueType)> = names.iter().map(String::as_str).zip(types.iter().cloned()).collect();
    view(&[("driver_id", ValueType::Int64)], &features)
}

proptest! {
    #[test]
    fn rows_of_every_type_come_back(cells in prop::collection::vec(prop::option::of(prop_oneof![-3i64..25, any::<i64>()]), 1..20)) {
        let view = all_types_view();
        let input: Vec<_> = cells.iter().enumerate().map(|(i, cell)| (i as i64, i as i64 * 7, None, *cell)).collect();
        let input = rows(&view, &input);
        let online = RowEncoder::new(&view).unwrap().encode(&input).unwrap();
        prop_assert_eq!(online.len(), cells.len());
        let all: Vec<usize> = (0..view.features.len()).collect();
        for (feature, decoded) in view.features.iter().zip(decode(&view, &all, &online)) {
            prop_assert_eq!(&input.rows[feature.name.as_str()], &decoded, "{}", feature.name);
        }
        for (row, time) in online.iter().zip(0..) {
            prop_assert_eq!(RowDecoder::event_time(&row.value).unwrap(), time * 7);
        }
        // Any subset in any order.
        let some: Vec<usize> = all.iter().rev().step_by(3).copied().collect();
        for (index, decoded) in some.iter().zip(decode(&view, &some, &online)) {
            prop_assert_eq!(&input.rows[view.features[*index].name.as_str()], &decoded);
        }
    }

    #[test]
    fn the_newest_row_of_each_key_is_kept(input in prop::collection::vec((0i64..4, 0i64..5, prop::option::of(0i64..3), prop::option::of(any::<i64>())), 0..60)) {
        let view = view(&[("driver_id", ValueType::Int64)], &[("f", ValueType::Int64)]);
        let batch = rows(&view, &input);
        let online = RowEncoder::new(&view).unwrap().encode(&batch).unwrap();
        let mut expected: BTreeMap<i64, (RowVersion, Option<i64>)> = BTreeMap::new();
        for (index, (key, event_time, created, cell)) in input.into_iter().enumerate() {
            let version = RowVersion {
                event_time,
                created,
                origin: Origin::Stream,
                split: batch.split.clone(),
                position: Position::from_u64(index as u64 + 1),
                ordinal: 0,
            };
            if expected.get(&key).is_none_or(|(best, _)| *best <= version) {
                expected.insert(key, (version, cell));
            }
        }
        prop_assert_eq!(online.len(), expected.len());
        let cells = decode(&view, &[0], &online);
        let got: BTreeMap<_, _> = online.iter().enumerate().map(|(i, row)| {
            let cell = column(&ValueType::Int64, &[]).data_type().clone();
            prop_assert_eq!(cells[0].data_type(), &cell);
            let cells = cells[0].as_any().downcast_ref::<Int64Array>().unwrap();
            Ok((RowVersion::decode(&row.version).unwrap(), cells.is_valid(i).then(|| cells.value(i))))
        }).collect::<Result<_, TestCaseError>>()?;
        prop_assert_eq!(got, expected.into_values().collect::<BTreeMap<_, _>>());
    }

    #[test]
    fn keys_are_equal_exactly_when_their_values_are(a in (any::<i64>(), ".{0,4}", prop::collection::vec(any::<u8>(), 0..4)), b in (any::<i64>(), ".{0,4}", prop::collection::vec(any::<u8>(), 0..4))) {
        let encode = |value: &(i64, String, Vec<u8>), order: [usize; 3]| {
            let keys = [("n", ValueType::Int64), ("text", ValueType::String), ("raw", ValueType::Bytes)];
            let keys: Vec<Key> = order.iter().map(|i| Key { name: keys[*i].0.into(), value_type: keys[*i].1.clone() }).collect();
            let batch = RecordBatch::try_from_iter([
                ("text", Arc::new(StringArray::from(vec![value.1.clone()])) as ArrayRef),
                ("raw", Arc::new(BinaryArray::from(vec![value.2.as_slice()]))),
                ("n", Arc::new(Int64Array::from(vec![value.0]))),
            ]).unwrap();
            let mut out = Vec::new();
            KeyColumns::new(&keys, &batch).unwrap().encode(0, &mut out);
            out
        };
        prop_assert_eq!(encode(&a, [0, 1, 2]), encode(&a, [2, 0, 1]));
        let (ka, kb) = (encode(&a, [0, 1, 2]), encode(&b, [1, 0, 2]));
        prop_assert_eq!(ka == kb, a == b);
        prop_assert!(a == b || !ka.starts_with(&kb));
    }

    #[test]
    fn damaged_rows_are_errors(cell in any::<i64>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let view = all_types_view();
        let online = RowEncoder::new(&view).unwrap().encode(&rows(&view, &[(1, 2, None, Some(cell))])).unwrap();
        let all: Vec<usize> = (0..view.features.len()).collect();
        let mut value = online[0].value.to_vec();
        let decoder = RowDecoder::new(&view, &all, true);
        let cut = cut.index(value.len());
        // Cut short it is an error or a row of fewer features; with a changed byte anything but a panic.
        let _ = decoder.columns(1).append(&value[..cut]);
        let at = at.index(value.len());
        value[at] = byte;
        let _ = decoder.columns(1).append(&value);
    }
}

#[test]
fn a_row_of_an_unknown_version_is_refused() {
    let view = all_types_view();
    let online = RowEncoder::new(&view).unwrap().encode(&rows(&view, &[(1, 2, None, Some(3))])).unwrap();
    let mut value = online[0].value.to_vec();
    value[0] = 9;
    let error = RowDecoder::new(&view, &[0], true).columns(1).append(&value).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FormatVersion);
    assert!(error.to_string().contains("`9`"), "{error}");
}

#[test]
fn added_columns_are_null_in_older_rows_and_order_does_not_matter() {
    let key = [("driver_id", ValueType::Int64)];
    let old = view(&key, &[("a", ValueType::Int64), ("b", ValueType::String)]);
    let new = view(&key, &[("c", ValueType::Float64), ("b", ValueType::String), ("a", ValueType::Int64)]);
    let cells = [(1, 1, None, Some(5)), (2, 1, None, None)];
    let online = RowEncoder::new(&old).unwrap().encode(&rows(&old, &cells)).unwrap();
    let columns = decode(&new, &[0, 1, 2], &online);
    assert_eq!(columns[0].null_count(), 2);
    assert_eq!(&columns[1], &column(&ValueType::String, &[Some(5), None]));
    assert_eq!(&columns[2], &column(&ValueType::Int64, &[Some(5), None]));
    // A process that still has the older definition reads rows of the newer one.
    let online = RowEncoder::new(&new).unwrap().encode(&rows(&new, &cells)).unwrap();
    assert_eq!(&decode(&old, &[0], &online)[0], &column(&ValueType::Int64, &[Some(5), None]));
}

#[test]
fn a_value_of_another_type_is_damage_or_null() {
    let key = [("driver_id", ValueType::Int64)];
    let old = view(&key, &[("a", ValueType::Array(Box::new(ValueType::String))), ("b", ValueType::Int64)]);
    let new = view(&key, &[("a", ValueType::Float64), ("b", ValueType::Int64)]);
    let online = RowEncoder::new(&old).unwrap().encode(&rows(&old, &[(1, 1, None, Some(5))])).unwrap();
    let error = RowDecoder::new(&new, &[0], true).columns(1).append(&online[0].value).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let lenient = RowDecoder::new(&new, &[0, 1], false);
    let mut columns = lenient.columns(1);
    columns.append(&online[0].value).unwrap();
    let columns = columns.finish();
    assert_eq!(columns[0].null_count(), 1);
    assert_eq!(&columns[1], &column(&ValueType::Int64, &[Some(5)]));
}

#[test]
fn rows_of_one_record_are_ordered_by_ordinal() {
    let view = view(&[("driver_id", ValueType::Int64)], &[("f", ValueType::Int64)]);
    let mut batch = rows(&view, &[(1, 1, None, Some(10)), (1, 1, None, Some(11))]);
    batch.positions = [Some(b"p"), Some(b"p")].into_iter().collect();
    batch.ordinals = Some(UInt32Array::from(vec![1, 0]));
    let online = RowEncoder::new(&view).unwrap().encode(&batch).unwrap();
    assert_eq!(&decode(&view, &[0], &online)[0], &column(&ValueType::Int64, &[Some(10)]));
    assert_eq!(RowVersion::decode(&online[0].version).unwrap().ordinal, 1);
}

#[test]
fn expiry_is_twice_the_ttl_after_the_event() {
    let mut view = view(&[("driver_id", ValueType::Int64)], &[("f", ValueType::Int64)]);
    let expiry = |view: &View, time| {
        RowEncoder::new(view).unwrap().encode(&rows(view, &[(1, time, None, None)])).unwrap()[0].expiry
    };
    assert_eq!(expiry(&view, 100), None);
    view.ttl = 10;
    assert_eq!(expiry(&view, 100), Some(120));
    view.ttl = i64::MAX;
    assert_eq!(expiry(&view, 100), Some(i64::MAX));
}

#[test]
fn zeros_and_nans_are_one_key_each_and_nulls_are_seen() {
    let keys = [Key { name: "x".into(), value_type: ValueType::Float64 }];
    let batch = RecordBatch::try_from_iter([(
        "x",
        Arc::new(Float64Array::from(vec![Some(0.0), Some(-0.0), Some(f64::NAN), Some(-f64::NAN), None])) as ArrayRef,
    )])
    .unwrap();
    let columns = KeyColumns::new(&keys, &batch).unwrap();
    let encode = |row| {
        let mut out = Vec::new();
        columns.encode(row, &mut out);
        out
    };
    assert_eq!(encode(0), encode(1));
    assert_eq!(encode(2), encode(3));
    assert_ne!(encode(0), encode(2));
    assert!(columns.is_null(4) && !columns.is_null(0));
}

#[test]
fn keys_of_the_wrong_type_and_missing_keys_are_named() {
    let keys = [Key { name: "driver_id".into(), value_type: ValueType::Int64 }];
    let batch = |name: &str| {
        RecordBatch::try_new(
            Arc::new(Schema::new(vec![ArrowField::new(name, ValueType::Int32.to_arrow(), true)])),
            vec![column(&ValueType::Int32, &[Some(1)])],
        )
        .unwrap()
    };
    let error = KeyColumns::new(&keys, &batch("driver_id")).unwrap_err().to_string();
    assert_eq!(error, "join key `driver_id` is Int32, not `int64`");
    let error = KeyColumns::new(&keys, &batch("driver")).unwrap_err().to_string();
    assert_eq!(error, "join key `driver_id` is missing");
}

#[test]
fn a_view_without_keys_has_one_row() {
    let view = view(&[], &[("f", ValueType::Int64)]);
    let batch = rows(&view, &[(0, 1, None, Some(1)), (0, 2, None, Some(2))]);
    let online = RowEncoder::new(&view).unwrap().encode(&batch).unwrap();
    assert_eq!(online.len(), 1);
    assert_eq!(&decode(&view, &[0], &online)[0], &column(&ValueType::Int64, &[Some(2)]));
}
