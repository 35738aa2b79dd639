use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use headwater_core::definitions::timestamp_type;
use proptest::prelude::*;

use crate::definitions::ddl::parse;

fn one(text: &str) -> DataType {
    let schema = parse(&format!("c {text}")).unwrap_or_else(|error| panic!("`{text}`: {error:?}"));
    schema.field(0).data_type().clone()
}

#[test]
fn every_type_has_its_arrow_type() {
    let list = |item| DataType::List(Arc::new(Field::new("item", item, true)));
    for (names, expected) in [
        (&["tinyint", "byte", "TINYINT"][..], DataType::Int8),
        (&["smallint", "short"], DataType::Int16),
        (&["int", "integer", "Integer"], DataType::Int32),
        (&["bigint", "long"], DataType::Int64),
        (&["float", "real"], DataType::Float32),
        (&["double"], DataType::Float64),
        (&["decimal", "dec", "numeric"], DataType::Decimal128(10, 0)),
        (&["decimal(12)", "decimal( 12 , 0 )"], DataType::Decimal128(12, 0)),
        (&["decimal(38,38)"], DataType::Decimal128(38, 38)),
        (&["string", "varchar(300)", "char(1)"], DataType::Utf8),
        (&["boolean"], DataType::Boolean),
        (&["binary"], DataType::Binary),
        (&["date"], DataType::Date32),
        (&["timestamp", "timestamp_ntz", "timestamp_ltz"], timestamp_type()),
        (&["array<string>", "ARRAY < string >"], list(DataType::Utf8)),
        (&["array<array<int>>"], list(list(DataType::Int32))),
        (
            &["struct<a: int, `b c`: string NOT NULL>", "struct<a int, `b c` string not null comment 'x'>"],
            DataType::Struct(
                vec![Field::new("a", DataType::Int32, true), Field::new("b c", DataType::Utf8, false)].into(),
            ),
        ),
        (
            &["map<string, int>"],
            DataType::Map(
                Arc::new(Field::new(
                    "entries",
                    DataType::Struct(
                        vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Int32, true)]
                            .into(),
                    ),
                    false,
                )),
                false,
            ),
        ),
    ] {
        for name in names {
            assert_eq!(one(name), expected, "{name}");
        }
    }
}

#[test]
fn columns_have_names_nulls_and_comments() {
    let schema = parse(
        "  driver_id: bigint NOT NULL COMMENT 'it''s ''not'' shown' , `odd ``name` string COMMENT \"a \\\" b\"\n,\tnull_ok int ",
    );
    // Spark doubles no quotes inside of quotes: the comment ends at the first.
    assert!(schema.is_err());
    let schema = parse(
        "  driver_id: bigint NOT NULL COMMENT 'it\\'s not shown' , `odd ``name` string COMMENT \"a \\\" b\"\n,\tnull_ok int ",
    )
    .unwrap();
    let columns: Vec<_> = schema.fields().iter().map(|f| (f.name().as_str(), f.is_nullable())).collect();
    assert_eq!(columns, [("driver_id", false), ("odd `name", true), ("null_ok", true)]);
    assert_eq!(parse("größe double").unwrap().field(0).name(), "größe");
}

#[test]
fn faults_have_their_place() {
    for (text, at, says, hint) in [
        ("", 0, "no columns", ""),
        ("   ", 3, "no columns", ""),
        ("a", 1, "expected the type of `a`, found the end of the text", ""),
        ("a int,", 6, "expected another column after the `,`", ""),
        ("a int,, b int", 6, "expected a column's name, found `,`", ""),
        ("a int b int", 6, "expected `,` between columns, found `b`", ""),
        ("a int; b int", 5, "expected `,` between columns, found `;`", ""),
        ("a int32", 2, "`int32` is not a type of Spark's DDL", "did you mean `int`?"),
        ("a int, b strng", 9, "`strng` is not a type", "did you mean `string`?"),
        ("a text", 2, "`text` is not a type", "did you mean `string`?"),
        ("a qqqq", 2, "`qqqq` is not a type", ""),
        ("a int, A int", 7, "the column `A` is there twice", ""),
        ("`a int", 0, "this backquote is not closed", ""),
        ("`` int", 0, "a column needs a name", ""),
        ("a array", 7, "expected `<` and a type after `array`, found the end of the text", ""),
        ("a array<int", 11, "expected `>` after the type of an array's items", ""),
        ("a map<int>", 9, "expected `,` between the types of a map's keys and values, found `>`", ""),
        ("a struct<>", 9, "expected a column's name, found `>`", ""),
        ("a struct<b int", 14, "expected `,` or `>`, found the end of the text", ""),
        ("a varchar", 9, "expected `(` and a length after `varchar`", ""),
        ("a varchar(x)", 10, "expected a number, found `x`", ""),
        ("a decimal(0)", 9, "a decimal has 1 to 38 digits", ""),
        ("a decimal(5,6)", 9, "a decimal has 1 to 38 digits", ""),
        ("a int NOT", 6, "expected `,` between columns, found `NOT`", ""),
        ("a int COMMENT x", 14, "expected text in quotes after `COMMENT`, found `x`", ""),
        ("a int COMMENT 'x", 14, "this quote is not closed", ""),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.at, at, "`{text}`: {error:?}");
        assert!(error.message.contains(says), "`{text}`: {error:?}");
        assert_eq!(error.hint.unwrap_or_default(), hint, "`{text}`");
    }
}

proptest! {
    #[test]
    fn any_text_is_columns_or_a_fault_inside_of_it(text in "\\PC{0,60}|[a-c`<>(),:' ]{0,60}|(a (array<|map<int,|struct<b |int|decimal\\(|,|>){0,8}){0,4}") {
        match parse(&text) {
            Ok(schema) => prop_assert!(!schema.fields().is_empty()),
            Err(error) => prop_assert!(error.at <= text.chars().count(), "{error:?}"),
        }
    }
}
