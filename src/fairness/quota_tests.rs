use super::*;

const ONE: ClientId = ClientId(1);
const OTHER: ClientId = ClientId(2);
const GENEROUS: Quota = Quota {
    requests_per_second: 0,
    open: 100,
    misses: 100,
    arriving: 100,
    arriving_in_all: 100,
};

fn quotas(requests_per_second: u32, misses: usize) -> Arc<Quotas> {
    let quota = Quota {
        requests_per_second,
        open: 2,
        misses,
        arriving: 3,
        arriving_in_all: 5,
    };
    Quotas::new(quota, |_, _| {})
}

fn asked(quotas: &Quotas, client: ClientId, times: u32) -> usize {
    let asks = (0..times).filter(|_| quotas.request(client, 1).is_ok());
    asks.count()
}

#[tokio::test(start_paused = true)]
async fn a_client_has_its_rate_and_a_second_s_worth_at_once() {
    let quotas = quotas(100, 1);
    assert_eq!(asked(&quotas, ONE, 1_000), 100);
    assert_eq!(asked(&quotas, OTHER, 10), 10, "another's own");
    let wait = Duration::from_millis(10);
    assert_eq!(quotas.request(ONE, 1), Err(Excess::Rate(wait)));
    tokio::time::advance(Duration::from_millis(500)).await;
    assert_eq!(asked(&quotas, ONE, 1_000), 50);
    assert_eq!(
        asked(&quotas, ClientId::NOBODY, 1_000),
        1_000,
        "the node's own"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_for_many_keys_is_paid_for_afterwards() {
    let quotas = quotas(100, 1);
    assert_eq!(quotas.request(ONE, 1_000), Ok(()));
    assert_eq!(
        quotas.request(ONE, 1),
        Err(Excess::Rate(Duration::from_millis(9_010)))
    );
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(quotas.request(ONE, 1), Ok(()));
}

#[test]
fn what_is_under_way_is_bounded_for_each_client_and_forgotten_when_it_ends() {
    let quotas = quotas(0, 2);
    let two = [quotas.miss(ONE), quotas.miss(ONE)];
    assert_eq!(quotas.miss(ONE).err(), Some(Excess::Misses));
    assert!(quotas.miss(OTHER).is_ok());
    drop(two);
    assert!(quotas.miss(ONE).is_ok());
    let held: usize = quotas
        .shards
        .iter()
        .map(|it| it.lock().under_way.len())
        .sum();
    assert_eq!(held, 0);
}

#[test]
fn requests_that_arrive_in_parts_take_nothing_from_misses_and_have_a_bound_of_their_own() {
    let quotas = quotas(0, 1);
    let arriving: Vec<_> = (0..4).map(|_| quotas.arrives(ONE)).collect();
    let refused = arriving.iter().filter(|it| it.is_err());
    assert_eq!(refused.count(), 1);
    assert!(quotas.miss(ONE).is_ok());
    // All clients together have a bound, too.
    let others: Vec<_> = (0..3).map(|_| quotas.arrives(OTHER)).collect();
    assert_eq!(others.iter().filter(|it| it.is_err()).count(), 1);
    drop((arriving, others));
    // But those who have few of them.
    let quota = Quota {
        arriving: 32,
        arriving_in_all: 4,
        ..GENEROUS
    };
    let quotas_of_few = Quotas::new(quota, |_, _| {});
    let many: Vec<_> = (0..5).map(|_| quotas_of_few.arrives(ONE)).collect();
    assert!(many[4].is_err());
    let few: Vec<_> = (0..3).map(|_| quotas_of_few.arrives(OTHER)).collect();
    assert_eq!(
        few.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, true, false]
    );
    assert_eq!(quotas.all_arriving.load(Ordering::Relaxed), 0);
    assert!(quotas.arrives(ONE).is_ok());
}

#[test]
fn open_requests_are_counted_over_all_connections_of_a_client_while_there_are_any() {
    let quotas = quotas(0, 1);
    let [first, second] = [quotas.connected(ONE), quotas.connected(ONE)];
    assert!(first.begins().is_ok() && second.begins().is_ok());
    assert_eq!(first.begins(), Err(Excess::Open));
    assert!(quotas.connected(OTHER).begins().is_ok());
    second.ends();
    assert!(first.begins().is_ok());
    drop(first);
    assert_eq!(second.begins(), Err(Excess::Open));
    drop(second);
    let held: usize = quotas.shards.iter().map(|it| it.lock().open.len()).sum();
    assert_eq!(held, 0);
}

#[test]
fn an_attacker_with_many_addresses_fills_no_memory() {
    let quotas = quotas(1, 1);
    for client in 1..100_000 {
        assert_eq!(quotas.request(ClientId(client), 1), Ok(()));
    }
    let held: usize = quotas.shards.iter().map(|it| it.lock().rates.len()).sum();
    assert!(held <= SHARDS * MOST_RATES, "{held}");
}

/// Docs and messages name the shares of one client; this is where they are compared with the code.
#[test]
fn the_shares_that_docs_and_messages_name_are_those_that_count() {
    let share = |part: usize| match part {
        3 => "a third of cache.in_flight",
        6 => "a sixth of cache.in_flight",
        _ => unreachable!("name the new share here, and in all texts"),
    };
    let (open, arriving) = (share(OPEN_PART), share(OPEN_PART * ARRIVING_PART));
    assert!(Error::from(Excess::Open).message().contains(open));
    assert!(Error::from(Excess::Arriving).message().contains(arriving));
    for file in ["metrics.md", "configuration.md", "production.md"] {
        let path = format!("{}/docs/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).expect("the page is there");
        let text = text.replace(['`', '\n'], " ");
        let text: Vec<&str> = text.split_whitespace().collect();
        let (text, third) = (
            text.join(" "),
            open.split(" cache").next().expect("its start"),
        );
        assert!(text.contains(third), "{file} doesn't say {third}");
        if file == "metrics.md" {
            assert!(text.contains(open) && text.contains(arriving), "{file}");
        }
    }
}
