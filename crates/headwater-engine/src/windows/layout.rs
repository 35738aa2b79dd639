//! Which partial results make up the features of a view, and in which tiles they lie.

use headwater_core::definitions::{AggregateFunction, Field, ValueType};
use headwater_core::{Error, Micros, Result};

use arrow::array::RecordBatch;

use super::bound::Bound;
use super::finisher::Finisher;
use super::functions::{check_type, output_type};
use super::numbers::Numbers;
use super::part::PartKind;
use super::{Window, Windows};

/// A set of aggregations, compiled.
///
/// Windows of one hop share tiles, kept for the longest of them, and functions of one column share partial results:
/// `sum`, `mean`, `stddev` and `count` one count and one sum, `last` and `last_n` one list.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The columns that are read, by name.
    pub(super) columns: Vec<Field>,
    pub(super) groups: Vec<Group>,
    pub(super) spans: Vec<Span>,
    /// The features' types, in order.
    pub(super) types: Vec<ValueType>,
    needs_order: bool,
    longest: Option<Micros>,
}

/// Tiles of one hop.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// The longest window of this hop; `None` = the lifetime, one tile without an end.
    pub(super) window: Option<Window>,
    /// What a tile holds, by column.
    pub(super) blocks: Vec<Block>,
    /// How many words a tile takes.
    pub(super) words: usize,
    /// The parts of a tile, of all blocks one after another.
    pub(super) parts: Vec<PartKind>,
}

/// The partial results of one column.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// The column, as an index into [`Layout::columns`]; `None` counts rows.
    pub(super) column: Option<usize>,
    pub(super) numbers: Option<Numbers>,
    /// Its parts in [`Group::parts`]: the first, and how many.
    pub(super) first_part: usize,
    pub(super) part_count: usize,
}

/// A window with its features.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) group: usize,
    pub(super) window: Option<Window>,
    /// The blocks whose words are added up, and the parts that are merged.
    pub(super) blocks: Vec<usize>,
    pub(super) parts: Vec<usize>,
    pub(super) features: Vec<SpanFeature>,
}

/// How one feature follows from a span.
#[derive(Debug, Clone)]
pub(super) struct SpanFeature {
    /// Its index among the features of the view.
    pub(super) feature: usize,
    pub(super) finalize: Finalize,
}

/// Where a result lies: a block for numbers, a part for the rest.
#[derive(Debug, Clone, Copy)]
pub(super) enum Finalize {
    Count(usize),
    Sum(usize),
    Mean(usize),
    Stddev(usize),
    Low(usize),
    High(usize),
    Extreme(usize),
    /// With whether a number is a float; `None` of what is no number.
    Last(usize, Option<bool>),
    LastN(usize, usize),
    Distinct(usize),
    Percentile(usize, f64),
}

/// What the functions of one column ask for.
#[derive(Debug, Default)]
struct Needs {
    column: Option<usize>,
    /// A number: its figures fit into words.
    number: bool,
    float: bool,
    count: bool,
    sum: bool,
    spread: bool,
    low: bool,
    high: bool,
    last: u32,
    last_distinct: u32,
    distinct: bool,
    percentile: bool,
}

