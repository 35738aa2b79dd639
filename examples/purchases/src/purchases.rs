//! The purchases of two weeks, made up: always the same.

/// 2026-03-02T00:00:00Z, in seconds.
const START: i64 = 1_772_409_600;
const DAY: i64 = 86_400;
/// When the last of them has been made.
pub(crate) const END: i64 = START + 14 * DAY;
/// Those who buy. The fourth does not, the fifth no more.
pub(crate) const USERS: [i64; 3] = [1, 2, 3];
const CATEGORIES: [&str; 6] = ["books", "flowers", "food", "garden", "music", "toys"];

/// A purchase.
#[derive(Debug, Clone)]
pub(crate) struct Purchase {
    /// Who bought.
    pub(crate) user: i64,
    /// When, in seconds.
    pub(crate) time: i64,
    /// What kind of thing.
    pub(crate) category: &'static str,
    /// For how much, in cents.
    pub(crate) cents: i64,
}

/// The purchases in the order in which they reach the stream: a few of them hours late.
pub(crate) fn purchases() -> Vec<Purchase> {
    let mut random = Random(20_260_302);
    let mut arrivals: Vec<(i64, Purchase)> = Vec::new();
    for user in USERS {
        let mut time = START;
        loop {
            time += 600 + random.below(DAY);
            if time >= END {
                break;
            }
            let delay = random.below(30) + if random.below(5) == 0 { 6 * 3_600 } else { 0 };
            // Everybody has a taste: two categories in three purchases.
            let category = if random.below(3) > 0 { user + random.below(2) } else { random.below(6) };
            let category = usize::try_from(category).ok().and_then(|at| CATEGORIES.get(at)).copied().unwrap_or("food");
            arrivals.push((time + delay, Purchase { user, time, category, cents: 25 * (4 + random.below(396)) }));
        }
    }
    arrivals.sort_by_key(|(arrival, _)| *arrival);
    arrivals.into_iter().map(|(_, purchase)| purchase).collect()
}

/// A time in March 2026, in seconds, as text.
pub(crate) fn rfc3339(time: i64) -> String {
    let since = time - START;
    let (day, second) = (2 + since / DAY, since % DAY);
    format!("2026-03-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second % 3_600 / 60, second % 60)
}

/// Numbers that look random and are the same in every run.
struct Random(i64);

impl Random {
    fn below(&mut self, limit: i64) -> i64 {
        self.0 = (self.0 * 1_103_515_245 + 12_345) % 2_147_483_648;
        (self.0 >> 8) % limit
    }
}
