//! The choice of an endpoint: a pure function of what is known of them, of what is asked for, and of numbers that were drawn.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use penstock_model::{Ejection, Method};

use super::{endpoint::Endpoint, mix};

/// Of its share, what an endpoint gets that came just now: enough to get warm by.
const COLDEST: f32 = 0.1;

/// Numbers drawn for one choice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    /// Counts the choices of the backend.
    pub(super) turn: usize,
    pub(super) random: u64,
}

/// The endpoints among which is chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'e> {
    endpoints: &'e [Arc<Endpoint>],
    now: u64,
    tried: &'e [SocketAddr],
    /// Those that are out are passed over.
    without_out: bool,
    open: usize,
}

impl<'e> Field<'e> {
    /// Those that were not tried yet, without those that are out: unless so many are out that the fault must lie elsewhere, or no other is left.
    /// `may_be_out`: false if it is known that none is.
    pub(super) fn new(
        endpoints: &'e [Arc<Endpoint>],
        now: u64,
        ejection: Option<&Ejection>,
        may_be_out: bool,
        tried: &'e [SocketAddr],
    ) -> Self {
        let mut field = Self { endpoints, now, tried, without_out: false, open: endpoints.len() };
        if let Some(rule) = ejection.filter(|_| may_be_out) {
            let out = endpoints.iter().filter(|endpoint| endpoint.is_out(now)).count();
            field.without_out = out > 0 && out * 100 <= endpoints.len() * usize::from(rule.panic_percent);
        }
        field.count();
        if field.open == 0 && field.without_out {
            field.without_out = false;
            field.count();
        }
        field
    }

    fn count(&mut self) {
        if self.without_out || !self.tried.is_empty() {
            self.open = self.endpoints.iter().filter(|endpoint| self.is_open(endpoint)).count();
        }
    }

    fn is_whole(&self) -> bool {
        self.open == self.endpoints.len()
    }

    fn is_open(&self, endpoint: &Endpoint) -> bool {
        !(self.without_out && endpoint.is_out(self.now) || self.tried.contains(&endpoint.address()))
    }

