//! From a record that is sent to its value that is read online, at a fixed rate. From Kafka and with fan-out, also to the
//! record that a bare reader gets in the same run: what is above that is ours. From Kafka, also to the broker's word that
//! it is stored: nobody can read it much earlier.

use std::time::{Duration, Instant};

use headwater::FeatureStore;
use headwater::arrow::array::AsArray;
use headwater::arrow::datatypes::Int64Type;
use headwater::ingest::IngestOptions;
use headwater::store::{EntityColumns, Features};
use headwater_core::time::{Clock, SystemClock};
use headwater_testkit::Random;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

use crate::Options;
use crate::fill;
use crate::kinesis::Kinesis;
use crate::measure::{Arrivals, Stretch};
use crate::project::{Driver, kafka, newest, project};

/// Nothing is probed before: connections are made, caches fill.
const WARM_UP: Duration = Duration::from_secs(10);
/// One record of so many is looked for.
const EVERY: usize = 20;
/// How long a record may stay unseen after the last was sent.
const GRACE: Duration = Duration::from_secs(20);

/// Of the topic.
const PARTITIONS: u16 = 4;
/// Records that are put into Kinesis at once.
const PER_CALL: usize = 5;

/// A record that is looked for: its key, its number, when it was sent.
struct Probe {
    key: i64,
    number: i64,
    sent: Instant,
}

/// When the broker has said that records are stored.
struct Stored(Arrivals);

impl ClientContext for Stored {}

impl ProducerContext for Stored {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        self.0.note(delivery.as_ref().ok().and_then(Message::payload));
    }
}

/// What is known of the same records by others.
struct Beside {
    name: &'static str,
    arrivals: Arrivals,
    /// A record cannot be read before it has come there.
    precedes: bool,
}

/// What is sent, and how fast.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    per_second: usize,
    seconds: usize,
    keys: usize,
}

pub(crate) async fn run(options: &Options) {
    let rate = Rate {
        per_second: options.number("rate", 1_000),
        seconds: options.number("seconds", 40),
        keys: options.number("keys", 100_000),
    };
    let (probes, found) = channel(100_000);
    // The bare reader has its share of broker and machine; without it, our path alone is seen.
    let beside = options.number("bare", 1) > 0;
    match options.text("source") {
        "kafka" => {
            let topic = format!("latency-{}", std::process::id());
            fill::make(&topic, PARTITIONS.into()).await;
            let mut client = ClientConfig::new();
            client.set("bootstrap.servers", crate::servers());
            client.set("linger.ms", options.number("linger-ms", 0).to_string());
            let stored = Arrivals::default();
            // What the broker says is taken when it says so, and not between two records.
            let producer: ThreadedProducer<Stored> = client.create_with_context(Stored(stored.clone())).unwrap();
            let (_folder, store) = project(&newest(&kafka(&topic), true, true)).await;
            let topic_of_bare = topic.clone();
            let send = move |driver: &Driver| {
                let (key, value) = (driver.id.to_string(), driver.json());
                producer.send(BaseRecord::to(&topic).key(&key).payload(&value)).map_err(|(error, _)| error).unwrap();
                if driver.trips + 1 == rate.per_second * rate.seconds {
                    producer.flush(WARM_UP).unwrap();
                }
            };
            let bare = beside.then(|| subscribe(&topic_of_bare));
            let stored = Beside { name: "stored", arrivals: stored, precedes: true };
            let others = bare.map(Beside::bare).into_iter().chain([stored]).collect::<Vec<_>>();
            measure("kafka", rate, &store, found, &others, move || produce(rate, &probes, send)).await;
        }
        consumer @ ("polling" | "fan_out") => {
            let kinesis = Kinesis::start(options.number("shards", 4)).await;
            let (writer, handle) = (kinesis.writer(), tokio::runtime::Handle::current());
            let (_folder, store) = project(&newest(&kinesis.source(consumer), true, true)).await;
            let mut drivers = Vec::new();
            let send = move |driver: &Driver| {
                drivers.push(*driver);
                // A call takes about a millisecond: one for each record would not keep up.
                if drivers.len() == PER_CALL || driver.trips + 1 == rate.per_second * rate.seconds {
                    handle.block_on(writer.put(&drivers));
                    drivers.clear();
                }
            };
            let bare = if beside && consumer == "fan_out" { Some(kinesis.subscribe().await) } else { None };
            let others = bare.map(Beside::bare).into_iter().collect::<Vec<_>>();
            measure(consumer, rate, &store, found, &others, move || produce(rate, &probes, send)).await;
        }
        other => panic!("--source {other}"),
    }
}

impl Beside {
    fn bare(arrivals: Arrivals) -> Self {
        Self { name: "bare", arrivals, precedes: false }
    }

    /// Where it had the records that were looked for, in milliseconds: since they were sent, and from there to their value.
    fn print(&self, seen: &[Seen]) -> String {
        let there = seen.iter().filter_map(|seen| Some((seen, self.arrivals.of(seen.number)?)));
        let (mut before, mut behind) = (Vec::new(), Vec::new());
        for (seen, there) in there {
            before.push(there.duration_since(seen.sent));
            behind.push(seen.read.saturating_duration_since(there));
        }
        let line = |name: &str, mut times: Vec<Duration>| {
            times.sort_unstable();
            let [p50, p99] = [50, 99].map(|percent| millis(at(&times, percent)));
            format!("\"{name}_p50_ms\":{p50:.2},\"{name}_p99_ms\":{p99:.2},")
        };
        let name = self.name;
        let count = format!("\"{name}_probes\":{},", before.len());
        let behind = if self.precedes { line(&format!("from_{name}"), behind) } else { String::new() };
        count + &line(name, before) + &behind
    }
}

