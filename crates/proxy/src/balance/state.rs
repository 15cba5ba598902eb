//! What a backend remembers of its endpoints: they are replaced as a whole, and what is known of those that stay, stays.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::{ArcSwap, Guard};
use penstock_model::{Balancing, Method};

use super::{
    Wish,
    choose::{Draw, Field},
    endpoint::{Endpoint, Flight, PROBE_MILLIS, opaque},
    mix,
    places::Places,
    random,
    wish::Kept,
};
use crate::clock;

/// The balancing state of one backend.
#[derive(Debug, Default)]
pub(crate) struct State {
    members: ArcSwap<Members>,
    /// Counts choices, over all workers: so requests on however many connections go around all endpoints evenly.
    turn: AtomicUsize,
    /// After this nobody is out: as a rule one look tells that nobody has to be looked for.
    out_until: AtomicU64,
    pub(super) places: Arc<Places>,
    /// What stands for the backend in cookies, made when it is first needed.
    tag: OnceLock<Box<str>>,
}

/// The endpoints as of now.
#[derive(Debug, Default)]
pub(crate) struct Members {
    endpoints: Vec<Arc<Endpoint>>,
    /// So many of them are to be used while they can be: those of the address family that the resolver puts first.
    preferred: usize,
}

impl State {
    /// Replaces the endpoints by those of a Service.
    pub(crate) fn set(&self, addresses: impl ExactSizeIterator<Item = SocketAddr>) {
        let now = clock::exact();
        let addresses: Vec<SocketAddr> = addresses.collect();
        let preferred = addresses.len();
        self.members.rcu(|before| before.replaced(&addresses, preferred, now));
    }

    /// Replaces the endpoints by what the resolver knows now, if that is something else. They come in its order of preference.
    pub(crate) fn resolved(&self, found: &[IpAddr], port: u16) {
        let same = {
            let members = self.members.load();
            members.endpoints.len() == found.len()
                && members.endpoints.iter().zip(found).all(|(endpoint, ip)| endpoint.address() == SocketAddr::new(*ip, port))
        };
        if same {
            return;
        }
        let now = clock::exact();
        let addresses: Vec<SocketAddr> = found.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        let preferred = found.iter().take_while(|ip| Some(ip.is_ipv6()) == found.first().map(IpAddr::is_ipv6)).count();
        // Another worker may do the same at the same time: whoever comes second finds what the first one made.
        self.members.rcu(|before| before.replaced(&addresses, preferred, now));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.load().endpoints.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.members.load().endpoints.len()
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.members.load().endpoints.iter().map(|endpoint| endpoint.address()).collect()
    }

    /// What stands for the backend in cookies.
    pub(crate) fn tag(&self, backend: &str) -> &str {
        self.tag.get_or_init(|| opaque(&[backend.as_bytes()]))
    }

    pub(super) fn out(&self, until: u64) {
        self.out_until.fetch_max(until, Relaxed);
    }

    /// An endpoint for a request, which counts as sent there from now on. None: all were tried.
    pub(super) fn choose(
        &self,
        backend: &str,
        balancing: &Balancing,
        wish: &Wish,
        tried: &[SocketAddr],
        now: u64,
    ) -> Option<Flight> {
        let members: Guard<Arc<Members>> = self.members.load();
        let random = random();
        // Only the first choice of a request takes a turn: or with two endpoints, one of which fails, it would always be the turn of that one.
        let turn = if tried.is_empty() { self.turn.fetch_add(1, Relaxed) } else { mix(random) as usize };
        let draw = Draw { turn, random };
        let ejection = balancing.ejection.as_ref();
        let may_be_out = self.out_until.load(Relaxed) > now;
        let (mut first, mut then) = members.endpoints.split_at_checked(members.preferred).unwrap_or((&members.endpoints, &[]));
        // A family that cannot be reached is not tried first by every request.
        if may_be_out
            && ejection.is_some()
            && first.iter().all(|endpoint| endpoint.is_out(now))
            && then.iter().any(|endpoint| !endpoint.is_out(now))
        {
            (first, then) = (then, first);
        }
        let within = |endpoints| {
            let field = Field::new(endpoints, now, ejection, may_be_out, tried);
            let sticky = || {
                let kept = wish.kept.as_ref()?;
                // A cookie that is to outlast failures holds whatever its endpoint does; one that is made now leads to an endpoint that is well.
                let changes = balancing.affinity.as_ref().is_some_and(|affinity| affinity.change_on_failure);
                let field = if changes || wish.fresh.is_some() { field } else { Field::new(endpoints, now, None, false, tried) };
                match kept {
                    Kept::Name(name) => field.by_name(backend, name),
                    Kept::Key(key) => field.by_key(*key, None),
                }
            };
            let hashed = || match (&balancing.method, wish.key) {
                (Method::Hash(hash), Some(key)) => field.by_key(key, hash.load_factor),
                _ => None,
            };
            let found = sticky().or_else(hashed);
            found.or_else(|| field.by_method(&balancing.method, balancing.slow_start, draw))
        };
        let endpoint = within(first).or_else(|| within(then))?;
        let flight = Flight::begin(endpoint, now, ejection.is_some());
        if flight.is_probe() {
            self.out(now + PROBE_MILLIS);
        }
        Some(flight)
    }

