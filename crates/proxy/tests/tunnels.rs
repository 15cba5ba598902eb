//! Tunnels through the whole data plane in process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use penstock_model::{Action, BackendKey, Endpoint, EndpointSet, Model, Origin, Protocol, ServicePort, WeightedBackend};
use penstock_proxy::TunnelEnd;
use support::{
    PATIENCE, UPGRADE, backend, echo, echo_upgraded, get, http2, model, open_websocket, read_exactly, read_head, route, start,
    start_with, until, until_nobody_is_let_in,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
};

#[tokio::test]
async fn promise_2_a_tunnel_outlives_its_endpoint_its_policy_and_a_hundred_tables() {
    let address = backend(echo_upgraded).await;
    let port = ServicePort { namespace: "ns".into(), name: "ws".into(), port: "80".into() };
    let mut to_service = route("/", address);
    let Action::Forward(forward) = &mut *to_service.action else { unreachable!() };
    let key = BackendKey { origin: Origin::Service(port.clone()), protocol: Protocol::Http1, tls: None };
    forward.backends = vec![WeightedBackend { backend: key, weight: 1 }];
    let endpoints: BTreeMap<_, _> = [(port, Arc::new(EndpointSet { endpoints: vec![Endpoint { address }] }))].into();
    let original = model(vec![to_service.clone()]);
    let proxy = start(&Arc::new(Model::default()));
    proxy.plane.publish(&original, &endpoints);
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(open_websocket(&proxy).await);
    }
    to_service.policies.websocket.enabled = false;
    to_service.policies.websocket.idle_timeout = Some(Duration::from_millis(1));
    let forbidden = model(vec![to_service]);
    for round in 0..100 {
        match round % 4 {
            0 => proxy.plane.set_endpoints(&BTreeMap::new()),
            1 => drop(proxy.plane.publish(&forbidden, &endpoints)),
            2 => drop(proxy.plane.publish(&Arc::new(Model::default()), &BTreeMap::new())),
            _ => drop(proxy.plane.publish(&original, &endpoints)),
        }
        let client = round % clients.len();
        echo(&mut clients[client], &format!("message {round}")).await;
    }
    assert_eq!(proxy.plane.metrics().tunnels_open.get(), 20);
    drop(clients);
    until("tunnels stay", || proxy.plane.metrics().tunnels_open.get() == 0).await;
    assert_eq!(proxy.plane.metrics().tunnels_ended.get(TunnelEnd::Client), 20);
}

#[tokio::test]
async fn a_websocket_over_tls_that_ends_without_a_goodbye_ends_in_good_order_for_its_backend() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let address = backend(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut got = support::accept_websocket(&mut stream).await;
            let ended = stream.read_to_end(&mut got).await;
            let _ = tell.send((got.len(), ended.is_ok()));
        }
    })
    .await;
    let proxy = start(&model(vec![route("/", address)]));
    let mut client = http2::connect(proxy.https, "a.test", &[b"http/1.1"]).await;
    client.write_all(UPGRADE.as_bytes()).await.unwrap();
    assert!(read_head(&mut client).await.0.starts_with("HTTP/1.1 101"));
    client.write_all(b"\x81\x80\0\0\0\0").await.unwrap();
    client.flush().await.unwrap();
    // The socket is closed, and TLS says nothing.
    drop(client);
    assert_eq!(tokio::time::timeout(PATIENCE, told.recv()).await.unwrap(), Some((6, true)));
    until("the tunnel stays", || proxy.plane.metrics().tunnels_open.get() == 0).await;
    assert_eq!(proxy.plane.metrics().tunnels_ended.get(TunnelEnd::Client), 1);
}

