//! The server: feeds of lines that can be read again from any line on.
//!
//! A client connects and sends one line. Names have no blanks; `TIME` counts microseconds since the epoch.
//!
//! | request | answer |
//! | --- | --- |
//! | `add FEED CHANNEL TIME TEXT` | the number of the line in its channel, counted from 1 |
//! | `channels FEED` | `CHANNEL=NEWEST` for each channel, separated by blanks |
//! | `find FEED CHANNEL TIME` | how many lines stand before the first that was stored at this time or later |
//! | `read FEED CHANNEL=AFTER …` | `CHANNEL NUMBER NEWEST TIME TEXT` for each line behind `AFTER`, and for each that is added later; `lost CHANNEL NEWEST` where a channel has fewer lines |

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// By name of the channel, lines with the times at which they were stored.
type Channels = BTreeMap<String, Vec<(i64, String)>>;

/// Feeds by name, in memory. Clones share them.
#[derive(Debug, Clone)]
pub struct Feeds {
    feeds: Arc<Mutex<BTreeMap<String, Channels>>>,
    changed: watch::Sender<()>,
}

impl Default for Feeds {
    fn default() -> Self {
        Self { feeds: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Feeds {
    /// Adds a channel without lines, if it is not there.
    pub fn open(&self, feed: &str, channel: &str) {
        self.lock().entry(feed.to_owned()).or_default().entry(channel.to_owned()).or_default();
    }

    /// Appends a line; gives its number.
    pub fn add(&self, feed: &str, channel: &str, time: i64, text: &str) -> usize {
        let number = {
            let mut feeds = self.lock();
            let lines = feeds.entry(feed.to_owned()).or_default().entry(channel.to_owned()).or_default();
            lines.push((time, text.to_owned()));
            lines.len()
        };
        self.changed.send_replace(());
        number
    }

    /// Serves whoever connects, until the future is dropped.
    ///
    /// # Errors
    /// Those of the listener.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        let mut clients = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await?;
            let feeds = self.clone();
            // A client that goes away is no matter.
            clients.spawn(async move { feeds.answer(client).await });
            while clients.try_join_next().is_some() {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Channels>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `look` makes of the channels of a feed.
    fn look<T>(&self, feed: &str, look: impl FnOnce(&Channels) -> T) -> T {
        look(self.lock().get(feed).unwrap_or(&Channels::new()))
    }

    async fn answer(&self, client: TcpStream) -> io::Result<()> {
        let mut client = BufReader::new(client);
        let mut request = String::new();
        client.read_line(&mut request).await?;
        let mut words = request.trim_end().splitn(5, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (what, feed) = (word(), word());
        let answer = match what {
            "add" => self.add(feed, word(), word().parse().unwrap_or_default(), word()).to_string(),
            "channels" => self.look(feed, |channels| {
                let channels = channels.iter().map(|(name, lines)| format!("{name}={}", lines.len()));
                channels.collect::<Vec<_>>().join(" ")
            }),
            "find" => {
                let (channel, time) = (word(), word().parse().unwrap_or(i64::MIN));
                let before = |(stored, _): &&(i64, String)| *stored < time;
                let count = |lines: &Vec<_>| lines.iter().take_while(before).count();
                self.look(feed, |channels| channels.get(channel).map_or(0, count)).to_string()
            }
            "read" => {
                let asked = request.split_whitespace().skip(2).filter_map(|word| word.split_once('='));
                let asked = asked.map(|(name, after)| (name.to_owned(), after.parse().unwrap_or_default()));
                return self.send(feed, asked.collect(), client.get_mut()).await;
            }
            _ => "there is `add`, `channels`, `find` and `read`".to_owned(),
        };
        client.get_mut().write_all(format!("{answer}\n").as_bytes()).await
    }

    /// Sends the lines of channels behind the numbers in `sent`, for as long as the client stays.
    async fn send(&self, feed: &str, mut sent: BTreeMap<String, usize>, client: &mut TcpStream) -> io::Result<()> {
        let mut changed = self.changed.subscribe();
        loop {
            let mut text = String::new();
            self.look(feed, |channels| {
                for (name, sent) in &mut sent {
                    let lines = channels.get(name).map(Vec::as_slice).unwrap_or_default();
                    let newest = lines.len();
                    if *sent > newest {
                        text += &format!("lost {name} {newest}\n");
                    }
                    for (time, line) in lines.iter().skip(*sent).take(1_000) {
                        *sent += 1;
                        text += &format!("{name} {sent} {newest} {time} {line}\n");
                    }
                }
            });
            if text.is_empty() {
                if changed.changed().await.is_err() {
                    return Ok(());
                }
            } else {
                client.write_all(text.as_bytes()).await?;
                if text.starts_with("lost ") {
                    return Ok(());
                }
            }
        }
    }
}
