//! How much memory there is, and how much of it is in use.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a machine is taken to have that does not say: little.
const UNKNOWN: u64 = 2 << 30;

/// A quarter of the machine's memory, or of what its container may use.
pub(super) fn default_limit() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_in(&text));
    let container = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let total = match (machine, container) {
        (Some(machine), Some(container)) => u64::min(machine, container),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => UNKNOWN,
    };
    total / 4
}

/// The total in the text of `/proc/meminfo`: `MemTotal:       24576 kB`.
fn total_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// A number of bytes that workers share.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Counts `bytes` in. Says whether the limit is passed: somebody has to give some back.
    pub(super) fn take(&self, bytes: u64) -> bool {
        self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.limit
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::total_in;

    #[test]
    fn the_total_is_read_in_kibibytes() {
        assert_eq!(total_in("MemFree: 1 kB\nMemTotal:       24576 kB\n"), Some(24576 * 1024));
        assert_eq!(total_in("MemTotal: many"), None);
        assert_eq!(total_in(""), None);
    }
}