#[tokio::test]
async fn promise_4_nothing_is_read_for_a_writer_that_is_blocked() {
    let (sent, mut progress) = watch::channel(0_usize);
    let flood = backend(move |mut stream| {
        let sent = sent.clone();
        async move {
            let _ = read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: raw\r\nConnection: Upgrade\r\n\r\n").await.unwrap();
            let block = vec![7; 64 * 1024];
            for _ in 0..2000 {
                if stream.write_all(&block).await.is_err() {
                    return;
                }
                sent.send_modify(|count| *count += block.len());
            }
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let proxy = start(&model(vec![route("/", flood)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n").await.unwrap();
    let (_, early) = read_head(&mut client).await;
    // Nobody reads: what the backend can send is what sockets hold, far below the 125 MiB it has.
    let mut last = 0;
    while let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(500), progress.changed()).await {
        last = *progress.borrow_and_update();
    }
    assert!(last < 64 << 20, "{last} bytes went somewhere");
    let mut total = early.len();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = tokio::time::timeout(PATIENCE, client.read(&mut buffer)).await.expect("stuck").unwrap();
        if read == 0 {
            break;
        }
        assert!(buffer[..read].iter().all(|byte| *byte == 7));
        total += read;
    }
    assert_eq!(total, 2000 * 64 * 1024);
}

#[tokio::test]
async fn promise_5_bytes_that_came_with_the_client_s_head_go_first() {
    let proxy = start(&model(vec![route("/", backend(echo_upgraded).await)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    let early = b"\x81\x82\0\0\0\0hi";
    client.write_all(&[UPGRADE.as_bytes(), early].concat()).await.unwrap();
    let (head, rest) = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(read_exactly(&mut client, rest, 15).await, b"\x81\x05hello\x81\x82\0\0\0\0hi");
}

#[tokio::test]
async fn an_unasked_101_is_a_502_and_a_switched_off_upgrade_a_403() {
    let eager = backend(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n").await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let mut off = route("/off", eager);
    off.policies.websocket.enabled = false;
    let proxy = start(&model(vec![route("/", eager), off]));
    let (head, _) = get(&proxy, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 502"), "{head}");
    let (head, _) = get(&proxy, &UPGRADE.replace("/ws", "/off")).await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
}

#[tokio::test]
async fn an_idle_tunnel_is_ended_by_its_own_limit_alone() {
    // Longer than a full machine stands still, and many times the limits of requests.
    let limit = Duration::from_secs(8);
    let address = backend(echo_upgraded).await;
    let mut short = route("/", address);
    short.policies.timeouts.read = Some(Duration::from_millis(200));
    short.policies.timeouts.send = Some(Duration::from_millis(200));
    short.policies.timeouts.request = Some(Duration::from_millis(500));
    short.policies.websocket.idle_timeout = Some(limit);
    let proxy = start(&model(vec![short]));
    let mut busy = open_websocket(&proxy).await;
    let began = tokio::time::Instant::now();
    let mut idle = open_websocket(&proxy).await;
    let ended = tokio::spawn(async move {
        let _ = tokio::time::timeout(PATIENCE, idle.read_to_end(&mut Vec::new())).await.expect("never ended");
        began.elapsed()
    });
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    while !ended.is_finished() {
        echo(&mut busy, "still here").await;
        pace.tick().await;
    }
    let after = ended.await.unwrap();
    assert!(after >= limit.mul_f64(0.9), "{after:?}: a limit of requests was applied");
    assert_eq!(proxy.plane.metrics().tunnels_ended.get(TunnelEnd::Idle), 1);
    echo(&mut busy, "and still").await;
}

#[tokio::test]
async fn promise_11_a_frame_under_way_is_finished_before_the_close_and_nothing_goes_after_it() {
    let (sender, mut seen) = mpsc::channel(1);
    let (finish, finished) = watch::channel(false);
    let halting = backend(move |mut stream| {
        let (sender, mut finished) = (sender.clone(), finished.clone());
        async move {
            let _ = read_head(&mut stream).await;
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x06abc";
            stream.write_all(answer).await.unwrap();
            finished.wait_for(|finished| *finished).await.unwrap();
            // The rest of the frame, and another one that must not arrive after the Close.
            stream.write_all(b"def\x81\x03xyz").await.unwrap();
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            sender.send(all).await.unwrap();
        }
    })
    .await;
    let proxy = start_with(&model(vec![route("/", halting)]), Duration::from_secs(20));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(UPGRADE.as_bytes()).await.unwrap();
    let (_, early) = read_head(&mut client).await;
    let early = read_exactly(&mut client, early, 5).await;
    assert_eq!(early, b"\x81\x06abc");
    let plane = proxy.plane.clone();
    let drain = tokio::spawn(async move { plane.drain().await });
    // The tunnel was told once nobody is let in any more.
    until_nobody_is_let_in(proxy.http).await;
    finish.send_replace(true);
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, client.read_to_end(&mut rest)).await.expect("never ended").unwrap();
    let mut expected = b"def".to_vec();
    expected.extend([0x88, 2, 0x03, 0xf4]);
    assert!(rest == expected || rest == b"def\x81\x03xyz\x88\x02\x03\xf4", "{rest:?}");
    let to_backend = tokio::time::timeout(PATIENCE, seen.recv()).await.unwrap().unwrap();
    assert_eq!(to_backend.len(), 8, "a masked Close and nothing else: {to_backend:?}");
    assert_eq!(&to_backend[..2], [0x88, 0x82]);
    let mask = &to_backend[2..6];
    assert_eq!([to_backend[6] ^ mask[0], to_backend[7] ^ mask[1]], 1012_u16.to_be_bytes());
    let report = tokio::time::timeout(PATIENCE, drain).await.unwrap().unwrap();
    assert_eq!((report.tunnels_closed, report.tunnels_cut), (1, 0), "{report}");
}

#[tokio::test]
async fn promise_11_tunnels_are_ended_spread_over_the_grace_period() {
    let proxy = start_with(&model(vec![route("/", backend(echo_upgraded).await)]), Duration::from_secs(20));
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(open_websocket(&proxy).await);
    }
    let plane = proxy.plane.clone();
    let drain = tokio::spawn(async move { plane.drain().await });
    let began = tokio::time::Instant::now();
    let mut ends = tokio::task::JoinSet::new();
    for mut client in clients {
        ends.spawn(async move {
            let close = read_exactly(&mut client, Vec::new(), 4).await;
            assert_eq!(close, [0x88, 2, 0x03, 0xf4]);
            client.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4]).await.unwrap();
            began.elapsed()
        });
    }
    let mut times = ends.join_all().await;
    times.sort_unstable();
    let spread = times[9].saturating_sub(times[0]);
    assert!(spread >= Duration::from_millis(500), "all at once: {times:?}");
    let report = tokio::time::timeout(PATIENCE, drain).await.unwrap().unwrap();
    assert_eq!((report.tunnels_closed, report.tunnels_cut), (10, 0), "{report}");
    assert!(report.took < Duration::from_secs(20), "{report}");
}

#[tokio::test]
async fn a_refused_upgrade_leaves_its_connection_usable() {
    let refusing = backend(|mut stream| async move {
        loop {
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n\r\n") {
                let mut chunk = [0; 1024];
                match stream.read(&mut chunk).await {
                    Ok(read) if read > 0 => bytes.extend_from_slice(&chunk[..read]),
                    _ => return,
                }
            }
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
        }
    })
    .await;
    let proxy = start(&model(vec![route("/", refusing)]));
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    for _ in 0..50 {
        client.write_all(UPGRADE.as_bytes()).await.unwrap();
        let (head, early) = read_head(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 403"), "{head}");
        assert_eq!(read_exactly(&mut client, early, 2).await, b"no");
    }
    assert_eq!(proxy.plane.metrics().tunnels_opened.get(), 0);
}