/// A record whose value was read.
struct Seen {
    number: i64,
    sent: Instant,
    read: Instant,
}

/// Of sorted times.
fn at(times: &[Duration], percent: usize) -> Duration {
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A bare consumer of a topic, of no group, from the topic's end on. It lasts until the arrivals are dropped.
fn subscribe(topic: &str) -> Arrivals {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", crate::servers()).set("group.id", "bare");
    let consumer: BaseConsumer = client.create().unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(topic, partition.into(), Offset::End).unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let arrivals = Arrivals::default();
    let told = arrivals.clone();
    std::thread::spawn(move || {
        while !told.are_forgotten() {
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                told.note(message.unwrap().payload());
            }
        }
    });
    arrivals
}

/// Sends records, each at its time, and tells of those that are looked for. Blocks its thread.
fn produce(rate: Rate, probes: &Sender<Probe>, mut send: impl FnMut(&Driver)) {
    let mut random = Random::new(7);
    let begin = Instant::now();
    let per_record = Duration::from_secs(1) / u32::try_from(rate.per_second).unwrap();
    for number in 0..rate.per_second * rate.seconds {
        let due = begin + per_record * u32::try_from(number).unwrap();
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let now = SystemClock.now();
        let id = random.below(rate.keys);
        let sent = Instant::now();
        send(&Driver { id, event: now, created: now, conv: 0.25, acc: 0.5, trips: number });
        if number.is_multiple_of(EVERY) && begin.elapsed() > WARM_UP {
            let (key, number) = (i64::try_from(id).unwrap(), i64::try_from(number).unwrap());
            probes.blocking_send(Probe { key, number, sent }).unwrap();
        }
    }
}

/// Runs a job and a producer, looks for the probes, and prints how long they took.
async fn measure(
    name: &str,
    rate: Rate,
    store: &FeatureStore,
    mut probes: Receiver<Probe>,
    others: &[Beside],
    produce: impl FnOnce() + Send + 'static,
) {
    let mut job = store.ingest("events", IngestOptions::default()).await.unwrap();
    // The job has its splits before anything is sent.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let producing = std::thread::spawn(produce);
    let (mut open, mut all, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    let stretch = Stretch::begin();
    let mut finished: Option<Instant> = None;
    loop {
        while let Ok(probe) = probes.try_recv() {
            open.push(probe);
        }
        let mut waiting = Vec::new();
        for probe in open {
            let begin = Instant::now();
            let seen = trips(store, probe.key).await.is_some_and(|seen| seen >= probe.number);
            reads.push(begin.elapsed());
            if seen {
                all.push(Seen { number: probe.number, sent: probe.sent, read: Instant::now() });
            } else {
                waiting.push(probe);
            }
        }
        open = waiting;
        if producing.is_finished() {
            let since = finished.get_or_insert_with(Instant::now);
            if (open.is_empty() && probes.is_empty()) || since.elapsed() > GRACE {
                break;
            }
        }
        // Looking out for nothing would take time from the job.
        if open.is_empty() {
            if let Ok(Some(probe)) = timeout(Duration::from_millis(10), probes.recv()).await {
                open.push(probe);
            }
        } else {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
    let cost = stretch.end();
    job.stop().await.unwrap();
    producing.join().unwrap();
    // What did not come at all would be missing among the slow ones.
    assert!(open.is_empty(), "{} of {} records were never seen", open.len(), open.len() + all.len());
    assert!(!all.is_empty(), "no record was looked for in the time after {WARM_UP:?}");
    let mut took = all.iter().map(|seen| seen.read.duration_since(seen.sent)).collect::<Vec<_>>();
    took.sort_unstable();
    reads.sort_unstable();
    let others = others.iter().map(|other| other.print(&all)).collect::<String>();
    println!(
        "{{\"what\":\"latency\",\"source\":\"{name}\",\"rate\":{},\"probes\":{},\"p50_ms\":{:.2},\"p90_ms\":{:.2},\"p99_ms\":{:.2},\"max_ms\":{:.1},{others}\"read_p50_us\":{:.0},\"read_p99_us\":{:.0},\"cpu_s_per_s\":{:.2}}}",
        rate.per_second,
        took.len(),
        millis(at(&took, 50)),
        millis(at(&took, 90)),
        millis(at(&took, 99)),
        millis(at(&took, 100)),
        millis(at(&reads, 50)) * 1e3,
        millis(at(&reads, 99)) * 1e3,
        cost.cpu / cost.wall
    );
}

/// The number of the newest record of a driver, as it is served.
async fn trips(store: &FeatureStore, driver: i64) -> Option<i64> {
    let drivers = EntityColumns::default().column("driver_id", [driver]);
    let answer = store.get_online_features(Features::names(["drivers:avg_daily_trips"]), drivers, false).await.unwrap();
    let rows = answer.to_record_batch().unwrap();
    let trips = rows.column_by_name("avg_daily_trips")?.as_primitive_opt::<Int64Type>()?;
    trips.iter().next().flatten()
}
