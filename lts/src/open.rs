//! From a URL to a bucket.

use std::sync::Arc;

use common::{Clock, Rng};

use crate::{
    Bucket, Cloud, Environment, Error, ErrorKind, Folder, Guarded, Memory, Observer, Operation,
    SettingError, Settings, StoreUrl, TokioTimer,
};

/// Why a bucket was not opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error(transparent)]
    Bucket(#[from] Error),
}

/// Opens a bucket, with patience. Nothing is asked of a remote store yet: see
/// [`probe`](crate::probe::probe).
pub fn open(
    url: &StoreUrl,
    settings: &Settings,
    environment: &Environment,
    clock: Arc<dyn Clock>,
    mut rng: Rng,
    observer: Observer,
) -> Result<Guarded, OpenError> {
    settings.check()?;
    let bucket: Arc<dyn Bucket> = match url {
        StoreUrl::Folder(path) => {
            let rng = rng.fork("folder");
            Arc::new(Folder::open(path, settings.allow_volatile, clock.clone(), rng)?)
        }
        StoreUrl::Remote(remote) => Arc::new(Cloud::open(remote, settings, environment)?),
        StoreUrl::Memory if settings.allow_volatile => Arc::new(Memory::new(clock.clone())),
        StoreUrl::Memory => {
            let why = "it ends with the process; name a folder or a bucket, or accept the loss \
                       with `--allow-volatile`";
            let (kind, operation) = (ErrorKind::Unsupported, Operation::Maintain);
            return Err(Error::new(kind, operation, ".", url, why).into());
        }
    };
    Ok(Guarded::new(bucket, settings, clock, Arc::new(TokioTimer), rng.fork("guarded"), observer))
}

#[cfg(test)]
mod tests {
    use common::SystemClock;

    use super::*;
    use crate::test_support::{path, payload, test_directory};

    fn opened(url: &str, settings: &Settings) -> Result<Guarded, OpenError> {
        let (environment, clock) = (Environment::default(), SystemClock::shared());
        let url = url.parse().unwrap();
        open(&url, settings, &environment, clock, Rng::from_seed(1), Arc::new(|_| ()))
    }

    #[tokio::test]
    async fn a_url_and_settings_make_a_bucket() {
        let directory = test_directory();
        let url = format!("file://{}", directory.path().join("lts").display());
        let bucket = opened(&url, &Settings::default()).unwrap();
        bucket.put(&path("a"), payload("a")).await.unwrap();
        assert_eq!(bucket.get(&path("a"), 0..1).await.unwrap(), "a");
        assert_eq!(bucket.url(), url);
        opened("s3://bucket/p", &Settings::default()).unwrap();
        opened("memory:", &Settings { allow_volatile: true, ..Settings::default() }).unwrap();
    }

    #[test]
    fn what_cannot_be_used_is_said_before_anything_is_asked() {
        let cases = [
            ("memory:", Settings::default(), "ends with the process"),
            ("file:///proc/nowhere", Settings::default(), "`file:///proc/nowhere`"),
            ("az://container", Settings::default(), "Account"),
            ("memory:", Settings { attempts: 0, ..Settings::default() }, "`lts.attempts`"),
        ];
        for (url, settings, expected) in cases {
            let text = opened(url, &settings).unwrap_err().to_string();
            assert!(text.contains(expected), "{url}: {text}");
        }
    }
}
