//! Random streams, delivered in random ways.
//!
//! A case is a history of its own: splits that are closed and followed by others, batch rows, workers that die or stop
//! at any moment, aggregations that change, epochs that are built meanwhile and whose builders die too, stores and
//! streams that fail for a while, and a store that forgets rows when their time has come. Whatever happened, online and
//! offline then say what the events themselves say. Each case has every function, over two windows each.
//!
//! Time stands still while somebody works, and jumps where all wait, so that a case takes no longer than its work.
//! `PROPTEST_CASES` says of how many cases the training set is compared, for each function; the test command's slow lane
//! compares 2,000. Cases without events or without a log are tried beside them. `HEADWATER_SEED` brings one back. Where
//! cases are enough, all that is to be met in them has to have been.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Float64Type;
use headwater_core::Error;
use headwater_core::transform::{Fingerprint, PlannedTransform, Transformed};
use headwater_testkit::{Random, seeds};

use super::super::faults::Flaky;
use super::expiry::Forgetful;
use super::*;
use crate::ingest::{JobHandle, JobState};

/// The names of splits, in the order in which they come.
const SPLITS: [&str; 16] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];

const WORDS: [&str; 4] = ["", "tea", "rum", "ßé"];

/// Two rows where a value is 2, none where it is 0.
#[derive(Debug)]
pub(super) struct Uneven {
    /// A value that it cannot do with.
    pub(super) fails: Option<f64>,
}

impl Uneven {
    fn times(value: Option<f64>) -> usize {
        match value {
            Some(2.0) => 2,
            Some(0.0) => 0,
            _ => 1,
        }
    }
}

impl PlannedTransform for Uneven {
    fn output(&self) -> SchemaRef {
        columns()
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::default()
    }

    fn apply(&self, batch: &RecordBatch) -> Result<Transformed> {
        let values = batch.column_by_name("value").unwrap().as_primitive::<Float64Type>();
        if let Some(value) = self.fails.filter(|fails| values.iter().any(|value| value == Some(*fails))) {
            return Err(Error::data(format!("`{value}` brings bad luck")));
        }
        let inputs = (0_u32..).zip(values).flat_map(|(row, value)| std::iter::repeat_n(row, Self::times(value)));
        let inputs = inputs.collect::<UInt32Array>();
        Ok(Transformed { rows: take_record_batch(batch, &inputs)?, inputs: Some(inputs) })
    }
}

/// Splits that are closed before an event, and those that follow them.
#[derive(Debug)]
struct Reshard {
    before: usize,
    closed: Vec<&'static str>,
    children: Vec<&'static str>,
}

/// What is random about a case's events.
#[derive(Debug)]
struct Stream {
    /// What all times begin at: some lie before 1970.
    base: Micros,
    /// Values that are no plain numbers.
    odd: bool,
    batch: Vec<Event>,
    events: Vec<Event>,
    reshards: Vec<Reshard>,
}

impl Stream {
    fn new(random: &mut Random) -> Self {
        let mut stream = Self {
            base: if random.once_in(4) { -100 * SECOND } else { 0 },
            odd: random.once_in(2),
            batch: Vec::new(),
            events: Vec::new(),
            reshards: Vec::new(),
        };
        if !random.once_in(4) {
            stream.batch = stream.rows(random, 60, 100);
        }
        stream.events = stream.rows(random, 160, 200);
        if random.once_in(2) {
            stream.events.sort_by_key(|event| event.ts);
        }
        stream.deal(random);
        stream
    }

    fn rows(&self, random: &mut Random, most: usize, before: usize) -> Vec<Event> {
        let (count, ids) = (random.below(most), 1 + random.below(7));
        let scale = if random.once_in(2) { 1.0 } else { 0.37 };
        (0..count)
            .map(|_| Event {
                split: None,
                id: random.below(ids) as i64,
                // Ties are likely.
                ts: self.base + random.below(before) as i64 * SECOND + [0, 0, 1, 999_999][random.below(4)],
                created: (!random.once_in(3)).then(|| self.base + random.below(300) as i64 * SECOND),
                value: self.value(random, scale),
                number: self.number(random),
                word: (!random.once_in(8)).then(|| WORDS[random.below(WORDS.len())]),
            })
            .collect()
    }

