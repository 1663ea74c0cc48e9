//! A bucket of S3, GCS or Azure, through `object_store`, which has its one importer here.
//!
//! That library's own retries and time limits are off: [`Bucket`] has none, and what is around it
//! knows better what an attempt may cost and how an open outcome is settled. Its multipart uploads
//! are not used, since they cannot create only what is not there. A request that competed with
//! another (409 of S3) arrives as `AlreadyExists`, as the laws allow.

mod credentials;
mod failure;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use common::WallTime;
use futures::future::{BoxFuture, ready};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{
    ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    RetryConfig,
};

pub use self::credentials::Environment;
use self::credentials::Profile;
use crate::settings::Settings;
use crate::url::{Provider, RemoteUrl};
use crate::{
    Bucket, Error, ErrorKind, Leftover, Listed, OBJECT_BYTES_MAX, ObjectPath, Operation, Page,
    Payload,
};

/// Time to reach the server: beyond it there is none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Cloud {
    store: Box<dyn ObjectStore>,
    url: RemoteUrl,
}

impl Cloud {
    /// Prepares the way to the bucket; nothing is sent yet.
    pub fn open(
        url: &RemoteUrl,
        settings: &Settings,
        environment: &Environment,
    ) -> Result<Self, Error> {
        // Fails when the process has chosen a provider before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let built = match url.provider {
            Provider::S3 => s3(url, settings, environment),
            Provider::Gcs => gcs(url, settings, environment),
            Provider::Azure => azure(url, settings, environment),
        };
        let unusable = |reason: String| {
            Error::new(ErrorKind::Unsupported, Operation::Maintain, ".", url, reason)
        };
        Ok(Self { store: built.map_err(unusable)?, url: url.clone() })
    }

    fn path(&self, object: &str) -> Path {
        let full = match self.url.prefix.as_str() {
            "" => object.to_owned(),
            prefix => format!("{prefix}/{object}"),
        };
        Path::parse(full).expect("prefixes and object paths have plain parts")
    }

    fn error(
        &self,
        operation: Operation,
        subject: impl std::fmt::Display,
        error: object_store::Error,
    ) -> Error {
        failure::error(operation, subject, &self.url, &error)
    }

    fn refused(
        &self,
        kind: ErrorKind,
        operation: Operation,
        subject: impl std::fmt::Display,
        reason: impl std::fmt::Display,
    ) -> Error {
        Error::new(kind, operation, subject, &self.url, reason)
    }

    async fn put(&self, path: &ObjectPath, payload: Payload) -> Result<(), Error> {
        if payload.len() > OBJECT_BYTES_MAX {
            let (kind, why) = (ErrorKind::Unsupported, "it has more than 64 MiB");
            return Err(self.refused(kind, Operation::Put, path, why));
        }
        let bytes = PutPayload::from_iter(payload.pieces().iter().cloned());
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.store.put_opts(&self.path(path.as_str()), bytes, options).await;
        put.map(drop).map_err(|error| self.error(Operation::Put, path, error))
    }

    async fn get(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, Error> {
        let got = self.store.get_range(&self.path(path.as_str()), range.clone()).await;
        let bytes = got.map_err(|error| self.error(Operation::Get, path, error))?;
        let length = range.end - range.start;
        if bytes.len() as u64 != length {
            let why = format!("{} bytes came instead of {length}", bytes.len());
            return Err(self.refused(ErrorKind::Damaged, Operation::Get, path, why));
        }
        Ok(bytes)
    }

    async fn head(&self, path: &ObjectPath) -> Result<Listed, Error> {
        let found = self.store.head(&self.path(path.as_str())).await;
        let found = found.map_err(|error| self.error(Operation::Head, path, error))?;
        let (length, modified) = (found.size, modified(&found));
        Ok(Listed { path: path.clone(), length, modified })
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectPath>,
        limit: usize,
    ) -> Result<Page, Error> {
        let mut found = self.listing(prefix, after);
        let mut page = Page::default();
        let failed = |error| self.error(Operation::List, prefix, error);
        while let Some(meta) = found.try_next().await.map_err(failed)? {
            // What is not ours may lie there, too.
            let Some(path) = self.ours(&meta) else { continue };
            let last = page.objects.last().map(|listed: &Listed| &listed.path).or(after);
            if last.is_some_and(|last| path <= *last) {
                let why = "its listings are not in order of names";
                return Err(self.refused(ErrorKind::Unsupported, Operation::List, prefix, why));
            }
            if !path.as_str().starts_with(prefix) {
                if path.as_str() < prefix {
                    continue;
                }
                break;
            }
            if page.objects.len() == limit {
                page.more = true;
                break;
            }
            page.objects.push(Listed { path, length: meta.size, modified: modified(&meta) });
        }
        Ok(page)
    }

    /// The store's listing from at or before the first object that is wanted. Stores list by
    /// folder; that the prefix goes on within a name is made up for by where the listing begins:
    /// every name with the prefix comes after the prefix without its last letter.
    fn listing(
        &self,
        prefix: &str,
        after: Option<&ObjectPath>,
    ) -> stream::BoxStream<'static, object_store::Result<ObjectMeta>> {
        let (folder, begun) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        let folder = self.path(folder);
        let from = match after {
            Some(after) if after.as_str() >= prefix => Some(self.path(after.as_str())),
            _ if begun.len() > 1 => Some(self.path(&prefix[..prefix.len() - 1])),
            _ => None,
        };
        match from {
            Some(from) => self.store.list_with_offset(Some(&folder), &from),
            None => self.store.list(Some(&folder)),
        }
    }

    fn ours(&self, meta: &ObjectMeta) -> Option<ObjectPath> {
        let full = meta.location.as_ref();
        let path = match self.url.prefix.as_str() {
            "" => full,
            prefix => full.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        path.parse().ok()
    }

    async fn delete(&self, paths: &[ObjectPath]) -> Result<(), Error> {
        let full: Vec<_> = paths.iter().map(|path| Ok(self.path(path.as_str()))).collect();
        let mut deleted = self.store.delete_stream(stream::iter(full).boxed());
        while let Some(outcome) = deleted.next().await {
            match outcome {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => {
                    let first = paths.first().map_or("", ObjectPath::as_str);
                    return Err(self.error(Operation::Delete, first, error));
                }
            }
        }
        Ok(())
    }
}

