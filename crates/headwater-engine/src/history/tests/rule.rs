//! The rule, clause by clause.

use super::*;

#[tokio::test]
async fn a_row_answers_from_its_own_microsecond_on() {
    check(0, &[(1, 100, None, Some(7))], &[99, 100, 101, i64::MAX], &[None, Some(7), Some(7), Some(7)]).await;
}

#[tokio::test]
async fn a_row_answers_until_its_ttl_to_the_microsecond() {
    check(10, &[(1, 100, None, Some(7))], &[100, 110, 111], &[Some(7), Some(7), None]).await;
    check(10, &[(1, i64::MIN, None, Some(7))], &[i64::MIN, i64::MIN + 10, i64::MIN + 11], &[Some(7), Some(7), None])
        .await;
}

#[tokio::test]
async fn an_expired_row_does_not_uncover_an_older_one() {
    check(10, &[(1, 90, None, Some(1)), (1, 95, None, Some(2))], &[100, 105, 106], &[Some(2), Some(2), None]).await;
}

#[tokio::test]
async fn of_equal_event_times_the_greater_created_wins_and_none_is_least() {
    let rows = [(1, 100, Some(5), Some(1)), (1, 100, Some(9), Some(2)), (1, 100, Some(7), Some(3))];
    check(0, &rows, &[100], &[Some(2)]).await;
    check(0, &[(1, 100, Some(-9), Some(1)), (1, 100, None, Some(2))], &[100], &[Some(1)]).await;
}

#[tokio::test]
async fn of_equal_created_times_the_later_row_wins() {
    check(0, &[(1, 100, Some(5), Some(1)), (1, 100, Some(5), Some(2))], &[100], &[Some(2)]).await;
}

#[tokio::test]
async fn of_equal_created_times_origin_then_split_then_position_decide() {
    let batch = || input(table(&[("z", &[(1, 100, None, Some(1))])]), InputKind::Batch);
    let log = |splits: &[(&str, &[DriverRow])]| input(table(splits), InputKind::Log);
    let one = |value| [(1, 100, None, Some(value))];
    for (inputs, expected) in [
        (vec![log(&[("a", &one(2))]), batch()], 2),
        (vec![batch(), log(&[("a", &one(2)), ("b", &one(3))])], 3),
        (vec![batch(), log(&[("push-0", &one(4)), ("shard-9", &one(5))])], 4),
    ] {
        assert_eq!(values(request(asks(&[(1, 100)]), drivers(0), inputs)).await, [Some(expected)]);
    }
}

#[tokio::test]
async fn a_row_is_taken_whole_with_its_nulls() {
    check(0, &[(1, 90, None, Some(1)), (1, 100, None, None)], &[95, 100], &[Some(1), None]).await;
}

#[tokio::test]
async fn the_created_filter_hides_rows_until_they_were_made() {
    let rows = [(1, 100, Some(200), Some(1)), (1, 90, Some(95), Some(2)), (1, 80, None, Some(3))];
    let asked = asks(&[(1, 80), (1, 95), (1, 100), (1, 199), (1, 200)]);
    let mut request = request(asked, drivers(0), vec![input(table(&[("f", &rows)]), InputKind::Batch)]);
    request.options.filter_by_created_timestamp = true;
    assert_eq!(values(request).await, [Some(3), Some(2), Some(2), Some(2), Some(1)]);
}

#[tokio::test]
async fn every_entity_row_comes_out_in_its_place_with_all_its_columns() {
    let rows = batch(vec![
        ("label", Arc::new(StringArray::from(vec!["a", "b", "b", "c", "d"]))),
        ("when", times([200, 100, 100, 300, 100])),
        ("driver", ints([Some(1), Some(2), Some(2), None, Some(9)])),
    ]);
    let source = table(&[("f", &[(2, 50, None, Some(20)), (1, 150, None, Some(10))])]);
    let mut request = request(entities(rows.clone()), drivers(0), vec![input(source, InputKind::Batch)]);
    request.options.batch_rows = Some(2);
    let set = join(request).await.unwrap();
    assert_eq!(set.rows(), 5);
    let schema = set.schema();
    let batches = set.collect().await.unwrap();
    assert!(batches.iter().all(|batch| batch.schema() == schema && batch.num_rows() <= 2));
    let all = arrow::compute::concat_batches(&schema, &batches).unwrap();
    assert_eq!(all.project(&[0, 1, 2]).unwrap().columns(), rows.columns());
    assert_eq!(column(&batches, "value"), [Some(10), Some(20), Some(20), None, None]);
}

#[tokio::test]
async fn features_come_out_in_the_order_of_the_request() {
    let two = view("two", &[("driver", ValueType::Int64)], 0, &[("x", ValueType::Int64), ("y", ValueType::Float64)]);
    let rows = batch(vec![
        ("driver", ints([1])),
        ("event_timestamp", times([1])),
        ("created", times([1])),
        ("x", ints([8])),
        ("y", ints([9])),
    ]);
    let source = MemoryBatchSource::new("two.parquet");
    source.add(SplitId::from("f"), rows);
    let mut request =
        request(asks(&[(1, 1)]), drivers(0), vec![input(table(&[("f", &[(1, 1, None, Some(7))])]), InputKind::Batch)]);
    request.views.push(JoinView { view: two, inputs: vec![input(source, InputKind::Batch)], log_from: None });
    request.features = vec![wanted(1, "y"), wanted(0, "value"), wanted(1, "x")];
    let batches = join(request).await.unwrap().collect().await.unwrap();
    let schema = batches[0].schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["driver", "event_timestamp", "y", "value", "x"]);
    assert_eq!(batches[0].column(2).as_ref(), &Float64Array::from(vec![9.0]));
    assert_eq!((column(&batches, "value"), column(&batches, "x")), (vec![Some(7)], vec![Some(8)]));
}

#[tokio::test]
async fn a_view_without_keys_answers_everybody() {
    let all = view("all", &[], 0, &[("value", ValueType::Int64)]);
    let source = table(&[("f", &[(0, 10, None, Some(1)), (0, 20, None, Some(2))])]);
    let request = request(asks(&[(1, 5), (2, 10), (3, 25)]), all, vec![input(source, InputKind::Batch)]);
    assert_eq!(values(request).await, [None, Some(1), Some(2)]);
}

#[tokio::test]
async fn no_entity_rows_give_no_rows_but_all_columns() {
    let request =
        request(asks(&[]), drivers(0), vec![input(table(&[("f", &[(1, 1, None, Some(1))])]), InputKind::Batch)]);
    let set = join(request).await.unwrap();
    assert_eq!((set.rows(), set.schema().fields().len()), (0, 3));
    assert_eq!(set.collect().await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}
