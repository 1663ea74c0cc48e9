use std::sync::Mutex;

use rstest::rstest;
use tower::ServiceExt;

use super::*;

#[derive(Default)]
struct Reasons(Mutex<Vec<String>>);

impl Readiness for Reasons {
    fn reasons_not_ready(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn served(reasons: &[&str]) -> axum::Router {
    let mut registry = Registry::default();
    let counter: prometheus_client::metrics::counter::Counter = Default::default();
    counter.inc_by(3);
    registry.register("braid_things", "Things", counter);
    let readiness = Reasons(Mutex::new(reasons.iter().map(|r| (*r).to_owned()).collect()));
    let watched = Watched { registry: Arc::new(registry), readiness: Arc::new(readiness) };
    router(tonic::service::Routes::default(), watched)
}

async fn ask(router: axum::Router, request: Request) -> (StatusCode, HeaderMap, String) {
    let response = router.oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, headers, String::from_utf8(body.to_vec()).unwrap())
}

fn request(path: &str) -> Request {
    Request::get(path).body(Body::empty()).unwrap()
}

#[rstest]
#[case("/livez", 200, "alive")]
#[case("/readyz", 200, "ready")]
#[case("/metrics", 200, "braid_things_total 3")]
#[case("/version", 200, "\"protocol_max\":1")]
#[case("/elsewhere", 404, "/metrics")]
#[tokio::test]
async fn each_path_answers(#[case] path: &str, #[case] status: u16, #[case] part: &str) {
    let (found, _, body) = ask(served(&[]), request(path)).await;
    assert_eq!(found.as_u16(), status);
    assert!(body.contains(part), "{body}");
}

#[tokio::test]
async fn an_unready_node_says_why_and_is_alive() {
    let reasons = ["the log has been stalled for 12s", "group 3 has no leader"];
    let (status, _, body) = ask(served(&reasons), request("/readyz")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, "the log has been stalled for 12s\ngroup 3 has no leader\n");
    assert_eq!(ask(served(&reasons), request("/livez")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented_in_grpc() {
    let request = Request::post("/braid.v9.Controller/Fly")
        .header("content-type", "application/grpc+proto")
        .body(Body::empty())
        .unwrap();
    let (status, headers, _) = ask(served(&[]), request).await;
    assert_eq!((status, headers["grpc-status"].as_bytes()), (StatusCode::OK, &b"12"[..]));
}
