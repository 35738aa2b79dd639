use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use aws_sdk_kinesis::primitives::{Blob, DateTime};
use headwater_core::stream::Payload;

use super::*;

const NOW: Micros = 1_700_000_000_000_000;
const DAY: Micros = 86_400_000_000;

fn record(sequence: u64, arrival: Micros, data: &[u8]) -> Record {
    let record = Record::builder().sequence_number(sequence.to_string()).partition_key("key");
    let arrived = DateTime::from_millis(arrival.div_euclid(1000));
    record.approximate_arrival_timestamp(arrived).data(Blob::new(data)).build().unwrap()
}

fn plain(sequences: &[u64]) -> Vec<Record> {
    sequences.iter().map(|sequence| record(*sequence, NOW, sequence.to_string().as_bytes())).collect()
}

fn at(sequence: u64, within: Within) -> Place {
    Place::Record(Sequence::parse(&sequence.to_string()).unwrap(), within)
}

fn cursor(place: Place, on_position_lost: OnPositionLost) -> Cursor {
    Cursor::new("shardId-000000000000", place, DAY, on_position_lost)
}

fn values(ready: &[Ready]) -> Vec<Vec<String>> {
    let texts = ready.iter().map(|ready| match &ready.batch.payload {
        Payload::Encoded(values) => {
            values.iter().map(|value| String::from_utf8_lossy(value.unwrap()).into_owned()).collect()
        }
        Payload::Rows(_) => panic!("rows"),
    });
    texts.collect()
}

/// The aggregates that another library made, with sixty records between them. Made by `tests/make_kpl.py`.
pub(crate) fn aggregates() -> Vec<Vec<u8>> {
    let lines = include_str!("../../tests/kpl.txt").lines().filter_map(|line| line.split_once(' '));
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    lines.map(|(_, hex)| hex.as_bytes().chunks(2).map(byte).collect()).collect()
}

#[test]
fn batches_are_bounded_and_know_how_far_they_go() {
    let mut cursor = cursor(Place::Start, OnPositionLost::Fail);
    let ready = cursor.take(&plain(&[1, 2, 3, 4, 5]), NOW, 2, 1 << 20).unwrap();
    assert_eq!(values(&ready), [vec!["1", "2"], vec!["3", "4"], vec!["5"]]);
    for ready in &ready {
        let last = ready.batch.positions.value(ready.batch.positions.len() - 1);
        assert_eq!(ready.batch.through.as_bytes(), last);
        let metadata = ready.batch.metadata.as_ref().unwrap();
        let numbers = metadata.column_by_name("__sequence_number").unwrap().as_string::<i32>();
        assert_eq!(
            numbers.iter().map(|number| number.unwrap().to_owned()).collect::<Vec<_>>(),
            values(std::slice::from_ref(ready))[0]
        );
    }
    let ready = cursor.take(&plain(&[6, 7]), NOW, 10, 1).unwrap();
    assert_eq!(values(&ready), [["6"], ["7"]], "one record may exceed the bytes alone");
}

#[test]
fn records_come_with_what_the_service_knows_of_them() {
    let mut records = vec![record(1, NOW, b"plain"), record(2, NOW + 1000, &aggregates()[0])];
    records[0].approximate_arrival_timestamp = None;
    let mut cursor = cursor(Place::Start, OnPositionLost::Fail);
    let ready = cursor.take(&records, NOW, 3, 1 << 20).unwrap();
    // The plain record and the first two of the aggregate.
    let metadata = ready[0].batch.metadata.as_ref().unwrap();
    let column = |name| metadata.column_by_name(name).unwrap();
    let times = column("__timestamp").as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.iter().collect::<Vec<_>>(), [None, Some(NOW + 1000), Some(NOW + 1000)]);
    assert_eq!(times.timezone(), Some("UTC"));
    let keys = column("__key").as_binary::<i32>();
    assert_eq!(keys.iter().flatten().collect::<Vec<_>>(), [&b"key"[..], b"key-0", b"key-1"]);
    let shards = column("__shard_id").as_string::<i32>();
    assert!(shards.iter().all(|shard| shard == Some("shardId-000000000000")));
    let numbers = column("__sequence_number").as_string::<i32>();
    assert_eq!(numbers.iter().flatten().collect::<Vec<_>>(), ["1", "2", "2"]);
    let places = column("__sub_sequence_number").as_primitive::<Int64Type>();
    assert_eq!(places.iter().collect::<Vec<_>>(), [None, Some(0), Some(1)]);
}

