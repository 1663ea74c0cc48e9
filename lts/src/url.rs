//! Where long-term storage is, as people write it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or
/// `memory:`. Texts are taken literally; nothing in them is percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StoreUrl {
    Folder(PathBuf),
    Remote(RemoteUrl),
    Memory,
}

/// A bucket of a provider, and the prefix in it that is Braid's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteUrl {
    pub provider: Provider,
    pub bucket: String,
    /// Without slashes at its ends; empty for the whole bucket.
    pub prefix: String,
}

/// Whose interface a remote store speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    S3,
    Gcs,
    Azure,
}

impl Provider {
    const fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

/// Why a text is not a URL of long-term storage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` does not say where long-term storage is: {reason}")]
pub struct UrlError {
    text: String,
    reason: String,
}

/// Schemes that people write for one that there is.
const ALIASES: [(&str, &str); 7] = [
    ("s3a", "s3"),
    ("gcs", "gs"),
    ("azure", "az"),
    ("abfs", "az"),
    ("abfss", "az"),
    ("http", "s3"),
    ("https", "s3"),
];

impl FromStr for StoreUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let parsed = if text == "memory:" { Ok(Self::Memory) } else { parse(text) };
        parsed.map_err(|reason| UrlError { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<StoreUrl, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(match Path::new(text).is_absolute() {
            true => format!("write `file://{text}` for a folder"),
            false => "write `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix`, \
                      `az://container/prefix` or `memory:`"
                .to_owned(),
        });
    };
    match scheme {
        "file" => folder(rest),
        "s3" => remote(Provider::S3, rest),
        "gs" => remote(Provider::Gcs, rest),
        "az" => remote(Provider::Azure, rest),
        "memory" => Err("write `memory:`".to_owned()),
        other => Err(unknown(other, rest)),
    }
}

fn unknown(scheme: &str, rest: &str) -> String {
    match ALIASES.iter().find(|(alias, _)| *alias == scheme) {
        Some(("http" | "https", _)) => format!(
            "an address of a server is the setting `endpoint`; write `s3://bucket/prefix` here and \
             `{scheme}://{rest}` there"
        ),
        Some((_, scheme)) => format!("write `{scheme}://{rest}`"),
        None => format!(
            "`{scheme}` is not known; known are `file://`, `s3://`, `gs://`, `az://` and `memory:`"
        ),
    }
}

fn folder(path: &str) -> Result<StoreUrl, String> {
    if !path.starts_with('/') {
        return Err("the path is not absolute; write `file:///path` with three slashes".to_owned());
    }
    if path.contains('\0') {
        return Err("the path has a zero byte".to_owned());
    }
    Ok(StoreUrl::Folder(PathBuf::from(path)))
}

fn remote(provider: Provider, rest: &str) -> Result<StoreUrl, String> {
    let scheme = provider.scheme();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(format!("the bucket is missing; write `{scheme}://bucket/prefix`"));
    }
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !bucket.bytes().all(of_name) {
        return Err(format!(
            "the bucket `{bucket}` has characters other than letters, digits, `.`, `-` and `_`"
        ));
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let plain = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(of_name);
    if !prefix.is_empty() && !prefix.split('/').all(plain) {
        return Err(format!(
            "the prefix `{prefix}` has an empty part, or characters other than letters, digits, \
             `.`, `-` and `_`"
        ));
    }
    let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
    Ok(StoreUrl::Remote(RemoteUrl { provider, bucket, prefix }))
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "file://{}", path.display()),
            Self::Remote(remote) => remote.fmt(f),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.provider.scheme(), self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

impl serde::Serialize for StoreUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for StoreUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_reads_and_is_shown_as_it_was_written() {
        let texts = [
            "file:///data/lts",
            "file:///a folder/100%",
            "s3://bucket",
            "s3://bucket.name/a/b-c_d",
            "gs://bucket/prefix",
            "az://container/prefix",
            "memory:",
        ];
        for text in texts {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
            let quoted = serde_json::to_string(&url).unwrap();
            assert_eq!(serde_json::from_str::<StoreUrl>(&quoted).unwrap(), url);
        }
        assert_eq!("s3://b/p/".parse::<StoreUrl>().unwrap().to_string(), "s3://b/p");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_write() {
        let cases = [
            ("", "`s3://bucket/prefix`"),
            ("/data/lts", "`file:///data/lts`"),
            ("data/lts", "`file:///path`"),
            ("file://data/lts", "three slashes"),
            ("s3:bucket", "`s3://bucket/prefix`"),
            ("s3://", "the bucket is missing"),
            ("s3:///prefix", "the bucket is missing"),
            ("s3://user@host/x", "`user@host`"),
            ("s3://b//x", "an empty part"),
            ("s3://b/../x", "`../x`"),
            ("s3a://b/x", "`s3://b/x`"),
            ("gcs://b/x", "`gs://b/x`"),
            ("https://minio:9000/b", "`endpoint`"),
            ("ftp://host/x", "`ftp` is not known; known are `file://`"),
            ("memory://", "write `memory:`"),
        ];
        for (text, expected) in cases {
            let message = text.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_shown_so_that_it_reads_the_same(text in "(file|s3|gs|az|memory|x):/{0,3}[a-z./A-Z@ -]{0,20}") {
            if let Ok(url) = text.parse::<StoreUrl>() {
                prop_assert_eq!(url.to_string().parse::<StoreUrl>(), Ok(url));
            }
        }
    }
}
