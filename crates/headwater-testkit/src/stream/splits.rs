//! Splits that end, have children, and pass from one reader to another.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_core::stream::Progress;
use headwater_core::{Position, SplitId};

use super::StreamFixture;
use super::worker::{Entry, Harness, Setup, Worker};
use crate::clause::{ensure, same, skip};
use crate::{Stop, Verdict};

/// Reads until the split's end is reported, without commits of it.
async fn until_ended<F: StreamFixture>(worker: &mut Worker<F>, split: &SplitId) -> Verdict {
    while !worker.has_ended(split) {
        ensure!(worker.next().await?, "the stream is finished before the end of {split} is reported");
    }
    Ok(())
}

/// A stream whose first split is ended after some records, and the indices of the children, each with records.
async fn ended<F: StreamFixture>(fixture: Arc<F>) -> Verdict<(Harness<F>, Vec<usize>)> {
    let mut harness = Harness::with(fixture, &[6]).await?;
    let children = harness.end_split(0).await?;
    for child in &children {
        harness.produce(*child, 4).await?;
    }
    Ok((harness, children))
}

pub(super) async fn ended_after_all_records<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let (harness, _) = ended(fixture).await?;
    let split = harness.split(0);
    let mut worker = harness.worker(&Setup::new("ended")).await?;
    worker.dutiful = false;
    until_ended(&mut worker, &split).await?;
    same!(worker.sets().remove(&split), Some((1..=6).collect()), "records of a split whose end is reported");
    Ok(())
}

pub(super) async fn parents_first<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let (harness, children) = ended(fixture).await?;
    if children.is_empty() {
        skip!("ended splits have no children");
    }
    let parent = harness.split(0);
    let mut worker = harness.worker(&Setup::new("parents")).await?;
    worker.dutiful = false;
    until_ended(&mut worker, &parent).await?;
    // Whatever is still reported before `End` is committed, it is no child.
    while let Some(true) = worker.glance().await? {}
    for child in &children {
        let early = worker.has(&harness.split(*child));
        ensure!(!early, "{} is handed out before the end of its parent is committed", harness.split(*child));
    }
    worker.dutiful = true;
    worker.settle(&[(parent, Progress::End)]).await?;
    for child in &children {
        while !worker.has(&harness.split(*child)) {
            ensure!(worker.next().await?, "the stream is finished without the child {}", harness.split(*child));
        }
    }
    Ok(())
}

pub(super) async fn children_complete<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let (mut harness, children) = ended(fixture).await?;
    if let Some(child) = children.first() {
        for grandchild in harness.end_split(*child).await? {
            harness.produce(grandchild, 3).await?;
        }
    }
    let mut worker = harness.worker(&Setup::new("children")).await?;
    worker.read(&harness.everything()).await?;
    same!(worker.sets(), harness.everything(), "records of parents, children and grandchildren");
    Ok(())
}

pub(super) async fn ended_once<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let (harness, children) = ended(fixture).await?;
    let split = harness.split(0);
    let setup = Setup::new("once");
    let mut worker = harness.worker(&setup).await?;
    until_ended(&mut worker, &split).await?;
    while let Some(true) = worker.glance().await? {}
    ensure!(
        worker.log.iter().filter(|entry| matches!(entry, Entry::Ended { split: s } if *s == split)).count() == 1,
        "the end of {split} is reported more than once"
    );
    drop(worker);
    // By another process, and by a group that knows the checkpoint alone.
    let other = Setup { ledger: Arc::clone(&setup.ledger), ..Setup::new("oncemore") };
    for setup in [setup, other] {
        let mut worker = harness.worker(&setup).await?;
        while let Some(true) = worker.glance().await? {}
        ensure!(!worker.has(&split), "{split} is handed out although its end is checkpointed");
        let assigned = children.iter().filter(|child| worker.has(&harness.split(**child))).count();
        same!(assigned, children.len(), "children handed out after a restart");
    }
    Ok(())
}

pub(super) async fn closed_is_said<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let (harness, children) = ended(fixture).await?;
    let found = harness.source.discover().await?;
    for info in &found {
        same!(info.closed, info.split == harness.split(0), "whether {} is closed", info.split);
    }
    for child in children {
        let split = harness.split(child);
        let info = found.iter().find(|info| info.split == split);
        same!(info.map(|info| info.parents.clone()), Some(vec![harness.split(0)]), "the parents of {split}");
    }
    Ok(())
}