    /// What stands for an endpoint in cookies.
    pub(super) fn name(&self, backend: &str, address: SocketAddr) -> Option<Box<str>> {
        let members = self.members.load();
        members.endpoints.iter().find(|endpoint| endpoint.address() == address).map(|endpoint| endpoint.name(backend).into())
    }

    pub(super) fn has_name(&self, backend: &str, name: &str) -> bool {
        self.members.load().endpoints.iter().any(|endpoint| endpoint.name(backend) == name)
    }

    /// Where a key leads while all endpoints are well.
    pub(super) fn leads(&self, key: u64) -> Option<SocketAddr> {
        let members = self.members.load();
        Field::new(&members.endpoints, 0, None, false, &[]).by_key(key, None).map(|endpoint| endpoint.address())
    }

    /// A key for cookies that leads to this endpoint.
    pub(super) fn key_for(&self, address: SocketAddr, key_of: impl Fn(&str) -> u64) -> Option<String> {
        /// So many times as many tries as there are endpoints: in all but one of 10^8 cases one of them leads there.
        const PATIENCE: usize = 20;
        let members = self.members.load();
        let field = Field::new(&members.endpoints, 0, None, false, &[]);
        let keys = (0..members.endpoints.len() * PATIENCE).map(|_| format!("{:016x}{:016x}", random(), random()));
        let mut keys = keys.filter(|key| field.by_key(key_of(key), None).is_some_and(|found| found.address() == address));
        keys.next()
    }
}

