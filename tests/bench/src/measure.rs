//! What a stretch of work cost this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::project::field;

/// When a bare reader got records, by their number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arrivals(Arc<Mutex<BTreeMap<i64, Instant>>>);

impl Arrivals {
    /// Records have come just now, as JSON of drivers.
    pub(crate) fn note<'a>(&self, records: impl IntoIterator<Item = &'a [u8]>) {
        let now = Instant::now();
        let number = |record| field(std::str::from_utf8(record).unwrap(), "avg_daily_trips").parse().unwrap();
        self.0.lock().unwrap().extend(records.into_iter().map(|record| (number(record), now)));
    }

    /// When the record of this number came.
    pub(crate) fn of(&self, number: i64) -> Option<Instant> {
        self.0.lock().unwrap().get(&number).copied()
    }

    /// Whether nobody wants to know any more.
    pub(crate) fn are_forgotten(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// The clock ticks of Linux' accounts, in seconds.
const TICK: f64 = 0.01;

/// Begins to measure.
pub(crate) struct Stretch {
    wall: Instant,
    cpu: f64,
}

/// What it cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Seconds.
    pub(crate) wall: f64,
    /// Seconds of all cores, of user and system.
    pub(crate) cpu: f64,
}

impl Stretch {
    pub(crate) fn begin() -> Self {
        Self { wall: Instant::now(), cpu: cpu() }
    }

    pub(crate) fn end(&self) -> Cost {
        Cost { wall: self.wall.elapsed().as_secs_f64(), cpu: cpu() - self.cpu }
    }
}

/// Seconds of processor time that this process has used.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The name in parentheses may hold anything; user and system time are the 14th and 15th field.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) * TICK
}

/// The most memory that this process has held, in MB.
pub(crate) fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}
