//! Random streams: what rows of state give equals what the events themselves give, however they came.
//!
//! `PROPTEST_CASES` says how many streams are tried for each function; the test command's slow lane tries 2,000.

use headwater_core::definitions::AggregateFunction as F;
use headwater_core::{Micros, Position};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngAlgorithm;

use super::super::bound::Bound;
use super::super::{Layout, State, Window, Windows};
use super::oracle::{self, COLUMNS, Event, Value};
use super::windows;

/// A generator: this many cases, or as many as are asked for.
pub(super) fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(cases),
        failure_persistence: None,
        // Without optimisation the default one takes longer than all that is tried.
        rng_algorithm: RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    }
}

/// Also what is no number: of that the laws hold too. Nothing leaves `float64` on the way, where a sum depends on its order.
fn floats() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => (-1000_i32..1000).prop_map(|cents| f64::from(cents) / 100.0),
        1 => -1e15..1e15,
        1 => (0_i32..5).prop_map(|small| 1e9 + f64::from(small)),
        1 => Just(-0.0),
        1 => -1e-9..1e-9,
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)],
    ]
}

fn ints() -> impl Strategy<Value = i64> {
    prop_oneof![4 => -10_i64..10, 1 => any::<i64>(), 1 => Just(i64::MAX), 1 => i64::MAX - 3..i64::MAX]
}

pub(super) fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (
        -300_i64..3000,
        0_u8..4,
        proptest::option::weighted(0.9, floats()),
        proptest::option::weighted(0.9, ints()),
        proptest::option::weighted(0.9, "[a-e]{0,2}"),
        proptest::option::weighted(0.9, -5_i64..5),
    )
        .prop_map(|(time, split, float, int, text, instant)| Event { time, split, float, int, text, instant });
    proptest::collection::vec(event, 0..50)
}

fn window() -> impl Strategy<Value = Window> {
    (1_i64..2000, 1_i64..40).prop_map(|(length, tiles)| Window { length, hop: (length / tiles).max(1) })
}

/// A function over all columns that it takes, over two windows of one hop, a third and the lifetime.
fn aggregations(function: F, pair: Window, other: Window) -> Windows {
    let longer = Window { length: pair.length.saturating_mul(2), ..pair };
    let takes = |column: Option<usize>| super::output_type(function, column.map(|at| &COLUMNS[at].1)).is_ok();
    let columns = [None, Some(0), Some(1), Some(2), Some(3)].into_iter().filter(|column| takes(*column));
    let features: Vec<_> = columns
        .flat_map(|column| [Some(pair), Some(longer), Some(other), None].map(|window| (function, column, window)))
        .collect();
    windows(&COLUMNS, &features)
}

/// Events, and the order of each.
struct Given<'a> {
    events: &'a [Event],
    orders: Vec<Vec<u8>>,
}

impl<'a> Given<'a> {
    fn new(events: &'a [Event]) -> Self {
        Self { events, orders: (0..events.len()).map(|index| oracle::order(events, index)).collect() }
    }

    fn update(&self, layout: &Layout, bound: &Bound<'_>, state: &mut State, index: usize) {
        state.update(layout, bound, index, self.events[index].time, &self.orders[index]);
    }
}

/// A run of a worker: from which record on the source delivers again, how far it comes, and whether it stores the row
/// before it dies.
type Run = (Index, Index, bool);

/// Brings one split's records to its row as jobs do that stop and start again; a row tells by position what it has.
fn run_split(layout: &Layout, bound: &Bound<'_>, given: &Given<'_>, records: &[usize], runs: &[Run]) -> State {
    let position = |place: usize| Position::from_u64(u64::try_from(place).unwrap() + 1);
    let mut stored = State::new().encode(layout);
    let mut done = 0;
    let mut work = |from: usize, to: usize, stores: bool, done: &mut usize| {
        let mut state = State::decode(layout, &stored).unwrap();
        for (place, index) in records.iter().enumerate().take(to).skip(from) {
            if position(place) > *state.position() {
                given.update(layout, bound, &mut state, *index);
                state.set_position(position(place));
            }
        }
        if stores {
            stored = state.encode(layout);
            *done = to;
        }
    };
    for (from, to, stores) in runs {
        if done < records.len() {
            work(from.index(done + 1), done + 1 + to.index(records.len() - done), *stores, &mut done);
        }
    }
    work(0, records.len(), true, &mut done);
    State::decode(layout, &stored).unwrap()
}

/// The features at `t` of the events up to then, brought in by time as the join does.
fn offline(layout: &Layout, bound: &Bound<'_>, given: &Given<'_>, t: Micros) -> Vec<Value> {
    let events = given.events;
    let mut indices: Vec<usize> = (0..events.len()).filter(|at| events[*at].time <= t).collect();
    indices.sort_by_key(|at| events[*at].time);
    let mut state = State::new();
    for index in indices {
        given.update(layout, bound, &mut state, index);
    }
    finish(layout, &state, t)
}

pub(super) fn finish(layout: &Layout, state: &State, t: Micros) -> Vec<Value> {
    let mut finisher = layout.finisher(1);
    finisher.push(layout, state, t);
    finisher.finish().unwrap().iter().map(|column| oracle::value(column, 0)).collect()
}

