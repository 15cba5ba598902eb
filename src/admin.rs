//! The admin port: `/healthz`, `/readyz`, `/metrics`, `/debug/model`.
//!
//! It lives on the control side's threads, so that a slow scrape never delays a request. Nothing it serves holds a private key.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use penstock_proxy::DataPlane;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use serde::Serialize;
use tokio::sync::watch;

use crate::{allocator, pipeline::Publication};

#[derive(Clone)]
struct Admin {
    plane: Arc<DataPlane>,
    more_metrics: Arc<Registry>,
    heap: Gauge,
    publications: watch::Receiver<Arc<Publication>>,
    ready: Arc<AtomicBool>,
}

/// Opens the port and serves it in the background.
pub fn serve(
    address: &str,
    plane: Arc<DataPlane>,
    mut more_metrics: Registry,
    publications: watch::Receiver<Arc<Publication>>,
    ready: Arc<AtomicBool>,
) -> anyhow::Result<SocketAddr> {
    let listener = penstock_proxy::bind(address, 1)?.listen()?.pop().context("no socket")?;
    let listener = tokio::net::TcpListener::from_std(listener).context("the admin port")?;
    let bound = listener.local_addr()?;
    let heap = Gauge::default();
    more_metrics.register(
        "penstock_heap_bytes",
        "Memory that is allocated and not freed; the process has more, as the allocator keeps some",
        heap.clone(),
    );
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/debug/model", get(model))
        .with_state(Admin { plane, more_metrics: Arc::new(more_metrics), heap, publications, ready });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the admin port ended");
        }
    });
    Ok(bound)
}

async fn readyz(State(admin): State<Admin>) -> Response {
    if admin.ready.load(Ordering::Relaxed) {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: no table yet, or draining\n").into_response()
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    admin.heap.set(allocator::in_use());
    let mut text = admin.plane.metrics().encode();
    // The mark of the end comes once, after both.
    text.truncate(text.trim_end().trim_end_matches("# EOF").len());
    let _ = prometheus_client::encoding::text::encode(&mut text, &admin.more_metrics);
    ([(header::CONTENT_TYPE, penstock_proxy::CONTENT_TYPE)], text).into_response()
}

#[derive(Serialize)]
struct Debug<'a> {
    generation: u64,
    model: &'a penstock_model::Model,
    endpoints: &'a std::collections::BTreeMap<penstock_model::ServicePort, Arc<penstock_model::EndpointSet>>,
    report: &'a penstock_translate::Report,
}

async fn model(State(admin): State<Admin>) -> Response {
    let publication = admin.publications.borrow().clone();
    let translation = &publication.translation;
    let debug = Debug {
        generation: publication.generation,
        model: &translation.model,
        endpoints: &translation.endpoints,
        report: &translation.report,
    };
    match serde_saphyr::to_string(&debug) {
        Ok(yaml) => ([(header::CONTENT_TYPE, "application/yaml; charset=utf-8")], yaml).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
