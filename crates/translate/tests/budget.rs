//! What a route may take of the heap: the object as it is kept, what it was found to say, and the model. In a process of its own, whose
//! allocator counts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "an allocator is not to be had without; it hands everything on as it came")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicI64, Ordering::Relaxed},
};

use penstock_api::ProxyRoute;
use penstock_translate::{AddressGuard, Id, Object, Ownership, Settings, Translator, World, kept};

struct Counting;

static LIVE: AtomicI64 = AtomicI64::new(0);

// SAFETY: each call goes to the system's allocator with what the caller gave, whose duties are the same.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as i64, Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUTES: i64 = 2000;
/// It takes some 2 020, and 1 200 more where objects keep the room that parsing left.
const MOST_BYTES: i64 = 2600;

fn settings() -> Settings {
    Settings {
        ownership: Ownership::Everything,
        allow_external_backends: true,
        guard: AddressGuard::default(),
        default_certificate: None,
        namespaces: Vec::new(),
    }
}

#[test]
fn a_route_of_one_rule_takes_little_of_the_heap() {
    let (mut world, mut translator) = (World::default(), Translator::new(settings()));
    let before = LIVE.load(Relaxed);
    let put = |world: &mut World, number: i64| -> Id {
        let text = format!(
            r#"{{"apiVersion": "penstock.dev/v1alpha1", "kind": "ProxyRoute", "metadata": {{"namespace": "n", "name": "r{number}"}},
                "spec": {{"hosts": ["r{number}.example.com"], "rules": [
                    {{"backends": [{{"url": "http://192.0.2.1:8080"}}], "websocket": {{"idleTimeout": "3600s"}}}}]}}}}"#
        );
        let route: ProxyRoute = serde_json::from_str(&text).unwrap();
        world.put(Object::ProxyRoute(kept(&route))).unwrap()
    };
    let changes: Vec<Id> = (0..ROUTES).map(|number| put(&mut world, number)).collect();
    let mut translation = translator.apply(&world, &changes);
    drop(changes);
    translation.changes = std::sync::Arc::default();
    assert_eq!(translation.model.hosts.len() as i64, ROUTES);
    let each = (LIVE.load(Relaxed) - before) / ROUTES;
    println!("{each} bytes a route");
    assert!(each < MOST_BYTES, "a route takes {each} bytes, more than {MOST_BYTES}");
}
