//! Bytes that no row was written as: an error or another row, never a panic.

use std::sync::LazyLock;

use headwater_core::ErrorKind;
use headwater_core::definitions::AggregateFunction as F;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::{Layout, State, Window, Windows};
use super::oracle::{self, COLUMNS, Event};
use super::properties::{config, events, finish, text};
use super::{output_type, windows};

/// Every function of every column.
pub(super) fn everything() -> Windows {
    let functions = [
        F::Sum,
        F::Count,
        F::Min,
        F::Max,
        F::Mean,
        F::Stddev,
        F::Last,
        F::LastN { n: 3 },
        F::LastDistinctN { n: 3 },
        F::ApproxCountDistinct,
        F::ApproxPercentile { percentile: 0.5 },
    ];
    let takes = |function: F, column: usize| output_type(function, Some(&COLUMNS[column].1)).is_ok();
    let spans = [Some(Window { length: 1000, hop: 100 }), None];
    let features: Vec<_> = functions
        .iter()
        .flat_map(|function| (0..COLUMNS.len()).filter(|c| takes(*function, *c)).map(|c| (*function, Some(c))))
        .flat_map(|(function, column)| spans.map(|window| (function, column, window)))
        .collect();
    windows(&COLUMNS, &features)
}

pub(super) fn state(layout: &Layout, events: &[Event]) -> State {
    let rows = oracle::rows(events);
    let bound = layout.bind(&rows).unwrap();
    let mut state = State::new();
    for (index, event) in events.iter().enumerate() {
        state.update(layout, &bound, index, event.time, &oracle::order(events, index));
    }
    state
}

/// Reads the bytes, and does with the row, should it be one, all that is done with rows.
fn use_bytes(layout: &Layout, bytes: &[u8], events: &[Event]) -> Result<(), TestCaseError> {
    let mut read = match State::decode(layout, bytes) {
        Ok(read) => read,
        Err(error) => {
            prop_assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::FormatVersion), "{error:?}");
            return Ok(());
        }
    };
    let t = read.newest().unwrap_or(0).saturating_add(5);
    let mut finisher = layout.finisher(1);
    finisher.push(layout, &read, t);
    let _ = finisher.finish();
    let other = state(layout, events);
    read.merge(layout, &other);
    let mut merged = other;
    merged.merge(layout, &read);
    let rows = oracle::rows(events);
    let bound = layout.bind(&rows).unwrap();
    for (index, event) in events.iter().enumerate() {
        read.update(layout, &bound, index, event.time, &[]);
    }
    read.encode(layout);
    Ok(())
}

/// Sketches of distinct values.
pub(super) fn sketches() -> Layout {
    let features = [Some(Window { length: 1000, hop: 1000 }), None].map(|w| (F::ApproxCountDistinct, Some(1), w));
    Layout::new(&windows(&COLUMNS, &features)).unwrap()
}

/// Events of so many values.
pub(super) fn values(values: std::ops::Range<i64>) -> Vec<Event> {
    let event = |value| Event { time: 1, split: 0, float: None, int: Some(value), text: None, instant: None };
    values.map(event).collect()
}

/// A byte, often one that is taken for much, or for nothing.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), Just(0), Just(u8::MAX)]
}

/// A row of two sketches that hold all their registers.
static FULL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let layout = sketches();
    state(&layout, &values(0..5_000)).encode(&layout).to_vec()
});

#[test]
fn a_sketch_that_contradicts_itself_is_damaged() {
    let layout = sketches();
    assert!(FULL.len() > 2_048 && State::decode(&layout, &FULL).is_ok());
    for at in [200, 600, 1_000, 1_300, 2_000] {
        let mut bytes = FULL.clone();
        bytes[at] ^= 1;
        assert_eq!(State::decode(&layout, &bytes).unwrap_err().kind(), ErrorKind::Corrupt, "at {at}");
    }
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn a_row_of_full_sketches_with_bytes_changed(
        // Half of them where the first one says what it is.
        changes in proptest::collection::vec((prop_oneof![0_usize..48, 0_usize..2_200], byte()), 1..4),
        later in 5_000_i64..1_000_000,
    ) {
        let mut bytes = FULL.clone();
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        use_bytes(&sketches(), &bytes, &values(later..later + 300))?;
    }

    #[test]
    fn any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), versioned in any::<bool>()) {
        if let Some(first) = bytes.first_mut().filter(|_| versioned) {
            *first = 1;
        }
        use_bytes(&Layout::new(&everything()).unwrap(), &bytes, &[])?;
    }

    #[test]
    fn a_row_with_bytes_changed_or_missing(
        events in events(),
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        end in proptest::option::of(any::<Index>()),
    ) {
        let layout = Layout::new(&everything()).unwrap();
        let mut bytes = state(&layout, &events).encode(&layout).to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        use_bytes(&layout, &bytes, &events)?;
    }

    #[test]
    fn a_row_reads_as_it_was_written(events in events()) {
        let layout = Layout::new(&everything()).unwrap();
        let written = state(&layout, &events);
        let read = State::decode(&layout, &written.encode(&layout)).unwrap();
        // A sketch of few values is a set of hashes in an order of its own: rows compare by what they give.
        prop_assert_eq!(read.encode(&layout).len(), written.encode(&layout).len());
        let t = written.newest().unwrap_or(0);
        prop_assert_eq!(text(&finish(&layout, &read, t)), text(&finish(&layout, &written, t)));
        prop_assert_eq!(read.newest(), written.newest());
    }
}

#[test]
fn an_unknown_version_is_refused_by_name() {
    let layout = Layout::new(&everything()).unwrap();
    let mut bytes = State::new().encode(&layout).to_vec();
    bytes[0] = 2;
    let error = State::decode(&layout, &bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FormatVersion);
    assert_eq!(error.message(), "a window row has format version `2`; this release knows `1`");
}
