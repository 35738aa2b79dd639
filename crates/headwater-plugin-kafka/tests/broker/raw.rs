//! Records as bytes on the wire: what no client of ours would send, and another's may.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{Outcome, ensure};

/// A record. The time is in milliseconds; -1 is none.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawRecord<'a> {
    pub(crate) time: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// Appends a record to partition 0 of a topic, in a batch of its own.
pub(crate) async fn send(address: &str, topic: &str, record: &RawRecord<'_>) -> Outcome {
    let mut request = Vec::new();
    // The API `Produce` in its version 7, correlation, no name of a client, no transaction, acknowledged by all in 10 s.
    for number in [0_i16, 7] {
        request.extend(number.to_be_bytes());
    }
    request.extend(1_i32.to_be_bytes());
    for number in [-1_i16, -1, -1] {
        request.extend(number.to_be_bytes());
    }
    request.extend(10_000_i32.to_be_bytes());
    // One topic, one partition: the first.
    request.extend(1_i32.to_be_bytes());
    request.extend(i16::try_from(topic.len())?.to_be_bytes());
    request.extend(topic.as_bytes());
    for number in [1_i32, 0] {
        request.extend(number.to_be_bytes());
    }
    let batch = batch(record)?;
    request.extend(i32::try_from(batch.len())?.to_be_bytes());
    request.extend(batch);

    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&i32::try_from(request.len())?.to_be_bytes()).await?;
    stream.write_all(&request).await?;
    let length = stream.read_i32().await?;
    let mut answer = vec![0; usize::try_from(length)?];
    stream.read_exact(&mut answer).await?;
    // Correlation, count of topics, the topic, count of partitions, partition, error.
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    let error = answer.get(at..at + 2).ok_or("the answer ends too early")?;
    ensure!(error == [0, 0], "the record was refused with error {error:?}");
    Ok(())
}

/// A batch of one record, in format 2.
fn batch(record: &RawRecord<'_>) -> Outcome<Vec<u8>> {
    let mut body = vec![0];
    number(&mut body, 0);
    number(&mut body, 0);
    bytes(&mut body, record.key)?;
    bytes(&mut body, record.value)?;
    number(&mut body, i64::try_from(record.headers.len())?);
    for (name, value) in record.headers {
        bytes(&mut body, Some(name))?;
        bytes(&mut body, *value)?;
    }
    // From the attributes on, which the checksum covers: no codec, one record, its time twice, no producer.
    let mut checked = Vec::new();
    checked.extend(0_i16.to_be_bytes());
    checked.extend(0_i32.to_be_bytes());
    checked.extend(record.time.to_be_bytes());
    checked.extend(record.time.to_be_bytes());
    checked.extend((-1_i64).to_be_bytes());
    checked.extend((-1_i16).to_be_bytes());
    checked.extend((-1_i32).to_be_bytes());
    checked.extend(1_i32.to_be_bytes());
    number(&mut checked, i64::try_from(body.len())?);
    checked.extend(body);
    let mut batch = Vec::new();
    batch.extend(0_i64.to_be_bytes());
    // What follows: the leader's epoch, the format, the checksum, and what it covers.
    batch.extend(i32::try_from(4 + 1 + 4 + checked.len())?.to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend(crc32c(&checked).to_be_bytes());
    batch.extend(checked);
    Ok(batch)
}

/// Seven bits in a byte, the lowest first; the lowest of all is the sign.
fn number(out: &mut Vec<u8>, number: i64) {
    let mut left = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while left >= 0x80 {
        out.push(u8::try_from(left & 0x7f).unwrap_or_default() | 0x80);
        left >>= 7;
    }
    out.push(u8::try_from(left).unwrap_or_default());
}

fn bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) -> Outcome {
    match bytes {
        None => number(out, -1),
        Some(bytes) => {
            number(out, i64::try_from(bytes.len())?);
            out.extend(bytes);
        }
    }
    Ok(())
}

/// Castagnoli's checksum.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}