#[test]
fn reading_goes_on_behind_the_last_record() {
    let mut cursor = cursor(at(3, Within::Plain), OnPositionLost::Fail);
    assert_eq!(cursor.begin(), Begin::Sequence("3".into()));
    assert_eq!(values(&cursor.take(&plain(&[3]), NOW, 10, 1000).unwrap()), [""; 0].map(|_| vec![""]));
    assert_eq!(values(&cursor.take(&plain(&[2, 3, 4, 10]), NOW, 10, 1000).unwrap()), [["4", "10"]]);
    // The same answer again, as after a fault.
    assert!(cursor.take(&plain(&[4, 10]), NOW, 10, 1000).unwrap().is_empty());
}

#[test]
fn a_start_at_a_time_leaves_out_what_arrived_before() {
    let mut cursor = cursor(Place::since(NOW), OnPositionLost::Fail);
    assert_eq!(cursor.begin(), Begin::At(NOW));
    let records = [record(1, NOW - 1000, b"before"), record(2, NOW, b"then"), record(3, NOW + 1000, b"after")];
    assert_eq!(values(&cursor.take(&records, NOW, 10, 1000).unwrap()), [["then", "after"]]);
}

#[test]
fn a_lost_position_fails_or_goes_on_at_the_oldest() {
    let mut fails = cursor(at(3, Within::Plain), OnPositionLost::Fail);
    let error = fails.take(&plain(&[5, 6]), NOW, 10, 1000).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::PositionLost);
    assert!(!error.is_retryable());
    let mut fails = cursor(at(3, Within::Plain), OnPositionLost::Fail);
    assert_eq!(fails.at_end(NOW).unwrap_err().kind(), ErrorKind::PositionLost);

    let mut goes_on = cursor(at(3, Within::Plain), OnPositionLost::Earliest);
    let ready = goes_on.take(&plain(&[5, 6]), NOW, 1, 1000).unwrap();
    assert_eq!(values(&ready), [["5"], ["6"]]);
    assert_eq!(ready.iter().map(|ready| ready.batch.lost).collect::<Vec<_>>(), [true, false]);
    assert!(!goes_on.take(&plain(&[7]), NOW, 10, 1000).unwrap()[0].batch.lost);
    // Where nothing is left, what says so says it.
    let mut goes_on = cursor(at(3, Within::Plain), OnPositionLost::Earliest);
    goes_on.at_end(NOW).unwrap();
    assert_eq!([goes_on.has_lost(), goes_on.has_lost()], [true, false]);
    // A position that is refused begins at the oldest record, with what lies behind it.
    let mut goes_on = cursor(at(3, Within::Plain), OnPositionLost::Earliest);
    let refused = || Error::new(ErrorKind::PositionLost, "who is that?");
    assert!(goes_on.refused(refused()).is_retryable());
    assert_eq!(goes_on.begin(), Begin::Horizon);
    assert!(goes_on.take(&plain(&[5]), NOW, 10, 1000).unwrap()[0].batch.lost);
    assert_eq!(goes_on.begin(), Begin::Sequence("5".into()));
    assert!(!cursor(at(3, Within::Plain), OnPositionLost::Fail).refused(refused()).is_retryable());
}

#[test]
fn silence_loses_no_position() {
    let mut silent = cursor(at(3, Within::Plain), OnPositionLost::Fail);
    silent.take(&plain(&[3]), NOW, 10, 1000).unwrap();
    silent.at_end(NOW).unwrap();
    let noted = Place::of(&silent.position()).unwrap();
    // A day later the record is gone, and what came since is there.
    let mut later = cursor(noted.clone(), OnPositionLost::Fail);
    assert_eq!(values(&later.take(&plain(&[9]), NOW + DAY - 1, 10, 1000).unwrap()), [["9"]]);
    // After more than that, what came first may be gone too.
    let mut late = cursor(noted, OnPositionLost::Fail);
    assert!(late.take(&plain(&[9]), NOW + DAY + 1, 10, 1000).is_err());
}

