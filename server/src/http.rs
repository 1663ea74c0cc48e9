//! What is served on the public port: the gRPC services, and for people and machines that watch,
//! `/metrics`, `/livez`, `/readyz` and `/version`.

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;

/// Whether this process should be sent work; otherwise why not, one reason a line.
pub(crate) trait Readiness: Send + Sync {
    fn reasons_not_ready(&self) -> Vec<String>;
}

/// What the HTTP side answers from.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) registry: Arc<Registry>,
    pub(crate) readiness: Arc<dyn Readiness>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

/// The gRPC services with the HTTP endpoints beside them.
pub(crate) fn router(services: tonic::service::Routes, watched: Watched) -> axum::Router {
    let plain = axum::Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .with_state(watched);
    // The services bring a fallback that speaks gRPC only; ours tells the two apart.
    services.into_axum_router().reset_fallback().merge(plain).fallback(unknown)
}

async fn metrics(State(watched): State<Watched>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &watched.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(watched): State<Watched>) -> Response {
    let reasons = watched.readiness.reasons_not_ready();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n"))).into_response()
}

async fn version() -> Response {
    let body = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "protocol_min": proto::PROTOCOL_MIN,
        "protocol_max": proto::PROTOCOL_MAX,
        "data_format": crate::identity::FORMAT,
    });
    ([(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

async fn unknown(headers: HeaderMap, request: Request) -> Response {
    let grpc = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if grpc {
        let message = format!("this server has no method `{}`", request.uri().path());
        return tonic::Status::unimplemented(message).into_http::<Body>();
    }
    let hint = "not found; there are /metrics, /livez, /readyz and /version\n";
    let mut response = (StatusCode::NOT_FOUND, hint).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
