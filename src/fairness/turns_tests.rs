use std::pin::pin;

use futures::{FutureExt, future::BoxFuture, poll};

use super::*;
use gaocache_core::askers::Askers;

const MANY: usize = usize::MAX;
const GREEDY: ClientId = ClientId(1);
const MODEST: ClientId = ClientId(2);

fn askers(client: ClientId) -> Askers {
    Askers::new(vec![client.into()])
}

/// Waits for a place.
fn take(turns: &Turns, client: ClientId) -> BoxFuture<'_, Result<Turn<'_>, Full>> {
    let mut taking = turns.take(askers(client).follow(), MANY).boxed();
    assert!((&mut taking).now_or_never().is_none(), "it has to wait");
    taking
}

fn has_turn<'a>(taking: &mut BoxFuture<'a, Result<Turn<'a>, Full>>) -> Option<Turn<'a>> {
    taking.now_or_never().map(|it| it.expect("not sent away"))
}

#[test]
fn who_asks_for_thousands_delays_another_by_one_turn() {
    let turns = Turns::new(1);
    let runs = turns.try_take(GREEDY).expect("free");
    let mut greedy: Vec<_> = (0..1_000).map(|_| take(&turns, GREEDY)).collect();
    let mut modest: Vec<_> = (0..3).map(|_| take(&turns, MODEST)).collect();
    drop(runs);
    let mut served = Vec::new();
    while let Some(turn) = modest.iter_mut().chain(&mut greedy).find_map(has_turn_once) {
        served.push(turn.client);
    }
    assert_eq!(served.len(), 1_003);
    let others = served[..6].iter().filter(|it| **it == GREEDY).count();
    assert_eq!(others, 3, "in turns: {:?}", &served[..6]);
}

/// As [`has_turn`], for one that may have had its turn before.
fn has_turn_once<'a>(taking: &mut BoxFuture<'a, Result<Turn<'a>, Full>>) -> Option<Turn<'a>> {
    let turn = has_turn(taking)?;
    *taking = std::future::pending().boxed();
    Some(turn)
}

#[test]
fn a_free_place_goes_to_whoever_has_the_fewest() {
    let turns = Turns::new(4);
    let mut greedy: Vec<_> = (0..4).map(|_| turns.try_take(GREEDY)).collect();
    let mut more = take(&turns, GREEDY);
    let mut first = take(&turns, MODEST);
    let mut second = take(&turns, MODEST);
    greedy.pop();
    let _first = has_turn(&mut first).expect("it has none so far");
    greedy.pop();
    let _second = has_turn(&mut second).expect("one is fewer than two");
    assert!(has_turn(&mut more).is_none());
    greedy.pop();
    assert!(has_turn(&mut more).is_some());
}

#[test]
fn who_comes_again_and_again_overtakes_nobody() {
    let turns = Turns::new(1);
    let mut runs = turns.try_take(MODEST);
    let mut waits = take(&turns, GREEDY);
    let mut again = take(&turns, MODEST);
    runs.take();
    assert!(has_turn(&mut waits).is_some(), "first come");
    assert!(has_turn(&mut again).is_some());
}

#[test]
fn when_too_many_wait_the_longest_line_makes_room() {
    let turns = Turns::new(1);
    let _runs = turns.try_take(GREEDY);
    let mut greedy: Vec<_> = (0..4).map(|_| take(&turns, GREEDY)).collect();
    let taking = |client| turns.take(askers(client).follow(), 5).boxed();
    assert_eq!(
        taking(GREEDY).now_or_never().map(|it| it.err()),
        Some(Some(Full)),
        "its own line is the longest"
    );
    let mut modest = [taking(MODEST), taking(MODEST)];
    assert!(modest.iter_mut().all(|it| it.now_or_never().is_none()));
    for (sent_away, waits) in greedy.iter_mut().zip([true, true, false, false]) {
        let ended = sent_away.now_or_never().map(|it| it.err());
        assert_eq!(ended, (!waits).then_some(Some(Full)));
    }
    let third = taking(MODEST).now_or_never();
    assert!(third.is_some_and(|it| it.is_err()), "the queues are equal");
}

#[test]
fn what_another_client_wants_too_comes_when_the_first_of_them_is_due() {
    let turns = Turns::new(1);
    let runs = turns.try_take(GREEDY).expect("free");
    let [before, later] = [askers(GREEDY), askers(GREEDY)];
    // One is wanted by both before it waits, and one while it does.
    before.add(&[MODEST.into()]);
    let mut greedy: Vec<_> = (0..98).map(|_| take(&turns, GREEDY)).collect();
    for askers in [&before, &later] {
        greedy.push(turns.take(askers.follow(), MANY).boxed());
        assert!(greedy.last_mut().and_then(has_turn).is_none());
    }
    later.add(&[MODEST.into()]);
    assert!(has_turn(&mut greedy[99]).is_none(), "it learns of it");
    drop(runs);
    assert!(has_turn(&mut greedy[0]).is_none());
    let both = has_turn(&mut greedy[98]).expect("the other client's turn");
    assert_eq!(both.client, MODEST);
    drop(both);
    let first = has_turn(&mut greedy[0]).expect("and it is gone from both lines");
    drop(first);
    let both = has_turn(&mut greedy[99]).expect("the other client's next turn");
    assert_eq!(both.client, MODEST);
}

#[test]
fn more_places_are_given_out_at_once_and_fewer_when_they_come_back() {
    let turns = Turns::new(1);
    let first = turns.try_take(GREEDY);
    let mut waiting: Vec<_> = (0..3).map(|_| take(&turns, GREEDY)).collect();
    turns.set_places(3);
    let run: Vec<_> = waiting.iter_mut().filter_map(has_turn_once).collect();
    assert_eq!(run.len(), 2);
    turns.set_places(1);
    drop(first);
    assert!(has_turn(&mut waiting[2]).is_none());
    drop(run);
    assert!(has_turn(&mut waiting[2]).is_some());
}

#[tokio::test]
async fn who_gives_up_leaves_nothing_behind_whatever_it_has_got_by_then() {
    let turns = Turns::new(1);
    let runs = turns.try_take(GREEDY);
    {
        let both = askers(MODEST);
        let mut given_up = pin!(turns.take(both.follow(), MANY));
        assert!(poll!(given_up.as_mut()).is_pending());
        both.add(&[GREEDY.into()]);
        assert!(poll!(given_up.as_mut()).is_pending());
    }
    let gets_it_unseen = take(&turns, MODEST);
    drop(runs);
    assert!(turns.try_take(GREEDY).is_none(), "the place is given");
    drop(gets_it_unseen);
    assert!(turns.try_take(GREEDY).is_some(), "and given back");
    let inner = turns.inner.lock();
    assert_eq!(inner.taken, 0);
    assert!(inner.waiting.is_empty());
    assert!(inner.queues.is_empty() && inner.order.is_empty() && inner.lengths.is_empty());
}
