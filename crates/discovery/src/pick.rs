//! Picks the endpoint for a request. Pure: a function of the endpoints that are ready.

use super::endpoint::Endpoint;
use gaocache_ring::{DEFAULT_WEIGHT, Ring, Slot, hash_key};

/// How requests are distributed over the endpoints.
///
/// With [`Picker::ConsistentHash`] a request says what it is about:
///
/// ```
/// use gaocache_discovery::HASH_KEY_HEADER;
///
/// let mut request = tonic::Request::new(());
/// request.metadata_mut().insert(HASH_KEY_HEADER, "user-42".parse()?);
/// # Ok::<(), tonic::metadata::errors::InvalidMetadataValue>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Picker {
    /// In turn.
    #[default]
    RoundRobin,
    /// In proportion to the metadata `weight` (a whole number; 100 if missing).
    Weighted,
    /// To the endpoint with the fewest requests in flight.
    LeastInFlight,
    /// By a hash of the request header [`HASH_KEY_HEADER`](super::HASH_KEY_HEADER). A key always
    /// goes to the same endpoint, weights are respected, and when an endpoint disappears, only its
    /// keys move. Requests without the header go in turn.
    ConsistentHash,
}

/// A share of the requests for endpoints with certain metadata.
///
/// ```
/// use gaocache_discovery::{Canary, ChannelOptions};
///
/// // One request in twenty goes to the new release.
/// let options = ChannelOptions::default().with_canary(Canary::new("version", "2", 0.05));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Canary {
    /// Name of the metadata item, such as `version`.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The share, from 0 to 1, that goes to endpoints with this value. The rest goes to the others.
    pub share: f64,
}

impl Canary {
    /// So large a share, from 0 to 1, for endpoints whose metadata `name` has that value.
    pub fn new(name: impl Into<String>, value: impl Into<String>, share: f64) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            share,
        }
    }
}

/// Preferences that apply before the picker.
#[derive(Clone, Debug, Default)]
pub(super) struct Preferences {
    pub(super) picker: Picker,
    pub(super) zone: Option<String>,
    /// Endpoints of the preferred zone with this many requests in flight are skipped in favour of
    /// other zones.
    pub(super) spill_over_at: usize,
    pub(super) canary: Option<Canary>,
}

/// An endpoint that is ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) key: &'a str,
    pub(super) endpoint: &'a Endpoint,
    pub(super) in_flight: usize,
}

/// The inputs that differ from request to request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Throw<'a> {
    pub(super) hash_key: Option<&'a str>,
    /// Counts requests.
    pub(super) turn: usize,
    /// Two random numbers, uniform in [0, 1).
    pub(super) dice: [f64; 2],
}

