//! The drivers' events: one an hour and driver, for a week, as JSON.

use headwater::stream::ProducerRecord;

const HOUR: i64 = 3_600;
/// 2021-04-06T00:00:00Z, in seconds.
const START: i64 = 1_617_667_200;
const HOURS: i64 = 7 * 24;
const DRIVERS: std::ops::RangeInclusive<i64> = 1001..=1005;

/// The events, in the order in which they reach the stream: always the same.
pub(crate) fn produce() -> Vec<ProducerRecord> {
    let mut random = Random(20_210_412);
    let mut events: Vec<(i64, ProducerRecord)> = Vec::new();
    for hour in 0..HOURS {
        for driver in DRIVERS {
            let time = START + hour * HOUR;
            // An event reaches the stream within ten minutes, one in fifty an hour late: after newer ones.
            let delay = random.below(600) + if random.below(50) == 0 { HOUR } else { 0 };
            events.push((time + delay, event(driver, time, time + delay, &mut random)));
            // One in a hundred is corrected two hours later: the same event time, a later `created`.
            if random.below(100) == 0 {
                let corrected = time + 2 * HOUR;
                events.push((corrected, event(driver, time, corrected, &mut random)));
            }
        }
    }
    let broken = ProducerRecord { key: "1003".into(), value: r#"{"driver_id": 1003, "conv_rate": 0.4"#.into() };
    events.push((START + 30 * HOUR, broken));
    events.sort_by_key(|(arrival, _)| *arrival);
    events.into_iter().map(|(_, event)| event).collect()
}

fn event(driver: i64, time: i64, created: i64, random: &mut Random) -> ProducerRecord {
    let (conv, acc, trips) = (random.below(10_000), random.below(10_000), random.below(1_000));
    let value = format!(
        r#"{{"driver_id": {driver}, "event_timestamp": "{}", "conv_rate": 0.{conv:04}, "acc_rate": 0.{acc:04}, "avg_daily_trips": {trips}, "created": "{}"}}"#,
        rfc3339(time),
        rfc3339(created)
    );
    ProducerRecord { key: driver.to_string().into(), value: value.into() }
}

/// A time in April 2021, in seconds, as text.
fn rfc3339(time: i64) -> String {
    let since = time - START;
    let (day, second) = (6 + since / (24 * HOUR), since % (24 * HOUR));
    format!("2021-04-{day:02}T{:02}:{:02}:{:02}Z", second / HOUR, second % HOUR / 60, second % 60)
}

/// Numbers that look random and are the same in every run.
struct Random(i64);

impl Random {
    fn below(&mut self, limit: i64) -> i64 {
        self.0 = (self.0 * 1_103_515_245 + 12_345) % 2_147_483_648;
        (self.0 >> 8) % limit
    }
}
