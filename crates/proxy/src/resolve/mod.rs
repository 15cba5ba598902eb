//! Addresses outside the cluster: from a name to addresses ([`Resolver`]), and which addresses may be connected
//! ([`ExternalAddresses`]).
//!
//! One resolver serves the process. Its own thread asks and keeps; workers, each with a runtime of its own, read what is kept and
//! wait only for what is not, or no longer holds. It promises that a name which was resolved once stays so while DNS fails; only
//! the answer that there is no such name, or no address, ends that.

mod external;
mod hosts_file;
mod system;

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt, io,
    net::{IpAddr, UdpSocket},
    rc::Rc,
    sync::{Arc, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

pub use external::ExternalAddresses;

/// The addresses of a name: at least one, those of IPv4 first.
pub type Addresses = Arc<[IpAddr]>;

/// Why a name has no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("there is no address for `{0}`")]
    NotFound(Box<str>),
    #[error("`{name}` cannot be resolved: {reason}")]
    Failed { name: Box<str>, reason: Box<str> },
}

/// How long answers hold, and how long is waited for them.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// Answers hold at least this long: with a TTL of zero each connection would ask.
    floor: Duration,
    /// And at most this long, so that whoever mends a wrong record need not wait for its TTL of a day.
    ceiling: Duration,
    /// How long it is not asked again after a failure: each connection would, and wait for it.
    pause: Duration,
    /// How long after its end a good answer is taken while it is asked for anew, so that a name in steady use makes nobody wait.
    grace: Duration,
    /// How long a connection waits for a new answer before it takes the last good one after all.
    patience: Duration,
    /// How long a lookup may take. Below the default time to connect, so that the error names the cause.
    limit: Duration,
}

const TIMES: Times = Times {
    floor: Duration::from_secs(5),
    ceiling: Duration::from_mins(5),
    pause: Duration::from_secs(5),
    grace: Duration::from_secs(5),
    patience: Duration::from_secs(1),
    limit: Duration::from_millis(4500),
};

/// Names kept at most. Names come from routes; this bounds what is kept of routes that are gone.
const MOST_NAMES: usize = 10_000;

/// What a source of answers says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Addresses {
        addresses: Vec<IpAddr>,
        ttl: Duration,
    },
    /// There is no such name, or it has no address.
    Nothing,
    Failed(String),
}

/// A source of answers.
trait Lookup: 'static {
    fn lookup(&self, name: &str) -> impl Future<Output = Found>;
}

/// Resolves names. Clones share what is kept; the thread ends with the last of them.
#[derive(Clone)]
pub struct Resolver {
    kept: Arc<Kept>,
    questions: mpsc::UnboundedSender<Question>,
    times: Times,
}

#[derive(Default)]
struct Kept(RwLock<HashMap<Box<str>, Answer>>);

#[derive(Clone)]
struct Answer {
    /// The last good one, or why there is none.
    result: Result<Addresses, ResolveError>,
    fresh_until: Instant,
    /// The last lookup failed.
    failing: bool,
}

struct Question {
    name: Box<str>,
    reply: oneshot::Sender<Result<Addresses, ResolveError>>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    /// Asks as this machine is set up: `/etc/hosts`, then the servers and search list of `/etc/resolv.conf`; both are read again
    /// when they change.
    pub fn start() -> io::Result<Self> {
        Self::with(TIMES, system::System::default)
    }

    fn with<L: Lookup>(times: Times, source: impl FnOnce() -> L + Send + 'static) -> io::Result<Self> {
        let (questions, incoming) = mpsc::unbounded_channel();
        let kept = Arc::new(Kept::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = kept.clone();
        thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || tokio::task::LocalSet::new().block_on(&runtime, answer(source(), incoming, shared, times)))?;
        Ok(Self { kept, questions, times })
    }

    /// What is known of a name in small letters, where that needs nobody to be asked.
    pub fn known(&self, name: &str) -> Option<Result<Addresses, ResolveError>> {
        self.kept.get(name).filter(|answer| answer.fresh_until > Instant::now()).map(|answer| answer.result)
    }