/// Online at `t` equals offline at `t` equals what the events say.
fn check(
    windows: &Windows,
    events: &[Event],
    runs: &[Run],
    first: Index,
    later: i64,
    earlier: Micros,
) -> Result<(), TestCaseError> {
    let layout = Layout::new(windows).unwrap();
    let rows = oracle::rows(events);
    let bound = layout.bind(&rows).unwrap();
    let given = Given::new(events);
    let mut splits: Vec<State> = (0..4)
        .map(|split| {
            let records: Vec<usize> = (0..events.len()).filter(|at| events[*at].split == split).collect();
            run_split(&layout, &bound, &given, &records, runs)
        })
        .collect();
    splits.rotate_left(first.index(4));
    let mut merged = State::new();
    splits.iter().for_each(|split| merged.merge(&layout, split));
    prop_assert_eq!(merged.newest(), events.iter().map(|event| event.time).max());

    let t = merged.newest().unwrap_or(0) + later;
    let online = finish(&layout, &merged, t);
    let offline_at_t = offline(&layout, &bound, &given, t);
    let want = oracle::features(windows, events, t);
    let past = (offline(&layout, &bound, &given, earlier), oracle::features(windows, events, earlier));
    for (index, feature) in windows.features.iter().enumerate() {
        let function = feature.function;
        let (online, offline, want) = (&online[index], &offline_at_t[index], &want[index]);
        prop_assert!(oracle::agrees(function, online, want), "online {online:?}, not {want:?}: {feature:?}");
        prop_assert!(oracle::agrees(function, offline, want), "offline {offline:?}, not {want:?}: {feature:?}");
        if !matches!(function, F::Sum | F::Mean | F::Stddev) {
            // Also of approximate functions the same to the last bit.
            prop_assert_eq!(text(online), text(offline), "{:?}", feature);
        }
        let (got, want) = (&past.0[index], &past.1[index]);
        prop_assert!(oracle::agrees(function, got, want), "at {earlier} {got:?}, not {want:?}: {feature:?}");
    }
    Ok(())
}

/// (a + b) + c = a + (b + c), a + b = b + a, and nothing added changes nothing.
fn check_laws(windows: &Windows, events: &[Event], later: i64) -> Result<(), TestCaseError> {
    let layout = Layout::new(windows).unwrap();
    let rows = oracle::rows(events);
    let bound = layout.bind(&rows).unwrap();
    let given = Given::new(events);
    let mut states = [State::new(), State::new(), State::new()];
    for (index, event) in events.iter().enumerate() {
        let state = &mut states[usize::from(event.split) % 3];
        given.update(&layout, &bound, state, index);
    }
    let merge = |a: &State, b: &State| {
        let mut merged = a.clone();
        merged.merge(&layout, b);
        merged
    };
    let [a, b, c] = &states;
    prop_assert_eq!(&merge(a, &State::new()), a);
    prop_assert_eq!(finish_all(&layout, &merge(&State::new(), a), later), finish_all(&layout, a, later));
    let ways = [
        merge(&merge(a, b), c),
        merge(a, &merge(b, c)),
        merge(&merge(b, a), c),
        merge(c, &merge(a, b)),
        merge(&merge(c, b), a),
    ];
    let t = ways[0].newest().unwrap_or(0) + later;
    let first = finish(&layout, &ways[0], t);
    for way in &ways[1..] {
        let other = finish(&layout, way, t);
        for ((feature, first), other) in windows.features.iter().zip(&first).zip(&other) {
            match (feature.function, first, other) {
                (F::Sum | F::Mean | F::Stddev, Value::Float(_), Value::Float(_)) => {
                    prop_assert!(oracle::agrees(feature.function, first, other), "{first:?}, {other:?}: {feature:?}");
                }
                _ => prop_assert_eq!(text(first), text(other), "{:?}", feature),
            }
        }
    }
    Ok(())
}

fn finish_all(layout: &Layout, state: &State, later: i64) -> String {
    text(&finish(layout, state, state.newest().unwrap_or(0) + later))
}

/// As text NaN is equal to itself, and a float is told apart from every other.
pub(super) fn text(values: &(impl std::fmt::Debug + ?Sized)) -> String {
    format!("{values:?}")
}

/// For one function: it agrees with the events themselves, and merging obeys its laws.
macro_rules! function {
    ($name:ident, $function:expr) => {
        proptest! {
            #![proptest_config(config(48))]
            #[test]
            fn $name(
                events in events(),
                (pair, other) in (window(), window()),
                runs in proptest::collection::vec(any::<Run>(), 0..4),
                first in any::<Index>(),
                later in prop_oneof![Just(0), 0_i64..3000],
                earlier in -300_i64..3000,
                n in 1_u32..6,
                percentile in prop_oneof![Just(0.0), Just(0.5), Just(0.95), Just(1.0), 0.0..=1.0],
            ) {
                let function: fn(u32, f64) -> F = $function;
                let windows = aggregations(function(n, percentile), pair, other);
                check(&windows, &events, &runs, first, later, earlier)?;
                check_laws(&windows, &events, later)?;
            }
        }
    };
}

function!(sum, |_, _| F::Sum);
function!(count, |_, _| F::Count);
function!(min, |_, _| F::Min);
function!(max, |_, _| F::Max);
function!(mean, |_, _| F::Mean);
function!(stddev, |_, _| F::Stddev);
function!(last, |_, _| F::Last);
function!(last_n, |n, _| F::LastN { n });
function!(last_distinct_n, |n, _| F::LastDistinctN { n });
function!(approx_count_distinct, |_, _| F::ApproxCountDistinct);
function!(approx_percentile, |_, percentile| F::ApproxPercentile { percentile });