/// The index of the endpoint that gets the request. `None` if there are no candidates.
pub(super) fn pick(
    candidates: &[Candidate<'_>],
    preferences: &Preferences,
    throw: Throw<'_>,
) -> Option<usize> {
    let mut left: Vec<usize> = (0..candidates.len()).collect();
    // Endpoints that are draining are a last resort.
    narrow(&mut left, |at| {
        candidates[at].endpoint.text("state") != Some("draining")
    });
    if let Some(canary) = &preferences.canary {
        let wanted = throw.dice[0] < canary.share;
        narrow(&mut left, |at| {
            let value = candidates[at].endpoint.text(&canary.name);
            (value == Some(&canary.value)) == wanted
        });
    }
    if let Some(zone) = &preferences.zone {
        narrow(&mut left, |at| {
            candidates[at].endpoint.text("zone") == Some(zone)
                && candidates[at].in_flight < preferences.spill_over_at
        });
    }
    let in_turn = || (!left.is_empty()).then(|| left[throw.turn % left.len()]);
    match preferences.picker {
        Picker::RoundRobin => in_turn(),
        Picker::Weighted => weighted(candidates, &left, throw.dice[1]),
        Picker::LeastInFlight => {
            // Among equals, take the next in turn. Otherwise the first would get every isolated
            // request.
            let count = left.len().max(1);
            (0..left.len())
                .map(|step| left[(throw.turn + step) % count])
                .min_by_key(|&at| candidates[at].in_flight)
        }
        Picker::ConsistentHash => match throw.hash_key {
            Some(key) => consistent(candidates, &left, key),
            None => in_turn(),
        },
    }
}

/// Keeps the items that are `wanted`, unless there are none.
fn narrow(left: &mut Vec<usize>, wanted: impl Fn(usize) -> bool) {
    if left.iter().any(|&at| wanted(at)) {
        left.retain(|&at| wanted(at));
    }
}

fn weight(endpoint: &Endpoint) -> u32 {
    let weight = endpoint.number("weight").map(u32::try_from);
    weight.map_or(DEFAULT_WEIGHT, |weight| weight.unwrap_or(u32::MAX))
}

fn weighted(candidates: &[Candidate<'_>], left: &[usize], dice: f64) -> Option<usize> {
    let of = |at: usize| f64::from(weight(candidates[at].endpoint));
    let total: f64 = left.iter().map(|&at| of(at)).sum();
    let mut rest = dice * total;
    let found = left.iter().find(|&&at| {
        rest -= of(at);
        rest < 0.0
    });
    found.or(left.last()).copied()
}

fn consistent(candidates: &[Candidate<'_>], left: &[usize], key: &str) -> Option<usize> {
    let slots: Vec<Slot<'_>> = left
        .iter()
        .map(|&at| {
            let weight = weight(candidates[at].endpoint).max(1);
            Slot::new(candidates[at].key, weight)
        })
        .collect();
    Ring::new(&slots).owner(hash_key(0, key)).map(|at| left[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints() -> Vec<Endpoint> {
        vec![
            Endpoint::new("a:1")
                .with_metadata("zone", "x")
                .with_metadata("weight", 100),
            Endpoint::new("b:1")
                .with_metadata("zone", "x")
                .with_metadata("weight", 300),
            Endpoint::new("c:1")
                .with_metadata("zone", "y")
                .with_metadata("version", "2"),
        ]
    }

    /// How many of 1,200 requests each endpoint gets.
    fn spread(preferences: &Preferences, in_flight: [usize; 3], hash: bool) -> Vec<usize> {
        let endpoints = endpoints();
        let keys = ["s/a", "s/b", "s/c"];
        let candidates: Vec<_> = (0..3)
            .map(|at| Candidate {
                key: keys[at],
                endpoint: &endpoints[at],
                in_flight: in_flight[at],
            })
            .collect();
        let mut counts = vec![0; 3];
        for turn in 0..1_200 {
            let key = turn.to_string();
            let throw = Throw {
                hash_key: hash.then_some(&key),
                turn,
                dice: [(turn % 100) as f64 / 100.0, (turn % 97) as f64 / 97.0],
            };
            counts[pick(&candidates, preferences, throw).expect("one is ready")] += 1;
        }
        counts
    }

    fn with(picker: Picker) -> Preferences {
        Preferences {
            picker,
            spill_over_at: 10,
            ..Preferences::default()
        }
    }

    #[test]
    fn each_picker_spreads_as_it_says() {
        assert_eq!(
            spread(&with(Picker::RoundRobin), [0; 3], false),
            [400, 400, 400]
        );
        assert_eq!(
            spread(&with(Picker::LeastInFlight), [5, 2, 7], false),
            [0, 1200, 0]
        );
        assert_eq!(spread(&with(Picker::LeastInFlight), [2, 2, 7], false)[2], 0);
        for (picker, hash) in [(Picker::Weighted, false), (Picker::ConsistentHash, true)] {
            let counts = spread(&with(picker), [0; 3], hash);
            // 100 : 300 : 100 of 1,200.
            assert!((200..280).contains(&counts[0]), "{picker:?} {counts:?}");
            assert!((660..780).contains(&counts[1]), "{picker:?} {counts:?}");
        }
    }

    #[test]
    fn the_own_zone_comes_first_and_spills_over_when_it_is_busy_or_gone() {
        let zone = |zone: &str| Preferences {
            zone: Some(zone.into()),
            ..with(Picker::RoundRobin)
        };
        assert_eq!(spread(&zone("y"), [0; 3], false), [0, 0, 1200]);
        assert_eq!(spread(&zone("x"), [0; 3], false), [600, 600, 0]);
        assert_eq!(spread(&zone("x"), [10, 0, 0], false), [0, 1200, 0]);
        assert_eq!(spread(&zone("x"), [10, 10, 0], false), [400, 400, 400]);
        assert_eq!(spread(&zone("nowhere"), [0; 3], false), [400, 400, 400]);
    }

    #[test]
    fn a_canary_gets_its_share_and_everything_when_alone() {
        let canary = |value: &str| Preferences {
            canary: Some(Canary {
                name: "version".into(),
                value: value.into(),
                share: 0.25,
            }),
            ..with(Picker::RoundRobin)
        };
        assert_eq!(spread(&canary("2"), [0; 3], false)[2], 300);
        assert_eq!(spread(&canary("none"), [0; 3], false), [400, 400, 400]);
    }

    #[test]
    fn nobody_ready_is_nobody() {
        let throw = Throw {
            hash_key: None,
            turn: 0,
            dice: [0.0; 2],
        };
        for picker in [
            Picker::RoundRobin,
            Picker::Weighted,
            Picker::LeastInFlight,
            Picker::ConsistentHash,
        ] {
            assert_eq!(pick(&[], &with(picker), throw), None);
        }
    }
}
