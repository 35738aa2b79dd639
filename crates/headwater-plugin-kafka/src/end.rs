//! The end of a partition, as far as librdkafka tells of it.
//!
//! Behind the last record there may be offsets that hold none which a reader sees: control records, and what compaction
//! has removed. They are stepped over once all of this has happened, in this order:
//!
//! 1. librdkafka has come to the end, and statistics name its offset;
//! 2. nothing waits in librdkafka any more, so that no record lies before that offset: it is reached;
//! 3. the next statistics have come. Records that librdkafka has thrown away for a rebalance wait no more, and the
//!    rebalance comes only then.
//!
//! After a record, a rebalance or a pause it begins anew.

use headwater_core::stream::Lag;
use rdkafka::statistics;

/// The end of a partition that was taken over.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// librdkafka has come to the end since, and no record has come after that.
    at_end: bool,
    /// The end that statistics named while it was at its end.
    named: Option<i64>,
    /// The same, once nothing has waited in librdkafka since.
    reached: Option<i64>,
    /// The high watermark that statistics named last.
    high: Option<i64>,
}

impl End {
    /// librdkafka has come to it.
    pub(crate) fn come(&mut self) {
        self.at_end = true;
    }

    /// Takes what statistics say of the partition. Gives whether it has fewer records than they said before.
    pub(crate) fn told(&mut self, told: &statistics::Partition) -> bool {
        if self.at_end {
            self.named = Some(told.eof_offset).filter(|&end| end >= 0);
        }
        let high = if told.ls_offset >= 0 { told.ls_offset } else { told.hi_offset };
        let high = Some(high).filter(|&high| high >= 0);
        let fewer = high.is_some() && high < self.high;
        self.high = high;
        fewer
    }

    /// Nothing waits in librdkafka: what was named before has been reached.
    pub(crate) fn reach(&mut self) {
        self.reached = self.named.take().or(self.reached);
    }

    /// The end that was reached, where it lies beyond `next`: there is no record between them. For when the next
    /// statistics have come; given once.
    pub(crate) fn step_over(&mut self, next: i64) -> Option<i64> {
        self.reached.take().filter(|&end| self.at_end && end > next)
    }

    /// A record has come.
    pub(crate) fn record(&mut self) {
        self.at_end = false;
        self.reached = None;
    }

    /// librdkafka has thrown away what it had fetched: what it said of the end speaks of records that are yet to come.
    pub(crate) fn forget(&mut self) {
        self.record();
        self.named = None;
    }

    /// How far the end lies behind `next`, the offset after the last record.
    pub(crate) fn lag(&self, next: i64) -> Option<Lag> {
        let high = if self.at_end { next } else { self.high? };
        let records = u64::try_from(high.saturating_sub(next)).unwrap_or(0);
        Some(Lag { records: Some(records), bytes: None, time: None })
    }
}