impl Members {
    /// These endpoints, with what is known of those that were there before.
    fn replaced(&self, addresses: &[SocketAddr], preferred: usize, now: u64) -> Self {
        let known: HashMap<SocketAddr, &Arc<Endpoint>> =
            self.endpoints.iter().map(|endpoint| (endpoint.address(), endpoint)).collect();
        // Beside nobody, nobody is new.
        let since = if known.is_empty() { 0 } else { now.max(1) };
        let endpoints = addresses
            .iter()
            .map(|address| known.get(address).map_or_else(|| Arc::new(Endpoint::new(*address, since)), |known| Arc::clone(known)))
            .collect();
        Self { endpoints, preferred }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use penstock_model::{Affinity, AffinityCookie, AffinityMode, BackendLimits, Ejection};

    use super::*;

    fn balancing(method: Method) -> Balancing {
        let ejection = Ejection { failures: 1, time: Duration::from_secs(2), longest: Duration::from_secs(10), panic_percent: 50 };
        Balancing { method, affinity: None, slow_start: None, ejection: Some(ejection), limits: BackendLimits::default() }
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn state(ports: &[u16]) -> State {
        let state = State::default();
        state.set(ports.iter().map(|port| address(*port)));
        state
    }

    #[test]
    fn what_is_known_of_an_endpoint_outlives_a_change_of_the_others() {
        let state = state(&[1, 2]);
        let balancing = balancing(Method::RoundRobin);
        let ejection = balancing.ejection.clone().unwrap();
        let flight = state.choose("b", &balancing, &Wish::default(), &[address(2)], 1_000).unwrap();
        let until = flight.failed(1_000, &ejection, true).unwrap();
        state.out(until);
        state.set([address(3), address(1), address(4)].into_iter());
        let members = state.members.load();
        let one = members.endpoints.iter().find(|endpoint| endpoint.address() == address(1)).unwrap();
        assert_eq!((one.in_flight(), one.is_out(1_001)), (1, true));
        let seen: Vec<u16> = (0..8)
            .map(|_| state.choose("b", &balancing, &Wish::default(), &[], 1_001).unwrap().endpoint().address().port())
            .collect();
        assert!(seen.iter().all(|port| *port != 1), "{seen:?}");
        assert!(
            members
                .endpoints
                .iter()
                .all(|endpoint| (endpoint.warmth(1, Duration::from_secs(9)) < 1.0) == (endpoint.address() != address(1)))
        );
    }

    #[test]
    fn addresses_of_the_second_family_are_used_when_those_of_the_first_were_tried() {
        let state = State::default();
        let found: Vec<IpAddr> = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].iter().map(|ip| ip.parse().unwrap()).collect();
        state.resolved(&found, 80);
        let balancing = balancing(Method::LeastLoaded);
        let mut tried = Vec::new();
        while let Some(flight) = state.choose("b", &balancing, &Wish::default(), &tried, 1) {
            tried.push(flight.endpoint().address());
        }
        let families: Vec<bool> = tried.iter().map(SocketAddr::is_ipv6).collect();
        assert_eq!(families, [false, false, true]);
        let before = state.members.load_full();
        state.resolved(&found, 80);
        assert!(Arc::ptr_eq(&before, &state.members.load()), "the same answer changes nothing");
    }

    #[test]
    fn a_family_that_cannot_be_reached_is_not_tried_first() {
        let state = State::default();
        state.resolved(&["2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap()], 80);
        let balancing = balancing(Method::LeastLoaded);
        let choose = |now| state.choose("b", &balancing, &Wish::default(), &[], now).unwrap();
        let failed = choose(1_000);
        assert!(failed.endpoint().address().is_ipv6());
        state.out(failed.failed(1_000, balancing.ejection.as_ref().unwrap(), true).unwrap());
        assert!((0..5).all(|_| choose(1_001).endpoint().address().is_ipv4()));
        assert!(choose(3_000).endpoint().address().is_ipv6(), "when its time is over one request looks");
        assert!(choose(3_001).endpoint().address().is_ipv4(), "and no other until that is answered");
    }

    #[test]
    fn a_cookie_holds_its_endpoint_while_that_is_there() {
        let state = state(&[1, 2, 3]);
        let mut balancing = balancing(Method::RoundRobin);
        let cookie = AffinityCookie {
            name: "c".into(),
            path: "/".into(),
            domain: None,
            secure: false,
            same_site: None,
            max_age: None,
            expires: None,
        };
        balancing.affinity = Some(Affinity { mode: AffinityMode::Persistent, cookie, change_on_failure: false });
        let name = state.members.load().endpoints[1].name("b").to_owned();
        let wish = Wish { kept: Some(Kept::Name(name.into())), ..Wish::default() };
        let port = |balancing: &Balancing| state.choose("b", balancing, &wish, &[], 1).unwrap().endpoint().address().port();
        assert!((0..10).all(|_| port(&balancing) == 2));
        let ejection = balancing.ejection.clone().unwrap();
        state.out(state.choose("b", &balancing, &wish, &[], 1).unwrap().failed(1, &ejection, true).unwrap());
        assert!((0..10).all(|_| port(&balancing) == 2), "also while it fails");
        if let Some(affinity) = &mut balancing.affinity {
            affinity.change_on_failure = true;
        }
        assert!((0..10).all(|_| port(&balancing) != 2), "unless that is not wanted");
        state.set([address(1), address(3)].into_iter());
        assert!(state.choose("b", &balancing, &wish, &[], 1).is_some());
    }

    #[test]
    fn a_key_can_be_found_for_every_endpoint() {
        let state = state(&[1, 2, 3, 4, 5]);
        let key_of = |key: &str| {
            let mut hash = super::super::StableHash::new();
            hash.write(key.as_bytes());
            hash.finish()
        };
        for port in 1..=5 {
            let key = state.key_for(address(port), key_of).unwrap();
            let members = state.members.load();
            let field = Field::new(&members.endpoints, 0, None, false, &[]);
            assert_eq!(field.by_key(key_of(&key), None).unwrap().address(), address(port));
        }
        assert_eq!(state.key_for(address(9), key_of), None);
    }
}
