//! Which endpoint a request goes to, and whether to another after that: through the whole data plane, with real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use penstock_model::{
    Action, Affinity, AffinityCookie, AffinityMode, BackendKey, BackendLimits, Ejection, Endpoint, EndpointSet, Hash, HashPart,
    Method, Model, Origin, Protocol, Retries, RetryOn, Route, ServicePort, WeightedBackend,
};
use support::{GET, PATIENCE, Proxy, backend, get, met, model, read_head, route, saying, start, status};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Semaphore, mpsc},
};

/// For what must not end while a test runs.
const LONG: Duration = Duration::from_hours(1);

fn service(name: &str) -> ServicePort {
    ServicePort { namespace: "ns".into(), name: name.into(), port: "80".into() }
}

/// A route to the Service `web` without ejection and without slow start, in turns.
fn to_web(path: &str) -> Route {
    to_service(path, "web")
}

fn to_service(path: &str, name: &str) -> Route {
    let mut made = route(path, "127.0.0.1:1".parse().unwrap());
    let key = BackendKey { origin: Origin::Service(service(name)), protocol: Protocol::Http1, tls: None };
    if let Action::Forward(forward) = &mut *made.action {
        forward.backends = vec![WeightedBackend { backend: key, weight: 1 }];
    }
    made.policies.balancing.method = Method::RoundRobin;
    made
}

fn web(addresses: &[SocketAddr]) -> BTreeMap<ServicePort, Arc<EndpointSet>> {
    of_service("web", addresses)
}

fn of_service(name: &str, addresses: &[SocketAddr]) -> BTreeMap<ServicePort, Arc<EndpointSet>> {
    let endpoints = addresses.iter().map(|address| Endpoint { address: *address }).collect();
    [(service(name), Arc::new(EndpointSet { endpoints }))].into()
}

fn serving(route: Route, addresses: &[SocketAddr]) -> Proxy {
    let proxy = start(&Arc::new(Model::default()));
    proxy.plane.publish(&model(vec![route]), &web(addresses));
    proxy
}

/// A backend whose status can be changed, and how many requests it had.
#[derive(Clone)]
struct Scripted {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    hits: Arc<AtomicUsize>,
}