    /// The addresses of a host: a DNS name, or an address, which stands for itself (an IPv6 one with or without brackets). Can be
    /// awaited on any runtime with time enabled.
    pub async fn resolve(&self, host: &str) -> Result<Addresses, ResolveError> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok([address.to_canonical()].into());
        }
        let name: Box<str> = host.to_ascii_lowercase().into();
        let now = Instant::now();
        let (last_good, at_once) = match self.kept.get(&name) {
            Some(answer) if answer.fresh_until > now => return answer.result,
            // While DNS fails, waiting for it again and again helps nobody.
            Some(Answer { result: Ok(addresses), fresh_until, failing }) => {
                (Some(addresses), failing || fresh_until + self.times.grace > now)
            }
            _ => (None, false),
        };
        let (reply, answered) = oneshot::channel();
        let gone = || ResolveError::Failed { name: name.clone(), reason: "the resolver ended".into() };
        if self.questions.send(Question { name: name.clone(), reply }).is_err() {
            return last_good.ok_or_else(gone);
        }
        match last_good {
            // The thread itself falls back to it when DNS fails; here is only how long to wait.
            Some(addresses) if at_once => Ok(addresses),
            Some(addresses) => match tokio::time::timeout(self.times.patience, answered).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) | Err(_) => Ok(addresses),
            },
            None => answered.await.unwrap_or_else(|_| Err(gone())),
        }
    }
}

impl Kept {
    fn get(&self, name: &str) -> Option<Answer> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn put(&self, name: Box<str>, answer: Answer) {
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST_NAMES && !kept.contains_key(&name) {
            let now = Instant::now();
            kept.retain(|_, answer| answer.fresh_until > now);
        }
        kept.insert(name, answer);
    }
}

type Waiting = Rc<RefCell<HashMap<Box<str>, Vec<oneshot::Sender<Result<Addresses, ResolveError>>>>>>;

/// Answers questions until nobody can ask any more. A name is asked for once at a time, however many wait.
async fn answer(source: impl Lookup, mut questions: mpsc::UnboundedReceiver<Question>, kept: Arc<Kept>, times: Times) {
    let source = Rc::new(source);
    let waiting = Waiting::default();
    while let Some(Question { name, reply }) = questions.recv().await {
        let mut all = waiting.borrow_mut();
        let of_name = all.entry(name.clone()).or_default();
        of_name.push(reply);
        if of_name.len() > 1 {
            continue;
        }
        drop(all);
        let (source, waiting, kept) = (source.clone(), waiting.clone(), kept.clone());
        tokio::task::spawn_local(async move {
            // Who asked while the answer before was on its way finds it kept.
            let result = match kept.get(&name) {
                Some(answer) if answer.fresh_until > Instant::now() => answer.result,
                before => {
                    let found = tokio::time::timeout(times.limit, source.lookup(&name)).await;
                    let found = found.unwrap_or_else(|_| Found::Failed("no answer in time".to_owned()));
                    let answer = settle(&name, found, before, times);
                    kept.put(name.clone(), answer.clone());
                    answer.result
                }
            };
            for reply in waiting.borrow_mut().remove(&name).unwrap_or_default() {
                let _ = reply.send(result.clone());
            }
        });
    }
}

/// What is kept after a lookup.
fn settle(name: &str, found: Found, before: Option<Answer>, times: Times) -> Answer {
    let failing = matches!(found, Found::Failed(_));
    let (result, holds) = match found {
        Found::Addresses { addresses, ttl } => {
            let addresses = usable(addresses);
            if addresses.is_empty() {
                (Err(ResolveError::NotFound(name.into())), times.pause)
            } else {
                (Ok(addresses.into()), ttl.clamp(times.floor, times.ceiling))
            }
        }
        Found::Nothing => (Err(ResolveError::NotFound(name.into())), times.pause),
        Found::Failed(reason) => match before {
            Some(Answer { result: Ok(addresses), failing: already, .. }) => {
                if !already {
                    tracing::warn!(%name, %reason, "a name cannot be resolved: its last addresses are used on");
                }
                (Ok(addresses), times.pause)
            }
            _ => (Err(ResolveError::Failed { name: name.into(), reason: reason.into() }), times.pause),
        },
    };
    tracing::debug!(%name, ?result, failing, "resolved");
    Answer { result, fresh_until: Instant::now() + holds, failing }
}

