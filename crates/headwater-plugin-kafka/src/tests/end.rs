//! The end of a partition, as librdkafka tells of it.

use rdkafka::statistics::Partition;

use crate::end::End;

/// Statistics of a partition that ends here.
fn ends_at(offset: i64) -> Partition {
    Partition { eof_offset: offset, hi_offset: offset, ls_offset: offset, ..Partition::default() }
}

#[test]
fn an_end_that_was_reached_is_given_once() {
    let mut end = End::default();
    end.come();
    end.told(&ends_at(10));
    assert_eq!(end.step_over(8), None, "something may wait before it");
    end.reach();
    assert_eq!(end.step_over(8), Some(10));
    assert_eq!(end.step_over(8), None);
}

#[test]
fn an_end_counts_only_where_it_was_named_at_the_end_and_lies_beyond() {
    let mut end = End::default();
    end.told(&ends_at(10));
    end.come();
    end.reach();
    assert_eq!(end.step_over(8), None);
    end.told(&ends_at(10));
    end.reach();
    assert_eq!(end.step_over(10), None);
}

#[test]
fn what_was_reached_before_a_record_or_a_rebalance_does_not_count() {
    for since in [End::record as fn(&mut End), End::forget] {
        let mut end = End::default();
        end.come();
        end.told(&ends_at(10));
        end.reach();
        since(&mut end);
        end.come();
        assert_eq!(end.step_over(8), None);
    }
    // Nor what was named before a rebalance.
    let mut end = End::default();
    end.come();
    end.told(&ends_at(10));
    end.forget();
    end.come();
    end.reach();
    assert_eq!(end.step_over(8), None);
}

#[test]
fn the_lag_is_that_of_the_last_statistics_and_nothing_at_the_end() {
    let records = |end: &End, next: i64| end.lag(next).and_then(|lag| lag.records);
    let mut end = End::default();
    assert_eq!(records(&end, 5), None);
    // No transaction, no last stable offset.
    end.told(&Partition { ls_offset: -1, ..ends_at(12) });
    assert_eq!(records(&end, 5), Some(7));
    end.told(&Partition { ls_offset: 9, ..ends_at(12) });
    assert_eq!(records(&end, 5), Some(4));
    end.come();
    assert_eq!(records(&end, 5), Some(0));
}

#[test]
fn fewer_records_than_before_are_told() {
    let mut end = End::default();
    let fewer = [10, 10, 9, 9].map(|offset| end.told(&ends_at(offset)));
    assert_eq!(fewer, [false, false, true, false]);
}