    fn iter(&self) -> impl Iterator<Item = &'e Arc<Endpoint>> {
        self.endpoints.iter().filter(|endpoint| self.is_whole() || self.is_open(endpoint))
    }

    /// One of those that are open, by its place among them, around and around.
    fn at(&self, place: usize) -> Option<&'e Arc<Endpoint>> {
        let place = place.checked_rem(self.open)?;
        if self.is_whole() { self.endpoints.get(place) } else { self.iter().nth(place) }
    }

    /// The endpoint of a key: of all, the one whose number mixed with it is the largest (rendezvous hashing). So a key moves only if its endpoint
    /// goes, or one comes that is larger: 1 of n.
    ///
    /// With a factor, those that have more than so many percent of the mean of requests in flight are passed over. There is always one that has not.
    pub(super) fn by_key(&self, key: u64, load_factor: Option<u32>) -> Option<&'e Arc<Endpoint>> {
        let most = load_factor.map(|percent| {
            let total: u64 = self.iter().map(|endpoint| u64::from(endpoint.in_flight())).sum();
            (total + 1).saturating_mul(u64::from(percent.max(100))).div_ceil(100 * (self.open.max(1) as u64))
        });
        let has_room = |endpoint: &Endpoint| most.is_none_or(|most| u64::from(endpoint.in_flight()) < most);
        self.iter().filter(|endpoint| has_room(endpoint)).max_by_key(|endpoint| mix(key ^ endpoint.id()))
    }

    /// The one that stands for itself in cookies by this name, if it is open.
    pub(super) fn by_name(&self, backend: &str, name: &str) -> Option<&'e Arc<Endpoint>> {
        self.iter().find(|endpoint| endpoint.name(backend) == name)
    }

    /// By the method, which is not a hash, or without the key that it needs.
    pub(super) fn by_method(&self, method: &Method, slow_start: Option<Duration>, draw: Draw) -> Option<&'e Arc<Endpoint>> {
        let first = self.in_turn(draw.turn, slow_start, draw.random)?;
        match method {
            Method::RoundRobin => Some(first),
            Method::LeastLoaded | Method::Hash(_) => {
                let Some(others) = self.open.checked_sub(1).filter(|others| *others > 0) else { return Some(first) };
                // Two of which one has its turn: as good as two at random, and equals take turns.
                let step = 1 + (draw.random >> 32) as usize % others;
                let second = self.in_turn(draw.turn.wrapping_add(step), slow_start, mix(draw.random))?;
                Some(if self.costs_less(second, first) { second } else { first })
            }
        }
    }

    /// The endpoint at a place, or one after it if that one is new and the lot is against it.
    fn in_turn(&self, turn: usize, slow_start: Option<Duration>, random: u64) -> Option<&'e Arc<Endpoint>> {
        // So small that nothing that is added to it overflows.
        let turn = turn & u32::MAX as usize;
        let given = self.at(turn)?;
        let Some(window) = slow_start else { return Some(given) };
        let lot = |step: usize| (mix(random.wrapping_add(step as u64)) >> 40) as f32 / (1 << 24) as f32;
        let warm = |endpoint: &Endpoint, step: usize| {
            let warmth = endpoint.warmth(self.now, window);
            warmth >= 1.0 || lot(step) < warmth.max(COLDEST)
        };
        // Mostly the first. If all are new, the one whose turn it is.
        let found = (0..self.open).find_map(|step| self.at(turn.wrapping_add(step)).filter(|endpoint| warm(endpoint, step)));
        found.or(Some(given))
    }

    /// The smaller product of requests in flight, with this one, and latency. Of one that was never measured nothing is known but the former.
    fn costs_less(&self, one: &Endpoint, other: &Endpoint) -> bool {
        let (mine, theirs) = match (one.latency(self.now), other.latency(self.now)) {
            (Some(mine), Some(theirs)) => (mine, theirs),
            _ => (1.0, 1.0),
        };
        let load = |endpoint: &Endpoint| endpoint.in_flight() as f32 + 1.0;
        load(one) * mine < load(other) * theirs
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const EJECTION: Ejection =
        Ejection { failures: 3, time: Duration::from_secs(1), longest: Duration::from_secs(1), panic_percent: 50 };
    const NOW: u64 = 1_000_000;

    fn draw(turn: usize) -> Draw {
        Draw { turn, random: mix(turn as u64 ^ 0x5555) }
    }

    fn all(endpoints: &[Arc<Endpoint>]) -> Field<'_> {
        Field::new(endpoints, NOW, Some(&EJECTION), true, &[])
    }

    fn ports(field: &Field<'_>, method: &Method, slow_start: Option<Duration>, count: usize) -> HashMap<u16, usize> {
        let mut seen = HashMap::new();
        for turn in 0..count {
            *seen.entry(field.by_method(method, slow_start, draw(turn)).unwrap().address().port()).or_default() += 1;
        }
        seen
    }

    /// Endpoints with so many requests in flight, microseconds and, where set, out.
    fn endpoints(of: &[(u32, u32, bool)]) -> Vec<Arc<Endpoint>> {
        let each = of.iter().zip(1..);
        each.map(|((in_flight, micros, out), port)| Endpoint::sample(port, *in_flight, *micros, if *out { NOW + 1 } else { 0 }, 0))
            .collect()
    }

    #[test]
    fn of_two_the_less_loaded_and_faster_is_chosen() {
        // Decay takes from both alike; the times here are long enough to stay above what counts as noise.
        let slow = 4_000_000_000;
        for (what, one, other, chosen) in [
            ("fewer in flight", (3, slow, false), (1, slow, false), 2),
            ("faster", (1, slow / 3, false), (1, slow, false), 1),
            ("twice as fast outweighs one more in flight", (1, slow / 3, false), (0, slow, false), 1),
            ("what was never measured counts by what is in flight", (1, 0, false), (0, slow, false), 2),
            ("and so does the other", (0, 0, false), (1, 1, false), 1),
        ] {
            let both = endpoints(&[one, other]);
            for turn in 0..10 {
                // As of their measurement.
                let field = Field { now: 0, ..all(&both) };
                let port = field.by_method(&Method::LeastLoaded, None, draw(turn)).unwrap().address().port();
                assert_eq!(port, chosen, "{what}");
            }
        }
    }

    #[test]
    fn equals_take_turns() {
        let equals = endpoints(&[(0, 0, false); 5]);
        for method in [Method::LeastLoaded, Method::RoundRobin] {
            assert_eq!(ports(&all(&equals), &method, None, 50), (1..=5).map(|port| (port, 10)).collect());
        }
    }

    #[test]
    fn the_slowest_of_three_is_chosen_seldom() {
        let three = endpoints(&[(0, 2_000_000, false), (0, 2_000_000, false), (0, 60_000_000, false)]);
        let field = Field { now: 0, ..all(&three) };
        assert_eq!(ports(&field, &Method::LeastLoaded, None, 90).get(&3), None);
    }

    #[test]
    fn none_is_left_nothing_is_chosen() {
        assert!(all(&[]).by_method(&Method::RoundRobin, None, draw(1)).is_none());
        assert!(all(&[]).by_key(1, Some(125)).is_none());
        let one = endpoints(&[(0, 0, false)]);
        let tried = [one[0].address()];
        assert!(Field::new(&one, NOW, None, true, &tried).by_method(&Method::LeastLoaded, None, draw(1)).is_none());
    }

    #[test]
    fn one_that_is_out_is_chosen_if_no_other_is_left() {
        let both = endpoints(&[(0, 0, true), (0, 0, false)]);
        let tried = [both[1].address()];
        let field = Field::new(&both, NOW, Some(&EJECTION), true, &tried);
        assert_eq!(field.by_method(&Method::RoundRobin, None, draw(0)).unwrap().address().port(), 1);
    }

    #[test]
    fn a_new_endpoint_gets_a_share_that_grows() {
        let window = Duration::from_secs(10);
        let mut shares = Vec::new();
        for age in [0, 2_500, 5_000, 7_500, 10_000] {
            let two = [Endpoint::sample(1, 0, 0, 0, 0), Endpoint::sample(2, 0, 0, 0, NOW - age)];
            let seen = ports(&all(&two), &Method::RoundRobin, Some(window), 4_000);
            shares.push(seen.get(&2).copied().unwrap_or_default());
        }
        assert!((100..350).contains(&shares[0]), "a tenth of its half at first: {shares:?}");
        assert!((850..1150).contains(&shares[2]), "half of it in the middle: {shares:?}");
        assert_eq!(shares[4], 2_000);
        assert!(shares.is_sorted());
        let both_new = [Endpoint::sample(1, 0, 0, 0, NOW), Endpoint::sample(2, 0, 0, 0, NOW)];
        let seen = ports(&all(&both_new), &Method::RoundRobin, Some(window), 4_000);
        assert!(seen[&1] > 1_500 && seen[&2] > 1_500, "where all are new, none waits for another: {seen:?}");
    }

    #[test]
    fn a_loaded_endpoint_of_a_key_is_passed_over_only_with_a_factor() {
        let three = endpoints(&[(0, 0, false); 3]);
        let home = all(&three).by_key(7, None).unwrap().clone();
        home.set_in_flight(50);
        assert_eq!(all(&three).by_key(7, None).unwrap().address(), home.address());
        assert_ne!(all(&three).by_key(7, Some(150)).unwrap().address(), home.address());
    }

    fn endpoints_at_will() -> impl Strategy<Value = Vec<(u32, u32, bool)>> {
        prop::collection::vec((0..50_u32, 0..5_000_000_u32, any::<bool>()), 1..12)
    }

    proptest! {
        #[test]
        fn a_key_moves_only_from_the_endpoint_that_leaves(count in 2..20_usize, gone in 0..20_usize, keys in prop::collection::vec(any::<u64>(), 300)) {
            let gone = gone % count;
            let before = endpoints(&vec![(0, 0, false); count]);
            let mut after = before.clone();
            let left = after.remove(gone).address();
            let mut moved = 0;
            for key in keys.iter().map(|key| mix(*key)) {
                let home = all(&before).by_key(key, None).unwrap().address();
                let now = all(&after).by_key(key, None).unwrap().address();
                if home == left { moved += 1 } else { prop_assert_eq!(home, now) }
            }
            // 1 of n, with room for chance: five standard deviations.
            let share = 300.0 / count as f64;
            prop_assert!(f64::from(moved) < share + 5.0 * share.sqrt() + 1.0, "{moved} of 300 keys moved, of {count} endpoints");
        }

        #[test]
        fn the_bound_of_the_load_is_never_exceeded(count in 1..12_usize, factor in 100..300_u32, keys in prop::collection::vec(0..5_u64, 1..200)) {
            let all_of_them = endpoints(&vec![(0, 0, false); count]);
            for (taken, key) in keys.iter().enumerate() {
                let chosen = all(&all_of_them).by_key(mix(*key), Some(factor)).expect("one always has room");
                chosen.set_in_flight(chosen.in_flight() + 1);
                let bound = (f64::from(factor) / 100.0 * (taken + 1) as f64 / count as f64).ceil();
                prop_assert!(f64::from(chosen.in_flight()) <= bound, "{} in flight, {bound} allowed", chosen.in_flight());
            }
        }

        #[test]
        fn the_more_loaded_of_two_is_never_preferred(load in (0..100_u32, 0..100_u32), micros in 1_000_000..4_000_000_u32, turn in any::<usize>(), random in any::<u64>()) {
            let two = endpoints(&[(load.0, micros, false), (load.1, micros, false)]);
            let chosen = all(&two).by_method(&Method::LeastLoaded, None, Draw { turn, random }).unwrap();
            prop_assert_eq!(chosen.in_flight(), load.0.min(load.1));
        }

        #[test]
        fn who_is_out_is_not_chosen_unless_too_many_are(of in endpoints_at_will(), turn in any::<usize>(), random in any::<u64>(), key in any::<u64>()) {
            let these = endpoints(&of);
            let out = of.iter().filter(|(_, _, out)| *out).count();
            let panic = out * 100 > of.len() * 50;
            let field = all(&these);
            let draw = Draw { turn, random };
            for chosen in [
                field.by_method(&Method::LeastLoaded, None, draw),
                field.by_method(&Method::RoundRobin, Some(Duration::from_secs(10)), draw),
                field.by_key(key, None),
                field.by_key(key, Some(125)),
            ] {
                let chosen = chosen.expect("one is always chosen");
                prop_assert!(panic || !chosen.is_out(NOW));
            }
            if panic {
                let seen = ports(&field, &Method::RoundRobin, None, of.len());
                prop_assert_eq!(seen.len(), of.len(), "all are used alike");
            }
        }

        #[test]
        fn nobody_starves_in_turns(of in endpoints_at_will(), from in any::<u32>()) {
            let these = endpoints(&of);
            let field = all(&these);
            let mut seen: Vec<u16> = (0..field.open)
                .map(|turn| field.by_method(&Method::RoundRobin, None, draw(from as usize + turn)).unwrap().address().port())
                .collect();
            seen.sort_unstable();
            seen.dedup();
            // Where the count wraps around, one may have two turns.
            prop_assert!(seen.len() >= field.open - usize::from(from as usize + field.open > u32::MAX as usize));
        }

        #[test]
        fn who_was_tried_is_not_chosen_again(of in endpoints_at_will(), first in any::<usize>(), turn in any::<usize>(), random in any::<u64>()) {
            let these = endpoints(&of);
            let tried = [these[first % these.len()].address()];
            let field = Field::new(&these, NOW, Some(&EJECTION), true, &tried);
            let draw = Draw { turn, random };
            for chosen in [field.by_method(&Method::LeastLoaded, None, draw), field.by_key(random, Some(120))] {
                prop_assert_eq!(chosen.is_some(), these.len() > 1);
                prop_assert!(chosen.is_none_or(|chosen| chosen.address() != tried[0]));
            }
        }
    }
}
