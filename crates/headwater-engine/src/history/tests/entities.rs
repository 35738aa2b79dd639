//! What entity rows may look like.

use super::*;

#[tokio::test]
async fn event_times_may_be_written_in_many_ways() {
    // 2021-04-12T00:00:00Z
    let midnight = 1_618_185_600_000_000;
    let source = || input(table(&[("f", &[(1, midnight, None, Some(7))])]), InputKind::Batch);
    let on: [ArrayRef; 7] = [
        Arc::new(Date32Array::from(vec![18_729, 18_728])),
        Arc::new(StringArray::from(vec!["2021-04-12T02:00:00+02:00", "2021-04-11T23:59:59.999999Z"])),
        Arc::new(LargeStringArray::from(vec!["2021-04-12", "2021-04-11"])),
        Arc::new(TimestampNanosecondArray::from(vec![midnight * 1000, (midnight - 1) * 1000])),
        Arc::new(TimestampSecondArray::from(vec![midnight / 1_000_000, midnight / 1_000_000 - 1])),
        Arc::new(TimestampMicrosecondArray::from(vec![midnight, midnight - 1])),
        Arc::new(TimestampMicrosecondArray::from(vec![midnight, midnight - 1]).with_timezone("Europe/Berlin")),
    ];
    for column in on {
        let name = format!("{:?}", column.data_type());
        let rows = entities(batch(vec![("driver", ints([1, 1])), ("event_timestamp", column)]));
        assert_eq!(values(request(rows, drivers(0), vec![source()])).await, [Some(7), None], "{name}");
    }
}

#[test]
fn the_event_time_is_event_timestamp_or_the_only_timestamp() {
    let named = |columns: Vec<(&str, ArrayRef)>| {
        let rows = batch(columns);
        EntityRows::new(rows.schema(), vec![rows]).map(|rows| rows.event_time().to_owned())
    };
    assert_eq!(named(vec![("a", times([1])), ("event_timestamp", times([1]))]).unwrap(), "event_timestamp");
    assert_eq!(named(vec![("a", times([1])), ("n", ints([1]))]).unwrap(), "a");
    let several = named(vec![("a", times([1])), ("b", times([1]))]).unwrap_err().to_string();
    assert!(several.contains("`a`, `b`"), "{several}");
    let none = named(vec![("n", ints([1]))]).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Invalid);
    assert!(none.to_string().contains("`n`"), "{none}");
}

#[test]
fn an_entity_row_without_a_time_is_named() {
    let fail = |column: ArrayRef| {
        let rows = batch(vec![("event_timestamp", column)]);
        let whole = rows.slice(0, 1);
        EntityRows::new(rows.schema(), vec![whole, rows]).unwrap_err().to_string()
    };
    assert!(fail(times([Some(1), None])).contains("entity row 3 is null"));
    let text = fail(Arc::new(StringArray::from(vec!["2021-04-12", "soon"])));
    assert!(text.contains("entity row 3") && text.contains("`soon`"), "{text}");
}

#[tokio::test]
async fn join_keys_are_cast_without_loss_or_refused_by_row_and_value() {
    let source = || input(table(&[("f", &[(1, 1, None, Some(7))])]), InputKind::Batch);
    let asked = |key: ArrayRef| entities(batch(vec![("driver", key), ("event_timestamp", times([5, 5]))]));
    let keys: [ArrayRef; 3] = [
        Arc::new(Int32Array::from(vec![1, 2])),
        Arc::new(StringArray::from(vec!["1", "2"])),
        Arc::new(Float64Array::from(vec![1.0, 2.0])),
    ];
    for key in keys {
        assert_eq!(values(request(asked(key), drivers(0), vec![source()])).await, [Some(7), None]);
    }
    let half = asked(Arc::new(Float64Array::from(vec![1.0, 2.5])));
    let (kind, message) = failure(request(half, drivers(0), vec![source()])).await;
    assert_eq!(kind, ErrorKind::Data);
    assert!(message.contains("`driver` of entity row 2") && message.contains("2.5"), "{message}");
}

#[tokio::test]
async fn a_missing_join_key_is_named_with_its_view() {
    let rows = entities(batch(vec![("event_timestamp", times([5]))]));
    let (kind, message) = failure(request(rows, drivers(0), vec![])).await;
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(message.contains("`driver`") && message.contains("`drivers`"), "{message}");
}

#[tokio::test]
async fn names_that_would_collide_are_refused_before_anything_is_read() {
    let mut twice = request(asks(&[(1, 1)]), drivers(0), vec![]);
    twice.views.push(JoinView {
        view: view("other", &[], 0, &[("value", ValueType::Int64)]),
        inputs: vec![],
        log_from: None,
    });
    twice.features.push(wanted(1, "value"));
    let mut entity_column = request(asks(&[(1, 1)]), drivers(0), vec![]);
    entity_column.features[0].output = "driver".into();
    for (request, parts) in
        [(twice, ["`drivers:value`", "`other:value`"]), (entity_column, ["`driver`", "entity rows"])]
    {
        let (kind, message) = failure(request).await;
        assert_eq!(kind, ErrorKind::Invalid);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[tokio::test]
async fn an_unknown_feature_is_refused_with_those_there_are() {
    let mut request = request(asks(&[(1, 1)]), drivers(0), vec![]);
    request.features = vec![wanted(0, "valu")];
    let (kind, message) = failure(request).await;
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(message.contains("`valu`") && message.contains("`value`"), "{message}");
}