    fn value(&self, random: &mut Random, scale: f64) -> Option<f64> {
        if random.once_in(8) {
            return None;
        }
        if self.odd && random.once_in(16) {
            return Some([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e100, 1e-300][random.below(6)]);
        }
        Some((random.below(41) as f64 - 20.0) * scale)
    }

    fn number(&self, random: &mut Random) -> Option<i64> {
        if random.once_in(8) {
            return None;
        }
        if self.odd && random.once_in(6) {
            // Sums of these go beyond the type, and come back.
            return Some([i64::MAX, i64::MAX - 1, i64::MIN, -i64::MAX][random.below(4)]);
        }
        Some(random.below(9) as i64 - 4)
    }

    /// Deals the events out to splits, which are divided and joined on the way.
    fn deal(&mut self, random: &mut Random) {
        let mut names = SPLITS.into_iter();
        let mut open = names.by_ref().take(1 + random.below(3)).collect::<Vec<_>>();
        let once_in = [0, 20, 60][random.below(3)];
        for (index, event) in self.events.iter_mut().enumerate() {
            if once_in > 0 && random.once_in(once_in) {
                let (from, to) = if open.len() > 1 && random.once_in(2) { (2, 1) } else { (1, 2) };
                let children = names.by_ref().take(to).collect::<Vec<_>>();
                if !children.is_empty() {
                    let closed = (0..from).map(|_| open.swap_remove(random.below(open.len()))).collect();
                    open.extend(&children);
                    self.reshards.push(Reshard { before: index, closed, children });
                }
            }
            event.split = Some(open[random.below(open.len())]);
        }
    }

    /// Puts events into a stream.
    fn fill(&self, world: &World, range: std::ops::Range<usize>) {
        for index in range {
            for reshard in self.reshards.iter().filter(|reshard| reshard.before == index) {
                world.stream.reshard(&reshard.closed, &reshard.children);
            }
            let event = &self.events[index];
            world.stream.add(event.split.unwrap(), event.record());
        }
    }
}

/// What stays the same of a case's views.
#[derive(Debug, Clone, Copy)]
struct Kind {
    offline: bool,
    unnests: bool,
    /// Windows without a lifetime, and a store that forgets.
    forgets: bool,
}

impl Kind {
    /// A view with random aggregations.
    fn view(self, random: &mut Random) -> View {
        let (variant, mix) = (if self.forgets { 2 } else { random.below(3) }, random.below(3));
        // Each function over two of the three windows, of another column each time.
        let column = |function, window| ((function + window + mix) % 3 > 0).then_some(function + window + 2 * mix);
        let mut view = windowed_over(variant, column, &format!("w{variant}{mix}"));
        view.offline = self.offline;
        if self.unnests { transformed_by(view, Arc::new(Uneven { fails: None })) } else { view }
    }
}

/// How often cases have met what they are there for.
#[derive(Debug, Default)]
struct Met {
    /// Cases with events, of each function, whose training set was compared.
    joined: [AtomicUsize; FUNCTIONS.len()],
    /// Epochs that took over beside the job that ran meanwhile.
    taken_over: AtomicUsize,
    /// Builds that were killed, or gave way to others.
    given_up: AtomicUsize,
    /// Splits that were closed and followed by others.
    reshards: AtomicUsize,
    /// Jobs that were killed before all that was there was saved.
    killed: AtomicUsize,
}

impl Met {
    /// Of how many cases with events the training set was compared, for whichever function there were fewest.
    fn joined(&self) -> usize {
        self.joined.iter().map(|joined| joined.load(Ordering::Relaxed)).min().unwrap_or(0)
    }

    /// Some of each, if so many cases were tried that it cannot be chance.
    fn assert_all(&self, cases: usize) {
        println!("{cases} cases: {self:?}");
        let Self { joined: _, taken_over, given_up, reshards, killed } = self;
        for (what, met) in [
            ("an epoch that took over", taken_over),
            ("a build that was given up", given_up),
            ("a reshard", reshards),
            ("a job that was killed amid its work", killed),
        ] {
            assert!(cases < 40 || met.load(Ordering::Relaxed) > 0, "{cases} cases have not met {what}");
        }
    }
}

/// Lets others work for a while.
async fn yield_up_to(random: &mut Random, most: usize) {
    for _ in 0..random.below(most) {
        tokio::task::yield_now().await;
    }
}