/// Without duplicates, those of IPv4 first, and without those to which this machine has no route, as long as there are others.
fn usable(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = addresses.into_iter().map(|address| address.to_canonical()).collect();
    all.sort_by_key(IpAddr::is_ipv6);
    let mut unique: Vec<IpAddr> = Vec::with_capacity(all.len());
    for address in all {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let reachable: Vec<IpAddr> = unique.iter().copied().filter(|address| has_route(*address)).collect();
    if reachable.is_empty() { unique } else { reachable }
}

/// Connecting a datagram socket sends nothing, but fails where the kernel knows no way.
fn has_route(address: IpAddr) -> bool {
    /// The discard service; any would do.
    const PORT: u16 = 9;
    let any: IpAddr =
        if address.is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, PORT))).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Gives the answers in turn, the last one for ever, and counts how often it was asked.
    #[derive(Clone, Default)]
    struct Script(Arc<Mutex<(Vec<Found>, usize)>>);

    impl Script {
        fn new(answers: &[Found]) -> Self {
            Self(Arc::new(Mutex::new((answers.to_vec(), 0))))
        }

        fn asked(&self) -> usize {
            self.0.lock().unwrap().1
        }
    }

    impl Lookup for Script {
        async fn lookup(&self, _name: &str) -> Found {
            let answer = {
                let mut script = self.0.lock().unwrap();
                let at = script.1.min(script.0.len().saturating_sub(1));
                script.1 += 1;
                script.0.get(at).cloned()
            };
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    }

    fn times() -> Times {
        Times { patience: Duration::from_secs(10), ..TIMES }
    }

    /// Nothing holds: each question is asked.
    fn at_once() -> Times {
        Times { floor: Duration::ZERO, ceiling: Duration::ZERO, pause: Duration::ZERO, grace: Duration::ZERO, ..times() }
    }

    fn found(addresses: &[&str], ttl: u64) -> Found {
        Found::Addresses {
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ttl: Duration::from_secs(ttl),
        }
    }

    fn resolver(times: Times, script: &Script) -> Resolver {
        let script = script.clone();
        Resolver::with(times, || script).unwrap()
    }

    fn addresses(result: Result<Addresses, ResolveError>) -> Vec<String> {
        result.unwrap().iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn an_address_stands_for_itself() {
        let script = Script::default();
        let resolver = resolver(times(), &script);
        for (host, expected) in [("192.0.2.1", "192.0.2.1"), ("::1", "::1"), ("[::1]", "::1"), ("[::ffff:192.0.2.1]", "192.0.2.1")]
        {
            assert_eq!(addresses(resolver.resolve(host).await), [expected]);
        }
        assert_eq!(script.asked(), 0);
    }

    #[tokio::test]
    async fn an_answer_is_kept_for_its_ttl_but_not_less_than_the_floor() {
        let script = Script::new(&[found(&["127.0.0.2"], 0)]);
        let resolver = resolver(times(), &script);
        for name in ["a.example", "A.example", "a.EXAMPLE"] {
            assert_eq!(addresses(resolver.resolve(name).await), ["127.0.0.2"]);
        }
        assert_eq!(script.asked(), 1);
        let kept = |ttl| settle("a", found(&["127.0.0.2"], ttl), None, TIMES).fresh_until - Instant::now();
        assert!(kept(60) <= Duration::from_mins(1) && kept(60) > Duration::from_secs(59));
        assert!(kept(86_400) <= TIMES.ceiling);
    }

    /// Asks until the answer is the expected one.
    async fn comes_to(resolver: &Resolver, expected: &Result<Addresses, ResolveError>) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let result = resolver.resolve("a.example").await;
            if result == *expected {
                return;
            }
            assert!(Instant::now() < deadline, "{result:?}");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_last_good_answer_is_kept_while_dns_fails() {
        let failed = Found::Failed("no server".to_owned());
        let script = Script::new(&[found(&["127.0.0.2"], 1), failed.clone(), failed, found(&["127.0.0.3"], 1), Found::Nothing]);
        let resolver = resolver(at_once(), &script);
        let mut seen = Vec::new();
        let end = loop {
            match resolver.resolve("a.example").await {
                Ok(addresses) => seen.push(addresses[0].to_string()),
                Err(error) => break error,
            }
        };
        assert_eq!(end, ResolveError::NotFound("a.example".into()));
        assert!(script.asked() >= 5);
        seen.dedup();
        assert_eq!(seen[0], "127.0.0.2");
        assert!(seen.len() == 1 || seen[1..] == ["127.0.0.3"], "{seen:?}");
    }

    fn keep(resolver: &Resolver, failing: bool) -> Addresses {
        let good: Addresses = [IpAddr::from([127, 0, 0, 2])].into();
        let answer = Answer { result: Ok(good.clone()), fresh_until: Instant::now(), failing };
        resolver.kept.put("a.example".into(), answer);
        good
    }

    #[tokio::test]
    async fn a_slow_dns_holds_nobody_up_who_can_take_the_last_good_answer() {
        let patient = Times { grace: Duration::ZERO, patience: Duration::from_millis(20), ..times() };
        let resolver = resolver(patient, &Script::new(&[]));
        let good = keep(&resolver, false);
        assert_eq!(resolver.resolve("a.example").await, Ok(good));
    }

    #[tokio::test]
    async fn just_after_its_end_or_while_dns_fails_an_answer_is_taken_without_waiting() {
        for (grace, failing) in [(Duration::from_mins(1), false), (Duration::ZERO, true)] {
            let never = Times { grace, patience: Duration::from_hours(1), limit: Duration::from_hours(1), ..times() };
            let silent = resolver(never, &Script::new(&[]));
            let good = keep(&silent, failing);
            assert_eq!(silent.resolve("a.example").await, Ok(good));

            let answering = resolver(never, &Script::new(&[found(&["127.0.0.3"], 60)]));
            assert_eq!(answering.resolve("a.example").await.map(|_| ()), Ok(()));
            keep(&answering, failing);
            comes_to(&answering, &Ok([IpAddr::from([127, 0, 0, 3])].into())).await;
        }
    }

    #[tokio::test]
    async fn a_failure_is_told_and_not_asked_for_again_at_once() {
        let script = Script::new(&[Found::Failed("no server".to_owned())]);
        let resolver = resolver(times(), &script);
        for _ in 0..3 {
            let error = resolver.resolve("a.example").await.unwrap_err();
            assert_eq!(error.to_string(), "`a.example` cannot be resolved: no server");
        }
        assert_eq!(script.asked(), 1);
    }

    #[tokio::test]
    async fn a_lookup_without_an_answer_ends() {
        let resolver = resolver(Times { limit: Duration::from_millis(20), ..times() }, &Script::new(&[]));
        let error = resolver.resolve("a.example").await.unwrap_err();
        assert!(error.to_string().contains("no answer in time"), "{error}");
    }

    #[tokio::test]
    async fn many_who_ask_at_once_make_one_question() {
        let script = Script::new(&[found(&["127.0.0.2"], 60)]);
        let resolver = resolver(times(), &script);
        let all = futures_join((0..50).map(|_| resolver.resolve("a.example"))).await;
        assert!(all.into_iter().all(|result| addresses(result) == ["127.0.0.2"]));
        assert_eq!(script.asked(), 1);
    }

    async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
        let mut futures: Vec<_> = futures.map(Box::pin).collect();
        let mut outputs = Vec::new();
        std::future::poll_fn(|context| {
            futures.retain_mut(|future| match future.as_mut().poll(context) {
                std::task::Poll::Ready(output) => {
                    outputs.push(output);
                    false
                }
                std::task::Poll::Pending => true,
            });
            if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        outputs
    }

    #[test]
    fn runtimes_come_and_go_and_the_resolver_stays() {
        let script = Script::new(&[found(&["127.0.0.2"], 0)]);
        let resolver = resolver(at_once(), &script);
        for _ in 0..3 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            assert_eq!(addresses(runtime.block_on(resolver.resolve("a.example"))), ["127.0.0.2"]);
        }
        assert_eq!(script.asked(), 3);
    }

    #[test]
    fn addresses_are_put_in_order() {
        let of = |list: &[&str]| usable(list.iter().map(|address| address.parse().unwrap()).collect());
        assert_eq!(
            of(&["127.0.0.2", "127.0.0.1", "127.0.0.2", "::ffff:127.0.0.1"]),
            ["127.0.0.2", "127.0.0.1"].map(|a| a.parse::<IpAddr>().unwrap())
        );
        // No machine has a way to this one: it is the network of documentation in a range that is never routed.
        let unreachable = "255.255.255.255";
        assert_eq!(of(&[unreachable]).len(), 1, "the only one is kept");
        assert_eq!(of(&[unreachable, "127.0.0.1"]).len(), 1);
    }
}