pub(super) async fn foreign_commits<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[10, 10]).await?;
    let setup = Setup { batch_records: 2, ..Setup::new("foreign") };
    let mut worker = harness.worker(&setup).await?;
    // Before anything is assigned, for a split that does not exist, and for positions nobody has seen.
    let foreign = SplitId::from("no-such-split");
    let commits = [
        (foreign.clone(), Progress::Through(Position::from_u64(7))),
        (foreign, Progress::End),
        (harness.split(1), Progress::Through(Position::START)),
    ];
    let ledger = Arc::clone(&worker.ledger);
    worker.ledger = Arc::default();
    worker.settle(&commits).await?;
    worker.ledger = ledger;
    worker.read(&harness.everything()).await?;
    same!(worker.sets(), harness.everything(), "records after commits of splits that are not the reader's");
    Ok(())
}

fn several_readers<F: StreamFixture>(harness: &Harness<F>) -> Verdict {
    if !harness.source.capabilities().shares_splits {
        skip!("one reader owns all splits");
    }
    // Which of its readers finishes, and when, is not said of a bounded stream.
    harness.unbounded()
}

pub(super) async fn shared<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let mut harness = Harness::with(fixture, &[30, 30, 30]).await?;
    several_readers(&harness)?;
    let setup = Setup { batch_records: 4, ..Setup::new("shared") };
    let mut one = harness.worker(&setup).await?;
    while one.numbers().is_empty() {
        one.next().await?;
    }
    let mut two = harness.worker(&setup).await?;
    let mut rounds = 0;
    let all = harness.everything();
    let processed = |one: &Worker<F>, two: &Worker<F>| {
        let mut both = one.numbers();
        for (split, numbers) in two.numbers() {
            both.entry(split).or_default().extend(numbers);
        }
        both
    };
    let last = |both: &BTreeMap<SplitId, Vec<i64>>| {
        all.iter()
            .all(|(split, numbers)| both.get(split).is_some_and(|found| found.contains(&numbers[numbers.len() - 1])))
    };
    let has_some = |worker: &Worker<F>| worker.log.iter().any(|entry| matches!(entry, Entry::Assigned { .. }));
    // A group may take longer to let the second one in than the first takes to read everything.
    while !(last(&processed(&one, &two)) && has_some(&two)) {
        one.glance().await?;
        two.glance().await?;
        rounds += 1;
        let all_read = last(&processed(&one, &two));
        ensure!(rounds < 300 || !all_read, "the second reader got no split");
        ensure!(rounds < 300, "two readers do not come to the end: {:?}", processed(&one, &two));
    }
    let mut both = processed(&one, &two);
    both.values_mut().for_each(|numbers| numbers.sort_unstable());
    same!(both, harness.everything(), "records of two readers of one group");
    // One leaves; the other takes all.
    one.close().await?;
    for split in 0..3 {
        harness.produce(split, 2).await?;
    }
    let rest = harness.everything();
    while !rest.iter().all(|(split, numbers)| processed_last(&two, split) == numbers.last().copied()) {
        two.next().await?;
    }
    Ok(())
}

fn processed_last<F: StreamFixture>(worker: &Worker<F>, split: &SplitId) -> Option<i64> {
    worker.numbers().get(split).and_then(|numbers| numbers.last().copied())
}

pub(super) async fn slow_sink<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let mut harness = Harness::with(fixture, &[20, 20]).await?;
    several_readers(&harness)?;
    let setup = Setup { batch_records: 3, ..Setup::new("slow") };
    let mut one = harness.worker(&setup).await?;
    while one.numbers().len() < 2 {
        one.next().await?;
    }
    let mut two = harness.worker(&setup).await?;
    // The second one asks while the first is busy writing. Whatever the first is told then, until it calls `next`
    // again the split is its own and its commits count.
    let mut revoked = None;
    for _ in 0..200 {
        two.glance().await?;
        let before = one.log.len();
        one.glance().await?;
        revoked = one.log[before..].iter().find_map(|entry| match entry {
            Entry::Revoked { split } => Some(split.clone()),
            _ => None,
        });
        if revoked.is_some() {
            break;
        }
        for split in 0..2 {
            harness.produce(split, 1).await?;
        }
    }
    let Some(revoked) = revoked else {
        return Err(Stop::Failed("nothing was revoked while a second reader was there".into()));
    };
    for _ in 0..3 {
        two.glance().await?;
    }
    ensure!(!two.has(&revoked), "{revoked} went to another reader before the first acknowledged its loss");
    one.glance().await?;
    while !two.has(&revoked) {
        two.next().await?;
        one.glance().await?;
    }
    let last = one.numbers().get(&revoked).and_then(|numbers| numbers.last().copied()).unwrap_or_default();
    while !two.numbers().contains_key(&revoked) {
        two.next().await?;
    }
    let first = two.numbers().get(&revoked).and_then(|numbers| numbers.first().copied());
    same!(first, Some(last + 1), "the first record of {revoked} for the reader that took it over");
    Ok(())
}
