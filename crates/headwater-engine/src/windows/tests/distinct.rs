//! Sketches of many distinct values, which hold all their registers.

use std::collections::BTreeSet;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use headwater_core::Micros;
use headwater_core::definitions::{AggregateFunction as F, ValueType};
use headwater_testkit::Random;

use super::super::{DISTINCT_STANDARD_ERROR, Layout, State, Window};
use super::oracle::Value;
use super::properties::finish;
use super::*;

/// How many tiles the longer window has.
const TILES: i64 = 5;

type Row = (Micros, i64);

fn state(layout: &Layout, rows: &[Row]) -> State {
    let values = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))) as ArrayRef;
    let batch = RecordBatch::try_from_iter([("x", values)]).unwrap();
    let bound = layout.bind(&batch).unwrap();
    let mut state = State::new();
    for (at, (time, _)) in rows.iter().enumerate() {
        state.update(layout, &bound, at, *time, &[]);
    }
    state
}

fn below(random: &mut Random, limit: i64) -> i64 {
    i64::try_from(random.below(usize::try_from(limit).unwrap())).unwrap()
}

fn merged(layout: &Layout, states: &[&State]) -> State {
    let mut all = State::new();
    states.iter().for_each(|state| all.merge(layout, state));
    all
}

#[test]
fn many_distinct_values_count_the_same_however_their_rows_are_merged() {
    let windows = [Some(2), Some(TILES), None].map(|tiles: Option<i64>| {
        let window = tiles.map(|tiles| Window { length: (tiles - 1) * MINUTE, hop: MINUTE });
        (F::ApproxCountDistinct, Some(0), window)
    });
    let layout = Layout::new(&super::windows(&[("x", ValueType::Int64)], &windows)).unwrap();
    for (seed, distinct) in [(1, 2_000), (2, 3_000), (3, 20_000), (4, 50_000)] {
        let mut random = Random::new(seed);
        let mut rows = vec![Vec::<Row>::new(); 4];
        for value in 0..distinct {
            // A third of them are seen again, in the same tile or another, of the same split or another.
            for _ in 0..=usize::from(random.once_in(3)) {
                let split = random.below(4);
                let time = below(&mut random, TILES) * MINUTE + below(&mut random, 60);
                rows[split].push((time, value));
            }
        }
        let t = (TILES - 1) * MINUTE + 60;
        let states = rows.iter().map(|rows| state(&layout, rows)).collect::<Vec<_>>();
        let [a, b, c, d] = [&states[0], &states[1], &states[2], &states[3]];
        let first = finish(&layout, &merged(&layout, &[a, b, c, d]), t);
        let all = state(&layout, &rows.concat());
        let stored = State::decode(&layout, &merged(&layout, &[c, d]).encode(&layout)).unwrap();
        let ways = [
            merged(&layout, &[d, c, b, a]),
            merged(&layout, &[b, d, a, c]),
            merged(&layout, &[&merged(&layout, &[a, b]), &stored]),
            merged(&layout, &[&stored, a, b]),
            State::decode(&layout, &all.encode(&layout)).unwrap(),
            // What counts twice does not.
            merged(&layout, &[&all, a, &stored, b]),
            all,
        ];
        for way in &ways {
            assert_eq!(finish(&layout, way, t), first, "{distinct} values");
        }
        for ((.., window), got) in windows.iter().zip(&first) {
            let from = window.map_or(Micros::MIN, |window| window.start(t));
            let inside = rows.iter().flatten().filter(|row| row.0 >= from).map(|row| row.1);
            let wanted = inside.collect::<BTreeSet<_>>().len() as f64;
            let Value::Int(got) = got else { panic!("{got:?}") };
            let error = (*got as f64 - wanted).abs() / wanted;
            assert!(error <= 4.0 * DISTINCT_STANDARD_ERROR, "{got} of {wanted}, {window:?}");
        }
    }
}
