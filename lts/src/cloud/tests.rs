//! What only a remote store can suffer.

use super::*;
use crate::StoreUrl;
use crate::test_s3::{S3Server, credentials};
use crate::test_support::{path, payload};

fn open(server: &S3Server, url: &str, secret: &str) -> Cloud {
    let StoreUrl::Remote(url) = url.parse().unwrap() else { panic!("`{url}` is not remote") };
    Cloud::open(&url, &server.settings(), &credentials(secret)).unwrap()
}

#[tokio::test]
async fn objects_lie_under_the_prefix_and_what_is_not_ours_is_not_listed() {
    let server = S3Server::start().await;
    let bucket = open(&server, "s3://bucket/some/where", crate::test_s3::SECRET);
    bucket.put(&path("a/b"), payload("ours")).await.unwrap();
    assert_eq!(std::fs::read(server.files().join("some/where/a/b")).unwrap(), b"ours");
    std::fs::write(server.files().join("some/where/Not Ours"), b"x").unwrap();
    std::fs::create_dir(server.files().join("some/whereabouts")).unwrap();
    std::fs::write(server.files().join("some/whereabouts/c"), b"x").unwrap();
    let page = bucket.list("", None, 10).await.unwrap();
    assert_eq!(page.objects.len(), 1);
    assert_eq!(page.objects[0].path, path("a/b"));
}

#[tokio::test]
async fn wrong_credentials_are_denied_and_a_missing_bucket_is_a_wrong_setting() {
    let server = S3Server::start().await;
    let denied = open(&server, "s3://bucket", "wrong");
    let missing = open(&server, "s3://nobucket", crate::test_s3::SECRET);
    for (bucket, kind) in [(&denied, ErrorKind::Denied), (&missing, ErrorKind::Unsupported)] {
        let error = bucket.list("", None, 10).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(&bucket.url()), "{error}");
    }
    let error = denied.put(&path("a"), payload("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable() {
    let server = S3Server::start().await;
    let bucket = open(&server, "s3://bucket", crate::test_s3::SECRET);
    bucket.put(&path("a"), payload("a")).await.unwrap();
    server.stop().await;
    for error in [
        bucket.get(&path("a"), 0..1).await.map(drop).unwrap_err(),
        bucket.put(&path("b"), payload("b")).await.unwrap_err(),
        bucket.delete(&[path("a")]).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

#[tokio::test]
async fn every_provider_is_set_up_by_the_same_settings() {
    let closed = "http://127.0.0.1:9";
    let settings = Settings {
        endpoint: closed.to_owned(),
        account: "account".to_owned(),
        ..Settings::default()
    };
    let gcs = r#"{"private_key":"","private_key_id":"","client_email":"","disable_oauth":true}"#;
    let variables = [
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("GOOGLE_SERVICE_ACCOUNT_KEY", gcs),
        ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0"),
    ];
    let environment =
        Environment::new(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    for url in ["s3://bucket/p", "gs://bucket/p", "az://bucket/p"] {
        let StoreUrl::Remote(remote) = url.parse().unwrap() else { panic!("`{url}`") };
        let bucket = Cloud::open(&remote, &settings, &environment).unwrap();
        assert_eq!(bucket.url(), url);
        let error = bucket.put(&path("a"), payload("a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("127.0.0.1:9"), "{error}");
    }
}

#[test]
fn a_bucket_in_the_name_of_the_host_goes_before_the_endpoint() {
    let StoreUrl::Remote(url) = "s3://bucket/p".parse().unwrap() else { panic!() };
    let endpoint = "https://store.example/".to_owned();
    let mut settings = Settings { endpoint, ..Settings::default() };
    assert_eq!(s3_endpoint(&url, &settings), "https://store.example");
    settings.path_style = false;
    assert_eq!(s3_endpoint(&url, &settings), "https://bucket.store.example");
}

#[test]
fn what_is_missing_for_a_provider_is_said_at_once() {
    let StoreUrl::Remote(url) = "az://container".parse().unwrap() else { panic!() };
    let error = Cloud::open(&url, &Settings::default(), &Environment::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("Account"), "{error}");
}