impl Scripted {
    async fn start(text: &'static str, status: u16) -> Self {
        let (status, hits) = (Arc::new(AtomicU16::new(status)), Arc::new(AtomicUsize::new(0)));
        let (given, counted) = (status.clone(), hits.clone());
        let address = backend(move |mut stream| {
            let (status, hits) = (given.clone(), counted.clone());
            async move {
                // One request a connection: bodies need not be told from heads.
                let _ = read_head(&mut stream).await;
                hits.fetch_add(1, SeqCst);
                let status = status.load(SeqCst);
                let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        Self { address, status, hits }
    }

    fn hits(&self) -> usize {
        self.hits.load(SeqCst)
    }
}

fn ejection(time: Duration) -> Option<Ejection> {
    Some(Ejection { failures: 1, time, longest: time, panic_percent: 50 })
}

fn again(attempts: u32, on: RetryOn) -> Retries {
    Retries { attempts: Some(attempts), per_try: None, within: None, on, non_idempotent: false }
}

/// Asks with this field, and gives the cookie that is set and the body.
async fn ask(proxy: &Proxy, field: &str) -> (Option<String>, String) {
    let (head, body) = get(proxy, &format!("GET / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut cookies = head.lines().filter_map(|line| line.strip_prefix("Set-Cookie: "));
    (cookies.next().map(ToOwned::to_owned), body)
}

fn affinity(mode: AffinityMode) -> Option<Affinity> {
    let cookie = AffinityCookie {
        name: "sid".into(),
        path: "/".into(),
        domain: None,
        secure: false,
        same_site: None,
        max_age: Some(60),
        expires: None,
    };
    Some(Affinity { mode, cookie, change_on_failure: true })
}

#[tokio::test]
async fn a_faster_endpoint_gets_most_of_the_requests() {
    let (fast, slow) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut addresses = Vec::new();
    for (count, delay) in [(&fast, Duration::ZERO), (&slow, Duration::from_millis(200))] {
        let count = count.clone();
        addresses.push(
            backend(move |mut stream| {
                let count = count.clone();
                async move {
                    let _ = read_head(&mut stream).await;
                    count.fetch_add(1, SeqCst);
                    // That is what makes it slow.
                    tokio::time::sleep(delay).await;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
                }
            })
            .await,
        );
    }
    let mut made = to_web("/");
    made.policies.balancing.method = Method::LeastLoaded;
    let proxy = serving(made, &addresses);
    for _ in 0..30 {
        tokio::join!(get(&proxy, GET), get(&proxy, GET));
    }
    let (fast, slow) = (fast.load(SeqCst), slow.load(SeqCst));
    assert_eq!(fast + slow, 60);
    assert!(slow >= 1 && fast >= 4 * slow, "fast {fast}, slow {slow}");
}

#[tokio::test]
async fn requests_with_one_key_stay_at_one_endpoint_while_that_is_there() {
    let (one, two, three) = (saying("one").await, saying("two").await, saying("three").await);
    let all = [("one", one), ("two", two), ("three", three)];
    let mut made = to_web("/");
    made.policies.balancing.method = Method::Hash(Hash { key: vec![HashPart::Header("x-user".into())], load_factor: None });
    let proxy = serving(made, &[one, two, three]);
    let mut homes = BTreeMap::new();
    // As many as leave no endpoint without a user, whatever the ports: of 60, in one of ten thousand million runs.
    for user in 0..60 {
        let field = format!("X-User: {user}\r\n");
        let (_, home) = ask(&proxy, &field).await;
        for _ in 0..3 {
            assert_eq!(ask(&proxy, &field).await.1, home);
        }
        homes.insert(field, home);
    }
    assert!(all.iter().all(|(text, _)| homes.values().any(|home| home == text)), "all are used: {homes:?}");
    let rest: Vec<SocketAddr> = all.iter().filter(|(text, _)| *text != "two").map(|(_, address)| *address).collect();
    proxy.plane.set_endpoints(&web(&rest));
    for (field, home) in &homes {
        let now = ask(&proxy, field).await.1;
        assert!(now == *home || home == "two", "{field} moved from {home} to {now}");
    }
    proxy.plane.set_endpoints(&web(&[one, two, three]));
    for (field, home) in &homes {
        assert_eq!(ask(&proxy, field).await.1, *home, "who moved comes back");
    }
}

#[tokio::test]
async fn a_client_keeps_its_endpoint_by_a_cookie_that_tells_nothing() {
    let (one, two, three) = (saying("one").await, saying("two").await, saying("three").await);
    let all = [("one", one), ("two", two), ("three", three)];
    let mut made = to_web("/");
    made.policies.balancing.affinity = affinity(AffinityMode::Persistent);
    let proxy = serving(made.clone(), &[one, two, three]);
    let (cookie, home) = ask(&proxy, "").await;
    let cookie = cookie.expect("a cookie is set");
    assert!(cookie.ends_with("; Max-Age=60; Path=/; HttpOnly"), "{cookie}");
    // Its digits are random ones: three of the address may stand there, a dot or all of its bytes may not.
    assert!(!cookie.contains("127.") && !cookie.contains("7f000001"), "{cookie}");
    let pair = cookie.split(';').next().unwrap().to_owned();
    let field = format!("Cookie: other=1; {pair}\r\n");
    for _ in 0..6 {
        assert_eq!(ask(&proxy, &field).await, (None, home.clone()), "no other, and no cookie again");
    }
    let at = all.iter().find(|(text, _)| *text == home).unwrap().1;
    // Another table, and another endpoint beside it.
    let four = saying("four").await;
    proxy.plane.publish(&model(vec![made, to_web("/other")]), &web(&[four, one, two, three]));
    assert_eq!(ask(&proxy, &field).await, (None, home.clone()));
    let rest: Vec<SocketAddr> = [one, two, three].into_iter().filter(|address| *address != at).collect();
    proxy.plane.set_endpoints(&web(&rest));
    let (cookie, now) = ask(&proxy, &field).await;
    assert_ne!(now, home);
    let pair = cookie.expect("another cookie").split(';').next().unwrap().to_owned();
    assert_eq!(ask(&proxy, &format!("Cookie: {pair}\r\n")).await, (None, now));
}

#[tokio::test]
async fn a_cookie_outlasts_the_failures_of_its_endpoint_unless_it_is_to_change() {
    let moody = Scripted::start("moody", 200).await;
    let addresses = [moody.address, saying("one").await, saying("two").await];
    for mode in [AffinityMode::Persistent, AffinityMode::Balanced] {
        let mut made = to_web("/");
        made.policies.balancing.affinity = affinity(mode).map(|made| Affinity { change_on_failure: false, ..made });
        made.policies.balancing.ejection = ejection(LONG);
        moody.status.store(200, SeqCst);
        let proxy = serving(made.clone(), &addresses);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let cookie = loop {
            assert!(tokio::time::Instant::now() < deadline, "no client came to the first endpoint");
            match ask(&proxy, "").await {
                (Some(cookie), body) if body == "moody" => break cookie,
                _ => {}
            }
        };
        let field = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
        let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n");
        moody.status.store(503, SeqCst);
        for _ in 0..3 {
            assert_eq!(status(&proxy, &request).await, 503, "{mode:?}: the client stays");
        }
        made.policies.balancing.affinity = affinity(mode);
        proxy.plane.publish(&model(vec![made]), &web(&addresses));
        let (cookie, home) = ask(&proxy, &field).await;
        assert_ne!(home, "moody");
        let field = format!("Cookie: {}\r\n", cookie.expect("another cookie").split(';').next().unwrap());
        for _ in 0..3 {
            assert_eq!(ask(&proxy, &field).await, (None, home.clone()), "{mode:?}");
        }
    }
}

#[tokio::test]
async fn a_cookie_of_ingress_nginx_is_a_key_like_any_other() {
    let addresses = [saying("one").await, saying("two").await, saying("three").await];
    let mut made = to_web("/");
    made.policies.balancing.affinity = affinity(AffinityMode::Balanced);
    let proxy = serving(made, &addresses);
    for value in ["garbage", "a|b", "1727.3.99.1|d41d8cd98f00b204e9800998ecf8427e"] {
        let field = format!("Cookie: sid={value}\r\n");
        let (cookie, home) = ask(&proxy, &field).await;
        assert_eq!(cookie, None, "{value}");
        for _ in 0..4 {
            assert_eq!(ask(&proxy, &field).await.1, home);
        }
    }
    let (cookie, home) = ask(&proxy, "").await;
    let pair = cookie.expect("one is set").split(';').next().unwrap().to_owned();
    for _ in 0..4 {
        assert_eq!(ask(&proxy, &format!("Cookie: {pair}\r\n")).await, (None, home.clone()));
    }
}

#[tokio::test]
async fn a_cookie_leads_back_to_its_backend_whatever_the_weights() {
    let (one, two) = (saying("one").await, saying("two").await);
    let mut made = to_web("/");
    if let (Action::Forward(forward), Action::Forward(other)) = (&mut *made.action, &*to_service("/", "canary").action) {
        forward.backends.extend(other.backends.iter().cloned());
    }
    made.policies.balancing.affinity = affinity(AffinityMode::Persistent);
    let proxy = start(&Arc::new(Model::default()));
    let endpoints = web(&[one]).into_iter().chain(of_service("canary", &[two])).collect();
    proxy.plane.publish(&model(vec![made]), &endpoints);
    for _ in 0..4 {
        let (cookie, home) = ask(&proxy, "").await;
        let pair = cookie.expect("one is set").split(';').next().unwrap().to_owned();
        for _ in 0..6 {
            assert_eq!(ask(&proxy, &format!("Cookie: {pair}\r\n")).await, (None, home.clone()));
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_is_passed_over_also_in_another_table() {
    let failing = Scripted::start("failing", 503).await;
    let (one, two) = (saying("one").await, saying("two").await);
    let mut made = to_web("/");
    made.policies.balancing.ejection = ejection(LONG);
    let proxy = serving(made.clone(), &[failing.address, one, two]);
    while failing.hits() == 0 {
        get(&proxy, GET).await;
    }
    for _ in 0..6 {
        assert_eq!(status(&proxy, GET).await, 200);
    }
    proxy.plane.publish(&model(vec![made, to_web("/other")]), &web(&[failing.address, one, two]));
    let three = saying("three").await;
    proxy.plane.set_endpoints(&web(&[three, two, failing.address, one]));
    for _ in 0..8 {
        assert_eq!(status(&proxy, GET).await, 200);
    }
    assert_eq!(failing.hits(), 1);
    assert!(support::counted(&proxy, "penstock_upstream_ejections_total 1"));
    // The others went: nothing is gained by passing over the only one.
    proxy.plane.set_endpoints(&web(&[failing.address]));
    assert_eq!(status(&proxy, GET).await, 503);
    assert_eq!(failing.hits(), 2);
}

#[tokio::test]
async fn an_endpoint_that_is_well_again_comes_back() {
    let failing = Scripted::start("back", 503).await;
    let (one, two) = (saying("one").await, saying("two").await);
    let mut made = to_web("/");
    made.policies.balancing.ejection = ejection(Duration::from_millis(50));
    let proxy = serving(made, &[failing.address, one, two]);
    while failing.hits() == 0 {
        get(&proxy, GET).await;
    }
    failing.status.store(200, SeqCst);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while get(&proxy, GET).await.1 != "back" {
        assert!(tokio::time::Instant::now() < deadline, "it never came back");
    }
    let mut seen = 0;
    for _ in 0..9 {
        seen += usize::from(get(&proxy, GET).await.1 == "back");
    }
    assert_eq!(seen, 3, "it has its share");
}

#[tokio::test]
async fn a_503_is_sent_again_only_where_that_is_safe() {
    let failing = Scripted::start("failing", 503).await;
    let well = Scripted::start("well", 200).await;
    let mut made = to_web("/");
    made.policies.retries = again(2, RetryOn { statuses: vec![503], ..RetryOn::default() });
    let proxy = serving(made.clone(), &[failing.address, well.address]);
    for _ in 0..4 {
        assert_eq!(get(&proxy, GET).await.1, "well");
    }
    assert_eq!((failing.hits(), well.hits()), (2, 4));
    let mut statuses = Vec::new();
    for body in ["0\r\n\r\n", "1\r\n\r\nx"] {
        for _ in 0..2 {
            statuses.push(status(&proxy, &format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {body}")).await);
        }
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503, 503], "a POST is not idempotent");
    assert_eq!(failing.hits() + well.hits(), 10);
    made.policies.retries.non_idempotent = true;
    proxy.plane.publish(&model(vec![made]), &web(&[failing.address, well.address]));
    for _ in 0..2 {
        assert_eq!(status(&proxy, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n").await, 200);
    }
    let mut statuses = Vec::new();
    for length in [1, 1, 64 * 1024 + 1, 64 * 1024 + 1] {
        let body = "x".repeat(length);
        statuses.push(status(&proxy, &format!("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n{body}")).await);
    }
    assert_eq!(statuses[..2], [200, 200], "a small body is kept");
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 503], "a larger one is gone when it was sent");
}

#[tokio::test]
async fn tries_end_at_their_number_and_go_on_at_the_same_endpoint_if_there_is_no_other() {
    let failing = Scripted::start("failing", 503).await;
    let mut made = to_web("/");
    made.policies.retries = again(3, RetryOn { statuses: vec![503], ..RetryOn::default() });
    let proxy = serving(made.clone(), &[failing.address]);
    assert_eq!(status(&proxy, GET).await, 503);
    assert_eq!(failing.hits(), 3);
    made.policies.retries.within = Some(Duration::ZERO);
    proxy.plane.publish(&model(vec![made]), &web(&[failing.address]));
    assert_eq!(status(&proxy, GET).await, 503);
    assert_eq!(failing.hits(), 4, "the time for it was over");
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_given_up_for_another() {
    let silent = backend(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let well = saying("well").await;
    let mut made = to_web("/");
    made.policies.retries = again(2, RetryOn { timeout: true, ..RetryOn::default() });
    made.policies.retries.per_try = Some(Duration::from_millis(100));
    let proxy = serving(made.clone(), &[silent, well]);
    for _ in 0..4 {
        assert_eq!(get(&proxy, GET).await.1, "well");
    }
    made.policies.retries.on.timeout = false;
    proxy.plane.publish(&model(vec![made]), &web(&[silent]));
    assert_eq!(status(&proxy, GET).await, 504);
}

#[tokio::test]
async fn a_route_that_wants_no_other_endpoint_gets_none() {
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let well = saying("well").await;
    let mut made = to_web("/");
    made.policies.retries = again(3, RetryOn::default());
    let proxy = serving(made, &[gone, well]);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(status(&proxy, GET).await);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502]);
}

/// Answers once it may, and tells of each request that came.
async fn holding() -> (SocketAddr, mpsc::UnboundedReceiver<()>, Arc<Semaphore>) {
    let (came, coming) = mpsc::unbounded_channel();
    let leave = Arc::new(Semaphore::new(0));
    let given = leave.clone();
    let address = backend(move |mut stream: TcpStream| {
        let (came, leave) = (came.clone(), given.clone());
        async move {
            let _ = read_head(&mut stream).await;
            let _ = came.send(());
            leave.acquire().await.unwrap().forget();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nheld").await;
        }
    })
    .await;
    (address, coming, leave)
}

#[tokio::test]
async fn a_backend_that_has_all_it_may_have_answers_503_and_that_is_counted() {
    let (address, mut coming, leave) = holding().await;
    let mut made = to_web("/");
    made.policies.balancing.limits = BackendLimits { requests: Some(1), pending: 0 };
    let proxy = serving(made, &[address]);
    let over = async {
        coming.recv().await.unwrap();
        let (head, body) = get(&proxy, GET).await;
        assert!(head.starts_with("HTTP/1.1 503") && body.contains("as many requests as it may"), "{head}{body}");
        assert_eq!(met(&proxy, "backend_requests"), 1);
        leave.add_permits(1);
    };
    let ((head, _), ()) = tokio::join!(get(&proxy, GET), over);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    leave.add_permits(100);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while status(&proxy, GET).await != 200 {
        assert!(tokio::time::Instant::now() < deadline, "the place never came back");
    }
}

#[tokio::test]
async fn a_request_that_may_wait_is_served_when_another_is_over() {
    let (address, mut coming, leave) = holding().await;
    let mut made = to_web("/");
    made.policies.balancing.limits = BackendLimits { requests: Some(1), pending: 1 };
    // How long it may wait.
    made.policies.timeouts.connect = LONG;
    let proxy = serving(made, &[address]);
    let third = async {
        coming.recv().await.unwrap();
        // One of the other two waits, or will; the third is over its number as soon as it does.
        let (one, two) = tokio::join!(get(&proxy, GET), async {
            let deadline = tokio::time::Instant::now() + PATIENCE;
            while met(&proxy, "backend_requests") == 0 {
                assert!(tokio::time::Instant::now() < deadline, "nobody was turned away");
                tokio::task::yield_now().await;
            }
            leave.add_permits(2);
        });
        let () = two;
        one.0
    };
    let (first, second, third) = tokio::join!(get(&proxy, GET), get(&proxy, GET), third);
    let mut statuses = [&first.0, &second.0, &third].map(|head| head[9..12].to_owned());
    statuses.sort_unstable();
    assert_eq!(statuses, ["200", "200", "503"]);
}

#[tokio::test]
async fn who_leaves_while_waiting_for_a_place_leaves_it_to_others() {
    let (address, mut coming, leave) = holding().await;
    let mut made = to_web("/");
    made.policies.balancing.limits = BackendLimits { requests: Some(1), pending: 1 };
    made.policies.timeouts.connect = LONG;
    let proxy = serving(made, &[address]);
    let under_way = |count| {
        let in_flight = proxy.plane.metrics().requests_in_flight.clone();
        support::until("requests are not under way", move || in_flight.get() == count)
    };
    let rest = async {
        coming.recv().await.unwrap();
        let mut leaving = TcpStream::connect(proxy.http).await.unwrap();
        leaving.write_all(GET.as_bytes()).await.unwrap();
        under_way(2).await;
        drop(leaving);
        under_way(1).await;
        tokio::join!(get(&proxy, GET), async {
            under_way(2).await;
            leave.add_permits(2);
        })
        .0
    };
    let (first, last) = tokio::join!(get(&proxy, GET), rest);
    assert!(first.0.starts_with("HTTP/1.1 200") && last.0.starts_with("HTTP/1.1 200"), "{} {}", first.0, last.0);
}

#[tokio::test]
async fn a_tunnel_is_a_request_until_it_ends() {
    let address = backend(tunnel_or_answer).await;
    let mut made = to_web("/");
    made.policies.balancing.limits = BackendLimits { requests: Some(1), pending: 0 };
    let proxy = serving(made, &[address]);
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(support::UPGRADE.as_bytes()).await.unwrap();
    let (head, _) = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(status(&proxy, GET).await, 503);
    drop(client);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while status(&proxy, GET).await == 503 {
        assert!(tokio::time::Instant::now() < deadline, "the place never came back");
    }
}

/// Opens a tunnel where one is asked for, and answers other requests.
async fn tunnel_or_answer(mut stream: TcpStream) {
    let (head, _) = read_head(&mut stream).await;
    if !head.contains("dGhlIHNhbXBsZSBub25jZQ==") {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        return;
    }
    let answer =
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    stream.write_all(answer.as_bytes()).await.unwrap();
    let _ = stream.read(&mut [0]).await;
}
