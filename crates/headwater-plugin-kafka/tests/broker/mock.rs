//! What librdkafka's mock cluster can show, on any machine: brokers that are away, and records of other people's clients.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use serde_json::json;

use crate::records;
use crate::world::{Broker, Outcome, Setup, ensure, values};

type Cluster = MockCluster<'static, DefaultProducerContext>;
type Task = Box<dyn FnOnce(&Cluster) + Send>;

/// A cluster of one broker, on a thread of its own: it cannot be shared between threads.
struct Mock {
    tasks: SyncSender<Task>,
    broker: Arc<Broker>,
}

impl Mock {
    fn start() -> Outcome<Self> {
        let (tasks, taken) = sync_channel::<Task>(1);
        let (tell, told) = sync_channel(1);
        std::thread::spawn(move || match MockCluster::new(1) {
            Ok(cluster) => {
                let _ = tell.send(Ok(cluster.bootstrap_servers()));
                taken.iter().for_each(|task| task(&cluster));
            }
            Err(error) => drop(tell.send(Err(error))),
        });
        Ok(Self { tasks, broker: Arc::new(Broker::new(told.recv()??)) })
    }

    /// Runs something on the cluster's thread.
    fn with<T: Send + 'static>(&self, task: impl FnOnce(&Cluster) -> T + Send + 'static) -> Outcome<T> {
        let (tell, told) = sync_channel(1);
        let task: Task = Box::new(move |cluster| drop(tell.send(task(cluster))));
        self.tasks.send(task).map_err(|_| "the cluster has gone")?;
        Ok(told.recv()?)
    }

    /// A topic of so many partitions.
    fn topic(&self, partitions: i32) -> Outcome<String> {
        let topic = self.broker.name();
        let name = topic.clone();
        self.with(move |cluster| cluster.create_topic(&name, partitions, 1))??;
        Ok(topic)
    }
}

pub(crate) async fn whoever_finds_no_broker_says_why() -> Outcome {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let broker = Broker::new(format!("127.0.0.1:{port}"));
    let begin = Instant::now();
    let error = broker.source("topic", json!({}))?.discover().await.err().ok_or("somebody has answered")?;
    ensure!(error.is_retryable(), "{error:?}");
    let says = error.to_string();
    ensure!(says.contains(&format!("127.0.0.1:{port}")) && says.contains("Connection refused"), "{says}");
    ensure!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    Ok(())
}

pub(crate) async fn a_broker_that_goes_away_is_named_and_read_on() -> Outcome {
    let mock = Mock::start()?;
    let topic = mock.topic(1)?;
    mock.broker.produce(&topic, 0, &values("before", 0..5)).await?;
    let mut reader = mock.broker.reader(&topic, json!({}), &Setup::fresh()).await?;
    reader.until(|reader| reader.records.len() == 5).await?;
    mock.with(|cluster| cluster.broker_down(1))??;
    let error = reader.fault().await?;
    ensure!(error.is_retryable() && error.to_string().contains(&mock.broker.servers), "{error}");
    mock.with(|cluster| cluster.broker_up(1))??;
    // Nothing is added, and yet it says that all is well.
    reader.next().await?;
    mock.broker.produce(&topic, 0, &values("after", 0..5)).await?;
    reader.until(|reader| reader.records.len() == 10).await?;
    reader.close().await
}

pub(crate) async fn a_reader_that_is_not_asked_holds_no_more_than_its_buffer() -> Outcome {
    const RECORD: usize = 10_000;
    let mock = Mock::start()?;
    let topic = mock.topic(5)?;
    // 20 MB.
    for partition in 0..5 {
        mock.broker.produce(&topic, partition, &values(&"x".repeat(RECORD), 0..400)).await?;
    }
    let setup = Setup { buffer_bytes: 1 << 20, ..Setup::fresh() };
    let mut reader = mock.broker.reader(&topic, json!({}), &setup).await?;
    reader.until(|reader| !reader.records.is_empty()).await?;
    // Far longer than it takes to fetch all of it. There is no event to wait for.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let held = reader.ready().await?;
    // The other half is librdkafka's. The last record may lie across the border, and batches take a little themselves.
    ensure!(held <= setup.buffer_bytes / 2 + 3 * RECORD, "{held} bytes of a buffer of {}", setup.buffer_bytes);
    ensure!(held >= setup.buffer_bytes / 4, "{held} bytes: nothing is read ahead");
    reader.until(|reader| reader.records.len() == 2_000).await?;
    reader.close().await
}

pub(crate) async fn records_of_any_client_come_through() -> Outcome {
    let mock = Mock::start()?;
    records::of_any_client(&mock.broker, &mock.topic(1)?).await
}