fn modified(meta: &ObjectMeta) -> WallTime {
    WallTime(u64::try_from(meta.last_modified.timestamp_micros()).unwrap_or(0))
}

fn client(settings: &Settings) -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(settings.endpoint.starts_with("http://"))
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

type Built = Result<Box<dyn ObjectStore>, String>;

fn built(store: object_store::Result<impl ObjectStore>) -> Built {
    store.map(|store| Box::new(store) as _).map_err(|error| failure::chain(&error))
}

fn s3(url: &RemoteUrl, settings: &Settings, environment: &Environment) -> Built {
    let mut builder = AmazonS3Builder::new();
    for (key, value) in environment.with_prefix("AWS_") {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, value);
        }
    }
    let profile = Profile::find(environment)?;
    if let Some(keys) = &profile.keys {
        builder = builder.with_access_key_id(&keys.id).with_secret_access_key(&keys.secret);
        if let Some(token) = &keys.token {
            builder = builder.with_token(token);
        }
    }
    if let Some(region) = &profile.region {
        builder = builder.with_region(region);
    }
    if !settings.region.is_empty() {
        builder = builder.with_region(&settings.region);
    }
    if !settings.endpoint.is_empty() {
        builder = builder.with_endpoint(s3_endpoint(url, settings));
    }
    built(
        builder
            .with_bucket_name(&url.bucket)
            .with_virtual_hosted_style_request(!settings.path_style)
            .with_client_options(client(settings))
            .with_retry(no_retries())
            .build(),
    )
}

/// With the bucket in the name of the host, the library takes the endpoint to have it already.
fn s3_endpoint(url: &RemoteUrl, settings: &Settings) -> String {
    let endpoint = settings.endpoint.trim_end_matches('/');
    match endpoint.split_once("://") {
        Some((scheme, host)) if !settings.path_style => format!("{scheme}://{}.{host}", url.bucket),
        _ => endpoint.to_owned(),
    }
}

fn gcs(url: &RemoteUrl, settings: &Settings, environment: &Environment) -> Built {
    let mut builder = GoogleCloudStorageBuilder::new();
    for (key, value) in environment.with_prefix("GOOGLE_") {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, value);
        }
    }
    if !settings.endpoint.is_empty() {
        builder = builder.with_base_url(settings.endpoint.trim_end_matches('/'));
    }
    built(
        builder
            .with_bucket_name(&url.bucket)
            .with_client_options(client(settings))
            .with_retry(no_retries())
            .build(),
    )
}

fn azure(url: &RemoteUrl, settings: &Settings, environment: &Environment) -> Built {
    let mut builder = MicrosoftAzureBuilder::new();
    for (key, value) in environment.with_prefix("AZURE_") {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, value);
        }
    }
    if !settings.account.is_empty() {
        builder = builder.with_account(&settings.account);
    }
    if !settings.endpoint.is_empty() {
        builder = builder.with_endpoint(settings.endpoint.trim_end_matches('/').to_owned());
    }
    built(
        builder
            .with_container_name(&url.bucket)
            .with_client_options(client(settings))
            .with_retry(no_retries())
            .build(),
    )
}

impl Bucket for Cloud {
    fn url(&self) -> String {
        self.url.to_string()
    }

    fn put<'a>(
        &'a self,
        path: &'a ObjectPath,
        payload: Payload,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.put(path, payload))
    }

    fn get<'a>(
        &'a self,
        path: &'a ObjectPath,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>> {
        Box::pin(self.get(path, range))
    }

    fn head<'a>(&'a self, path: &'a ObjectPath) -> BoxFuture<'a, Result<Listed, Error>> {
        Box::pin(self.head(path))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectPath>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        Box::pin(self.list(prefix, after, limit))
    }

    fn delete<'a>(&'a self, paths: &'a [ObjectPath]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.delete(paths))
    }

    /// None: an object is put in one request.
    fn leftovers(&self, _age: Duration) -> BoxFuture<'_, Result<Vec<Leftover>, Error>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn remove_leftovers<'a>(&'a self, _: &'a [Leftover]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(ready(Ok(())))
    }
}