async fn any_delivery(seed: u64, met: &Met) {
    let mut random = Random::new(seed);
    let stream = Stream::new(&mut random);
    met.reshards.fetch_add(stream.reshards.len(), Ordering::Relaxed);
    let kind = Kind { offline: !random.once_in(4), unnests: random.once_in(3), forgets: random.once_in(4) };
    let view = kind.view(&mut random);
    let mut world = world(&format!("any {seed}"), view, &stream.batch);
    if kind.forgets {
        world.online = Forgetful::of(&world);
        // Near the events, so that some rows have gone by and others have not.
        world.clock.set(stream.base + random.below(150) as i64 * SECOND);
    }
    let plain = world.clone();
    if random.once_in(3) {
        (world.online, world.offline) = Flaky::stores(&world, seed, 7);
    }
    let tuning = &mut world.options.tuning;
    tuning.batch_records = 1 + random.below(40);
    tuning.log_piece_bytes = 1 + random.below(4_000);
    tuning.window_cache_bytes = [0, 5_000, 64 << 20][random.below(3)];
    tuning.sync_interval = Duration::from_millis(1 + random.below(100) as u64);
    tuning.log_interval = Duration::from_millis(5 + random.below(100) as u64);
    {
        let mut script = world.stream.script.lock().unwrap();
        script.redeliver_once_in = [0, 2, 3, 5][random.below(4)];
        script.fail_once_in = [0, 2, 3, 5][random.below(4)];
        script.rest_once_in = [0, 2, 6][random.below(3)];
    }
    let restarts = random.below(6);
    // The rest comes while a job runs.
    let (first, rest) = if random.once_in(2) { (0, 0) } else { (random.below(160), random.below(restarts.max(1))) };
    let first = stream.events.len().saturating_sub(first);
    stream.fill(&world, 0..first);
    for restart in 0..restarts {
        {
            let mut script = world.stream.script.lock().unwrap();
            script.seed = seed * 100 + restart as u64;
            script.stall_after = Some(random.below(12));
        }
        if random.once_in(4) {
            world.views = vec![kind.view(&mut random).into()];
        }
        live(&world, &plain, &stream, kind, &mut random, restart == rest, met).await;
        // Whoever looks for running jobs finds a killed one lost by now.
        world.clock.advance(31 * SECOND);
    }
    if restarts == 0 {
        stream.fill(&world, first..stream.events.len());
    }
    world.stream.script.lock().unwrap().stall_after = None;
    world.run().await;

    let plain = World { views: world.views.clone(), ..plain };
    let serving = epochs(&plain).await.serving.unwrap().0;
    assert_eq!(serving.fingerprint, world.views[0].windows.as_ref().unwrap().fingerprint);
    let mut events = stream.events.clone();
    if kind.unnests {
        events = events.into_iter().flat_map(|event| vec![event.clone(); Uneven::times(event.value)]).collect();
    }
    let (mut nows, past) = instants(&stream, &world.views[0], &mut random);
    if kind.forgets {
        // What was forgotten by now is missing for earlier times.
        nows = nows.map(|now| now.max(world.clock.now()));
        nows.sort_unstable();
    }
    let joined = compare_at(&plain, (&stream.batch, &events), &nows, &past, "in the end").await;
    if joined && !events.is_empty() {
        let features = &world.views[0].windows.as_ref().unwrap().features;
        for (function, joined) in FUNCTIONS.iter().zip(&met.joined) {
            let has_it = features.iter().any(|feature| feature.function == *function && feature.column.is_some());
            joined.fetch_add(usize::from(has_it), Ordering::Relaxed);
        }
    }
}

