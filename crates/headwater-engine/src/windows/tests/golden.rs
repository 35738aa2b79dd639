//! Rows as version 1 writes them. Whoever changes a byte of that makes it another version, and goes on reading this one.

use std::fmt::Write;

use headwater_core::Position;
use headwater_core::definitions::AggregateFunction as F;
use sha2::{Digest, Sha256};

use super::super::{Layout, State, Window};
use super::damage::{everything, sketches, state, values};
use super::oracle::{COLUMNS, Event};
use super::properties::{finish, text};
use super::{output_type, windows};

/// Of each function its name, a row of it as hexadecimal digits, and what that row gives; and of all of them together, which
/// share what they can.
const ROWS: &str = include_str!("rows_v1.txt");

const FUNCTIONS: [F; 11] = [
    F::Count,
    F::Sum,
    F::Mean,
    F::Stddev,
    F::Min,
    F::Max,
    F::Last,
    F::LastN { n: 3 },
    F::LastDistinctN { n: 2 },
    F::ApproxCountDistinct,
    F::ApproxPercentile { percentile: 0.5 },
];

/// Tiles of none, one and several values, before and after 1970, of values that are short, long, odd or missing.
fn events() -> Vec<Event> {
    let event = |time, split, float, int, text: Option<&str>, instant| Event {
        time,
        split,
        float,
        int,
        text: text.map(str::to_owned),
        instant,
    };
    vec![
        event(-150, 0, Some(0.1), Some(i64::MAX), Some("tea"), Some(-1)),
        event(-150, 1, Some(-2.5), Some(i64::MAX), Some(""), Some(7)),
        event(40, 0, None, None, None, None),
        event(905, 0, Some(-0.0), Some(-3), Some("rum"), Some(7)),
        event(260, 0, Some(f64::NAN), Some(1_000_000), Some("ßé"), None),
        event(950, 1, Some(0.1), Some(4), None, None),
        event(990, 1, Some(1e300), None, Some("tea"), Some(1_700_000_000_000_000)),
    ]
}

/// Each function over all columns that it takes, over a window and the lifetime; then all of them.
fn layouts() -> Vec<(String, Layout)> {
    let all = ("everything".to_owned(), Layout::new(&everything()).unwrap());
    FUNCTIONS.iter().map(|function| (function.to_string(), layout(*function))).chain([all]).collect()
}

fn layout(function: F) -> Layout {
    let takes = |column: &usize| output_type(function, Some(&COLUMNS[*column].1)).is_ok();
    let spans = [Some(Window { length: 1000, hop: 100 }), None];
    let features: Vec<_> = (0..COLUMNS.len())
        .filter(takes)
        .flat_map(|column| spans.map(|window| (function, Some(column), window)))
        .collect();
    Layout::new(&windows(&COLUMNS, &features)).unwrap()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn a_row_of_each_function_is_written_and_read_as_ever() {
    let mut written = String::new();
    for (name, layout) in layouts() {
        let mut state = state(&layout, &events());
        state.set_position(Position::from_u64(6));
        let row = hexadecimal(&state.encode(&layout));
        writeln!(written, "{name}\n{row}\n{}", text(&finish(&layout, &state, 1_000))).unwrap();
    }
    assert_eq!(written, ROWS, "rows are written differently");

    let lines = ROWS.lines().collect::<Vec<_>>();
    for ((name, layout), lines) in layouts().into_iter().zip(lines.chunks(3)) {
        let read = State::decode(&layout, &bytes(lines[1])).unwrap();
        assert_eq!((read.newest(), read.position()), (Some(990), &Position::from_u64(6)), "{name}");
        assert_eq!(text(&finish(&layout, &read, 1_000)), lines[2], "{name}");
        assert_eq!(hexadecimal(&read.encode(&layout)), lines[1], "{name}");
    }
}

/// Sketches of many values are long: of those the checksum is kept.
#[test]
fn sketches_of_many_values_are_written_as_ever() {
    let layout = sketches();
    for (count, checksum) in [(100, "2b4ee7bc70cfb11e"), (5_000, "140fdc8c9e4bee6c")] {
        let row = state(&layout, &values(0..count)).encode(&layout);
        assert_eq!(hexadecimal(&Sha256::digest(&row)[..8]), checksum, "{count} values");
    }
}
