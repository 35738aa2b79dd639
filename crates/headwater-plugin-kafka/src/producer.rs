//! The producer: fills a topic, for examples, tests and small programs.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use headwater_core::options::{Config, Options};
use headwater_core::plugin::OpenContext;
use headwater_core::stream::ProducerRecord;
use headwater_core::{Result, StreamProducer};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::sync::OnceCell;

use crate::client::{self, REQUEST_TIMEOUT};
use crate::config::KafkaConfig;
use crate::error::kafka;

/// How many records are on their way at once.
const IN_FLIGHT: usize = 10_000;

/// Sends records to the source's topic, and makes the topic where there is none.
pub struct KafkaProducer {
    config: Arc<KafkaConfig>,
    producer: OnceCell<FutureProducer>,
}

impl std::fmt::Debug for KafkaProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaProducer").field("topic", &self.config.topic).finish_non_exhaustive()
    }
}

impl KafkaProducer {
    /// Checks the options. Connects with the first record.
    ///
    /// # Errors
    /// `Invalid` for options that are wrong.
    pub fn open(config: &Config, _: &OpenContext) -> Result<Self> {
        Ok(Self { config: Arc::new(KafkaConfig::from_config(config)?), producer: OnceCell::new() })
    }

    async fn connect(&self) -> Result<&FutureProducer> {
        self.producer
            .get_or_try_init(|| async {
                let mut client = client::base(&self.config);
                client.remove("group.protocol");
                let admin: AdminClient<DefaultClientContext> =
                    client.create().map_err(|error| kafka(error, "make an admin client"))?;
                let topic = NewTopic::new(&self.config.topic, -1, TopicReplication::Fixed(-1));
                let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
                let made =
                    admin.create_topics([&topic], &options).await.map_err(|error| kafka(error, "make the topic"))?;
                for result in made {
                    match result {
                        Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                        Err((_, code)) => return Err(kafka(KafkaError::AdminOp(code), "make the topic")),
                    }
                }
                // In order and without loss, also when the client has to try again. One request at a time: a partition that
                // is so new that it refuses the first one takes the second, and then the first one for a repetition.
                client.set("enable.idempotence", "true").set("max.in.flight.requests.per.connection", "1");
                client.set("linger.ms", "5");
                client.create().map_err(|error| kafka(error, "make a producer"))
            })
            .await
    }
}

#[async_trait]
impl StreamProducer for KafkaProducer {
    async fn send(&self, records: Vec<ProducerRecord>) -> Result<()> {
        let producer = self.connect().await?;
        let mut waiting = VecDeque::new();
        for record in &records {
            let mut next = FutureRecord::to(&self.config.topic).key(record.key.as_ref()).payload(record.value.as_ref());
            loop {
                match producer.send_result(next) {
                    Ok(delivery) => {
                        waiting.push_back(delivery);
                        break;
                    }
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                        next = refused;
                        settle(&mut waiting, 0).await?;
                    }
                    Err((error, _)) => return Err(kafka(error, "send a record")),
                }
            }
            settle(&mut waiting, IN_FLIGHT).await?;
        }
        settle(&mut waiting, 0).await
    }
}

/// Waits until no more than `most` deliveries are open.
async fn settle(waiting: &mut VecDeque<rdkafka::producer::DeliveryFuture>, most: usize) -> Result<()> {
    while waiting.len() > most {
        let Some(delivery) = waiting.pop_front() else { break };
        match delivery.await {
            Ok(Ok(_)) => {}
            Ok(Err((error, _))) => return Err(kafka(error, "send a record")),
            Err(_) => return Err(kafka(KafkaError::Canceled, "send a record")),
        }
    }
    Ok(())
}