impl Layout {
    /// Compiles a set of aggregations.
    ///
    /// # Errors
    /// `Invalid`, naming the feature, where a function does not take its column or the feature's type does not hold its
    /// results, as [`output_type`] and [`check_type`] say.
    pub(crate) fn new(windows: &Windows) -> Result<Self> {
        let mut columns: Vec<Field> = Vec::new();
        let mut needs: Vec<(Option<Window>, Vec<Needs>)> = Vec::new();
        // Feature → group, column.
        let mut places = Vec::with_capacity(windows.features.len());
        for feature in &windows.features {
            let name = &feature.field.name;
            let field = match feature.column {
                None => None,
                Some(index) => Some(windows.columns.get(index).ok_or_else(|| {
                    Error::invalid(format!("feature `{name}` is of column {index} of {}", windows.columns.len()))
                })?),
            };
            output_type(feature.function, field.map(|field| &field.dtype))
                .and_then(|natural| check_type(&natural, &feature.field.dtype))
                .map_err(|error| Error::invalid(format!("feature `{name}`: {}", error.message())))?;
            if feature.window.is_some_and(|window| window.hop <= 0 || window.length < window.hop) {
                return Err(Error::invalid(format!("feature `{name}`: its window is shorter than its step")));
            }
            let column = field.map(|field| match columns.iter().position(|column| column.name == field.name) {
                Some(at) => at,
                None => {
                    columns.push(field.clone());
                    columns.len() - 1
                }
            });
            let hop = feature.window.map(|window| window.hop);
            let group = match needs.iter().position(|(window, _)| window.map(|window| window.hop) == hop) {
                Some(at) => at,
                None => {
                    needs.push((feature.window, Vec::new()));
                    needs.len() - 1
                }
            };
            places.push((group, column));
            if let Some((window, needs)) = needs.get_mut(group) {
                if let (Some(longest), Some(window)) = (window, feature.window) {
                    longest.length = longest.length.max(window.length);
                }
                let at = match needs.iter().position(|needs| needs.column == column) {
                    Some(at) => at,
                    None => {
                        needs.push(Needs::of(column, field.map(|field| &field.dtype)));
                        needs.len() - 1
                    }
                };
                if let Some(needs) = needs.get_mut(at) {
                    needs.add(feature.function);
                }
            }
        }
        let groups: Vec<Group> = needs.into_iter().map(|(window, needs)| Group::new(window, &needs)).collect();
        let mut spans: Vec<Span> = Vec::new();
        for (index, (feature, (group, column))) in windows.features.iter().zip(places).enumerate() {
            let at = match spans.iter().position(|span| span.group == group && span.window == feature.window) {
                Some(at) => at,
                None => {
                    spans.push(Span {
                        group,
                        window: feature.window,
                        blocks: Vec::new(),
                        parts: Vec::new(),
                        features: Vec::new(),
                    });
                    spans.len() - 1
                }
            };
            if let (Some(span), Some(group)) = (spans.get_mut(at), groups.get(group)) {
                let number = column.and_then(|column| match columns.get(column)?.dtype {
                    ValueType::Int32 | ValueType::Int64 => Some(false),
                    ValueType::Float32 | ValueType::Float64 => Some(true),
                    _ => None,
                });
                span.add(index, group, column, number, feature.function);
            }
        }
        let longest = windows
            .features
            .iter()
            .map(|feature| feature.window.map(|window| window.length))
            .try_fold(0, |longest: Micros, length| length.map(|length| longest.max(length)));
        let needs_order =
            groups.iter().flat_map(|group| &group.parts).any(|part| matches!(part, PartKind::Newest { .. }));
        let types = windows.features.iter().map(|feature| feature.field.dtype.clone()).collect();
        Ok(Self { columns, groups, spans, types, needs_order, longest })
    }

    /// Whether a row's version is asked for: a function of the newest values is among them.
    pub(crate) fn needs_order(&self) -> bool {
        self.needs_order
    }

    /// The length of the longest window; `None` where a lifetime is among them.
    pub(crate) fn longest(&self) -> Option<Micros> {
        self.longest
    }

    /// Finds its columns among the rows of the view ([`View::schema`](crate::View::schema)).
    ///
    /// # Errors
    /// `Invalid` where one is missing or of another type.
    pub(crate) fn bind<'a>(&'a self, rows: &'a RecordBatch) -> Result<Bound<'a>> {
        Bound::new(self, rows)
    }

    /// Empty feature columns, with room for this many rows.
    pub(crate) fn finisher(&self, capacity: usize) -> Finisher {
        Finisher::new(self, capacity)
    }
}

impl Needs {
    fn of(column: Option<usize>, dtype: Option<&ValueType>) -> Self {
        use ValueType as T;
        let float = matches!(dtype, Some(T::Float32 | T::Float64));
        let number = float || matches!(dtype, Some(T::Int32 | T::Int64 | T::Bool | T::UnixTimestamp));
        Self { column, number, float, ..Self::default() }
    }

    fn add(&mut self, function: AggregateFunction) {
        use AggregateFunction as F;
        match function {
            F::Count => self.count = true,
            F::Sum | F::Mean => self.sum = true,
            F::Stddev => {
                self.sum = true;
                self.spread = true;
            }
            F::Min => self.low = true,
            F::Max => self.high = true,
            F::Last => self.last = self.last.max(1),
            F::LastN { n } => self.last = self.last.max(n),
            F::LastDistinctN { n } => self.last_distinct = self.last_distinct.max(n),
            F::ApproxCountDistinct => self.distinct = true,
            F::ApproxPercentile { .. } => self.percentile = true,
        }
    }

    /// The places of its words, from `next` on.
    fn numbers(&self, next: &mut usize) -> Option<Numbers> {
        let mut place = |asked: bool, words: usize| {
            asked.then(|| {
                *next += words;
                *next - words
            })
        };
        let (low, high) = (self.low && self.number, self.high && self.number);
        let count = place(self.count || self.sum || low || high, 1)?;
        Some(Numbers {
            float: self.float,
            count,
            sum: place(self.sum, 2),
            spread: place(self.spread, 2),
            low: place(low, 1),
            high: place(high, 1),
        })
    }