#[test]
fn a_shard_of_which_nothing_was_read_is_lost_as_others_are() {
    // Where it begins, and where to when it is read again: nothing has come.
    for (place, begin) in [(Place::Start, Begin::Horizon), (Place::since(NOW - DAY), Begin::At(NOW - DAY))] {
        let mut silent = cursor(place.clone(), OnPositionLost::Fail);
        silent.begin();
        silent.at_end(NOW).unwrap();
        assert!(silent.position() > place.position(), "the engine takes what is new alone");
        let noted = Place::of(&silent.position()).unwrap();
        let again = |later| {
            let mut again = cursor(noted.clone(), OnPositionLost::Fail);
            assert_eq!(again.begin(), begin);
            let came = [record(9, NOW + later, b"came")];
            (
                again.at_end(NOW + later).is_ok(),
                cursor(noted.clone(), OnPositionLost::Fail).take(&came, NOW + later, 9, 99),
            )
        };
        let (is_there, came) = again(DAY - 1);
        assert!(is_there);
        assert_eq!(values(&came.unwrap()), [["came"]]);
        // What came first may be gone.
        let (is_there, came) = again(DAY + 1);
        assert!(!is_there);
        assert_eq!(came.err().map(|error| error.kind()), Some(ErrorKind::PositionLost));

        let mut goes_on = cursor(noted.clone(), OnPositionLost::Earliest);
        let ready = goes_on.take(&[record(9, NOW + DAY, b"came")], NOW + DAY + 1, 9, 99).unwrap();
        assert!(ready[0].batch.lost);
        let mut goes_on = cursor(noted, OnPositionLost::Earliest);
        goes_on.at_end(NOW + DAY + 1).unwrap();
        assert!(goes_on.has_lost());
    }
    // It was never there before: what there is, is all that was asked for.
    for place in [Place::Start, Place::since(NOW - DAY)] {
        let mut first = cursor(place, OnPositionLost::Fail);
        assert_eq!(values(&first.take(&plain(&[9]), NOW + DAY + 1, 9, 99).unwrap()), [["9"]]);
    }
}

#[test]
fn aggregates_are_taken_apart_and_resumed_inside() {
    let aggregates = aggregates();
    assert!(aggregates.len() > 1);
    let records = (1..).zip(&aggregates).map(|(sequence, data)| record(sequence, NOW, data)).collect::<Vec<_>>();
    let all = (0..60).map(|number| format!(r#"{{"number":{number}}}"#)).collect::<Vec<_>>();
    let mut whole = cursor(Place::Start, OnPositionLost::Fail);
    let ready = whole.take(&records, NOW, 1, 1 << 20).unwrap();
    assert_eq!(values(&ready).concat(), all);
    let keys = ready.iter().map(|ready| {
        let keys = ready.batch.metadata.as_ref().unwrap().column_by_name("__key").unwrap().as_binary::<i32>();
        String::from_utf8_lossy(keys.value(0)).into_owned()
    });
    assert_eq!(keys.collect::<Vec<_>>(), (0..60).map(|number| format!("key-{}", number % 7)).collect::<Vec<_>>());
    // From behind every record, by its own position.
    for (done, ready) in ready.iter().enumerate() {
        let place = Place::of(&Position::new(ready.batch.positions.value(0).to_vec())).unwrap();
        let mut resumed = cursor(place, OnPositionLost::Fail);
        let Begin::Sequence(begin) = resumed.begin() else { panic!("no sequence number") };
        let left = records.iter().filter(|record| record.sequence_number() >= begin.as_str());
        let left = resumed.take(&left.cloned().collect::<Vec<_>>(), NOW, 100, 1 << 20).unwrap();
        assert_eq!(values(&left).concat(), all[done + 1..], "behind record {done}");
    }
}
