//! From a file's tree to aggregations.

use headwater_core::definitions::{AggregateFunction, Aggregation};

use super::FUNCTIONS;
use crate::definitions::keys::Keys;
use crate::definitions::place::{Faults, Place, list, nearest};
use crate::definitions::yaml::Value;

const KEYS: [&str; 7] = ["column", "function", "time_window", "slide_interval", "name", "n", "percentile"];

/// The aggregations of a view. One that cannot be read keeps its place in the list, and nothing more is said of it.
pub(in crate::definitions) fn read(keys: &mut Keys<'_, '_>) -> Vec<Aggregation> {
    let place = keys.place.key("aggregations");
    let items =
        keys.items("aggregations", "aggregations, such as `{ column: amount, function: sum, time_window: 1h }`");
    let mut aggregations = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let name = match item.entry("name").map(|entry| &entry.node.value) {
            Some(Value::Text { text, .. }) => text.as_str(),
            _ => "",
        };
        let place = place.item(index, name);
        let before = keys.faults.len();
        let aggregation = one(place.clone(), keys.faults);
        if keys.faults.len() > before {
            keys.faults.silence(&place);
        }
        aggregations
            .push(aggregation.unwrap_or_else(|| Aggregation { name: Some(name.into()), ..Aggregation::count() }));
    }
    aggregations
}

fn one(place: Place<'_>, faults: &mut Faults) -> Option<Aggregation> {
    let what = "an aggregation, such as `{ column: amount, function: sum, time_window: 1h }`";
    let mut keys = Keys::open(place, faults, what, &KEYS)?;
    // All keys are read, so that all that is wrong with them is said at once.
    let function = function(&mut keys);
    let column = keys.text("column");
    let time_window = keys.duration("time_window");
    let slide_interval = keys.duration("slide_interval");
    let name = keys.text("name");
    Some(Aggregation { column, function: function?, time_window, slide_interval, name })
}

fn function(keys: &mut Keys<'_, '_>) -> Option<AggregateFunction> {
    let place = keys.place.key("function");
    let names = || FUNCTIONS.iter().map(AggregateFunction::name);
    let n = keys.whole("n");
    let percentile = keys.number("percentile");
    let Some(name) = keys.text("function") else {
        keys.faults.add(&place, format!("`function` is missing: one of {}", list(names())), None);
        return None;
    };
    let Some(known) = FUNCTIONS.iter().find(|known| known.name() == name) else {
        let meant = match name.to_ascii_lowercase().as_str() {
            "avg" | "average" => Some("mean"),
            "std" | "stdev" | "stddev_samp" => Some("stddev"),
            "latest" | "newest" => Some("last"),
            "median" | "quantile" => Some("approx_percentile"),
            "distinct" | "count_distinct" => Some("approx_count_distinct"),
            other => nearest(other, names()),
        };
        let hint = meant.map(|name| format!("did you mean `{name}`?"));
        keys.faults.add(&place, format!("there is no function `{name}`; there are {}", list(names())), hint);
        return None;
    };
    let takes_n = matches!(known, AggregateFunction::LastN { .. } | AggregateFunction::LastDistinctN { .. });
    if !takes_n {
        keys.refuse("n", &format!("`{name}` takes no `n`; `last_n` and `last_distinct_n` do"));
    }
    let takes_percentile = matches!(known, AggregateFunction::ApproxPercentile { .. });
    if !takes_percentile {
        keys.refuse("percentile", &format!("`{name}` takes no `percentile`; `approx_percentile` does"));
    }
    if takes_n && !keys.has("n") {
        let at = keys.place.key("n");
        keys.faults.add(&at, format!("`{name}` needs `n`: how many values at most"), None);
    }
    if takes_percentile && !keys.has("percentile") {
        let at = keys.place.key("percentile");
        keys.faults.add(&at, format!("`{name}` needs a `percentile` from 0 to 1, such as `0.95`"), None);
    }
    Some(match known {
        AggregateFunction::LastN { .. } => AggregateFunction::LastN { n: n? },
        AggregateFunction::LastDistinctN { .. } => AggregateFunction::LastDistinctN { n: n? },
        AggregateFunction::ApproxPercentile { .. } => AggregateFunction::ApproxPercentile { percentile: percentile? },
        known => *known,
    })
}