    fn parts(&self) -> impl Iterator<Item = PartKind> {
        let newest = |limit: u32, distinct| {
            (limit > 0).then(|| PartKind::Newest { limit: usize::try_from(limit).unwrap_or(usize::MAX), distinct })
        };
        [
            (self.low && !self.number).then_some(PartKind::Extreme { greatest: false }),
            (self.high && !self.number).then_some(PartKind::Extreme { greatest: true }),
            newest(self.last, false),
            newest(self.last_distinct, true),
            self.distinct.then_some(PartKind::Distinct),
            self.percentile.then_some(PartKind::Percentile),
        ]
        .into_iter()
        .flatten()
    }
}

impl Group {
    fn new(window: Option<Window>, needs: &[Needs]) -> Self {
        let mut group = Self { window, blocks: Vec::with_capacity(needs.len()), words: 0, parts: Vec::new() };
        for needs in needs {
            let first_part = group.parts.len();
            group.parts.extend(needs.parts());
            group.blocks.push(Block {
                column: needs.column,
                numbers: needs.numbers(&mut group.words),
                first_part,
                part_count: group.parts.len() - first_part,
            });
        }
        group
    }

    /// The number of the tile that an event falls into.
    pub(super) fn tile(&self, time: Micros) -> i64 {
        self.window.map_or(0, |window| time.div_euclid(window.hop))
    }

    /// The number of the first tile that counts when the newest event is of this time.
    pub(super) fn first_tile(&self, newest: Micros) -> i64 {
        self.window.map_or(0, |window| window.start(newest).div_euclid(window.hop))
    }
}

impl Span {
    /// `number` says of a column of numbers whether they are floats.
    fn add(
        &mut self,
        feature: usize,
        group: &Group,
        column: Option<usize>,
        number: Option<bool>,
        function: AggregateFunction,
    ) {
        use AggregateFunction as F;
        let Some((index, block)) = group.blocks.iter().enumerate().find(|(_, block)| block.column == column) else {
            return;
        };
        let part = |wanted: fn(&PartKind) -> bool| {
            let parts = group.parts.iter().enumerate().skip(block.first_part).take(block.part_count);
            parts.filter(|(_, kind)| wanted(kind)).map(|(at, _)| at).next()
        };
        let newest = part(|kind| matches!(kind, PartKind::Newest { distinct: false, .. }));
        let wide = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let finalize = match function {
            F::Count => Some(Finalize::Count(index)),
            F::Sum => Some(Finalize::Sum(index)),
            F::Mean => Some(Finalize::Mean(index)),
            F::Stddev => Some(Finalize::Stddev(index)),
            F::Min => part(|kind| *kind == PartKind::Extreme { greatest: false })
                .map(Finalize::Extreme)
                .or(Some(Finalize::Low(index))),
            F::Max => part(|kind| *kind == PartKind::Extreme { greatest: true })
                .map(Finalize::Extreme)
                .or(Some(Finalize::High(index))),
            F::Last => newest.map(|at| Finalize::Last(at, number)),
            F::LastN { n } => newest.map(|at| Finalize::LastN(at, wide(n))),
            F::LastDistinctN { n } => part(|kind| matches!(kind, PartKind::Newest { distinct: true, .. }))
                .map(|at| Finalize::LastN(at, wide(n))),
            F::ApproxCountDistinct => part(|kind| *kind == PartKind::Distinct).map(Finalize::Distinct),
            F::ApproxPercentile { percentile } => {
                part(|kind| *kind == PartKind::Percentile).map(|at| Finalize::Percentile(at, percentile))
            }
        };
        // The group was laid out for this function.
        let Some(finalize) = finalize else { return };
        let (list, at) = match finalize {
            Finalize::Count(at)
            | Finalize::Sum(at)
            | Finalize::Mean(at)
            | Finalize::Stddev(at)
            | Finalize::Low(at)
            | Finalize::High(at) => (&mut self.blocks, at),
            Finalize::Extreme(at)
            | Finalize::Last(at, _)
            | Finalize::LastN(at, _)
            | Finalize::Distinct(at)
            | Finalize::Percentile(at, _) => (&mut self.parts, at),
        };
        if !list.contains(&at) {
            list.push(at);
        }
        self.features.push(SpanFeature { feature, finalize });
    }
}