/// One life of a job, or of two, and of a build beside it. `rest` brings the rest of the stream meanwhile.
async fn live(world: &World, plain: &World, stream: &Stream, kind: Kind, random: &mut Random, rest: bool, met: &Met) {
    let mut job = world.start().await;
    // Two that read the same splits: of all that they write one loses.
    let other = if random.once_in(5) { Some(world.start().await) } else { None };
    if rest {
        stream.fill(world, there(world)..stream.events.len());
    }
    // The end may not lie before the first event that is logged.
    let logged = stream.events.iter().filter(|event| !kind.unnests || Uneven::times(event.value) > 0);
    let first = logged.map(|event| event.ts).min().unwrap_or(0);
    let builds = kind.offline && random.once_in(2);
    let materializing = builds.then(|| {
        let plain = World { views: world.views.clone(), ..plain.clone() };
        let (start, end) = (stream.base - SECOND, first + random.below(250) as i64 * SECOND);
        tokio::spawn(async move { materialize(&plain, start, end).await })
    });
    tokio::select! {
        () = world.stream.stalled.notified() => {}
        done = job.wait() => done.unwrap(),
    }
    if let Some(task) = materializing {
        if random.once_in(3) {
            // Killed in the midst of its work, or of waiting for the job.
            yield_up_to(random, 300).await;
            met.given_up.fetch_add(usize::from(!task.is_finished()), Ordering::Relaxed);
            task.abort();
            drop(task.await);
        } else {
            match task.await.unwrap() {
                Ok(done) => {
                    let serves = log_from(plain).await == Some(done.end);
                    let beside = job.status().state == JobState::Running;
                    met.taken_over.fetch_add(usize::from(serves && beside), Ordering::Relaxed);
                }
                // The log begins with a later event as long as the first is not published.
                Err(error) if error.to_string().contains("its log begins with an event of") => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                    met.given_up.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
    drop(other);
    match random.below(3) {
        0 => job.stop().await.unwrap(),
        1 => {
            yield_up_to(random, 200).await;
            kill(world, job, met);
        }
        _ => kill(world, job, met),
    }
}

fn kill(world: &World, job: JobHandle, met: &Met) {
    let status = job.status();
    let saved = status.splits.iter().filter_map(|split| split.offset).sum::<u64>();
    let amid_work = status.state == JobState::Running && saved < there(world) as u64;
    met.killed.fetch_add(usize::from(amid_work), Ordering::Relaxed);
    drop(job);
}

/// How many records the stream has.
fn there(world: &World) -> usize {
    world.stream.splits.lock().unwrap().values().map(Vec::len).sum()
}

/// When to read online, and when offline beside that: among others where the old end of a window meets an event.
fn instants(stream: &Stream, view: &View, random: &mut Random) -> ([Micros; 3], [Micros; 3]) {
    let all = stream.batch.iter().chain(&stream.events).map(|event| event.ts).collect::<Vec<_>>();
    let newest = all.iter().max().copied().unwrap_or(0);
    let windows = &view.windows.as_ref().unwrap().features;
    let mut at_an_end = || {
        let event = if all.is_empty() { 0 } else { all[random.below(all.len())] };
        let windows = windows.iter().filter_map(|feature| feature.window).collect::<Vec<_>>();
        let window = windows[random.below(windows.len())];
        event + window.length + [-1, 0, 1, window.hop - 1, window.hop][random.below(5)]
    };
    let past = [at_an_end(), at_an_end(), newest];
    let later = at_an_end().max(newest);
    // A clock that lies behind is answered for each entity's newest event.
    ([newest - 10 * SECOND, later, newest + random.below(100) as i64 * SECOND], past)
}

/// Says which case has failed.
struct Case(u64);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} has failed", self.0);
        }
    }
}

/// How many cases are asked for, of each function.
fn asked() -> Option<u64> {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok())
}

#[test]
fn any_delivery_gives_the_windows_of_the_events_themselves() {
    let wanted = asked().unwrap_or(40);
    // Three in four have a log, of which a training set is made.
    let (seeds, next, began) = (seeds(2 * wanted), AtomicUsize::new(0), Instant::now());
    let (met, wanted) = (Met::default(), usize::try_from(wanted).unwrap());
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(seeds.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while met.joined() < wanted
                    && let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let _case = Case(*seed);
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
                    runtime.unwrap().block_on(any_delivery(*seed, &met));
                }
            });
        }
    });
    let tried = next.into_inner().min(seeds.len());
    println!("{tried} cases in {:?}, {} of them compared with a training set", began.elapsed(), met.joined());
    met.assert_all(tried);
    assert!(met.joined() >= wanted || seeds.len() == 1, "of {tried} cases {} had a training set", met.joined());
}

/// On threads that run at once, and with clocks that do not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_delivery_on_many_threads_does_too() {
    // Fewer of them, as these take as long as their waits.
    let (seeds, met) = (seeds(asked().map_or(4, |cases| cases / 20)), Met::default());
    for seed in &seeds {
        let _case = Case(*seed);
        any_delivery(*seed, &met).await;
    }
    met.assert_all(seeds.len());
}
