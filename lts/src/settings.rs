//! What can be set about long-term storage. Where it is, is a [`StoreUrl`](crate::StoreUrl).

use common::{ByteSize, Period};

/// Settings of a bucket. Text that is empty leaves the choice to the environment or the provider.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address of the store's server, `http://host:port` or `https://host`: for stores other than
    /// the provider's own. Empty: the provider's own, or what the environment says.
    pub endpoint: String,
    /// The region of an S3 bucket. Empty: what the environment or the profile says, else
    /// `us-east-1`.
    pub region: String,
    /// Names an S3 bucket in the path of a request; else in the name of the host. Most stores
    /// other than AWS want it in the path, and AWS takes both.
    pub path_style: bool,
    /// The storage account of Azure. Empty: what the environment says.
    pub account: String,
    /// Allows a folder on a file system that keeps nothing through a power cut (tmpfs, overlay) or
    /// whose syncs cannot be trusted (NFS, FUSE).
    pub allow_volatile: bool,
    /// Time for one request, apart from the bytes it carries.
    pub timeout: Period,
    /// Bytes a second that a request must at least carry: what is slower is given up and tried
    /// again. Together with `timeout` it bounds how long an object of any size may take.
    pub rate_min: ByteSize,
    /// Attempts at one operation before it fails; what must not fail, such as tiering, goes on
    /// after that by itself.
    pub attempts: u32,
    /// Ranged requests that one read may have under way.
    pub parallel_reads: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            region: String::new(),
            path_style: true,
            account: String::new(),
            allow_volatile: false,
            timeout: Period::seconds(10),
            rate_min: ByteSize::mib(1),
            attempts: 6,
            parallel_reads: 8,
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting `lts.{name}` is `{value}`: {expected}")]
pub struct SettingError {
    pub name: &'static str,
    pub value: String,
    pub expected: &'static str,
}

impl Settings {
    pub fn check(&self) -> Result<(), SettingError> {
        let error = |name, value: &dyn ToString, expected| {
            Err(SettingError { name, value: value.to_string(), expected })
        };
        let schemes = ["http://", "https://"];
        let host = schemes.iter().find_map(|scheme| self.endpoint.strip_prefix(scheme));
        if !self.endpoint.is_empty() && host.is_none_or(str::is_empty) {
            return error("endpoint", &self.endpoint, "write `https://host` or `http://host:port`");
        }
        if self.timeout.0.is_zero() {
            return error("timeout", &"0s", "write a time above zero, for example `10s`");
        }
        if self.rate_min.bytes() == 0 {
            return error(
                "rate_min",
                &self.rate_min,
                "write a size above zero, for example `1MiB`",
            );
        }
        if self.attempts == 0 {
            return error("attempts", &self.attempts, "write a number from 1");
        }
        if !(1..=64).contains(&self.parallel_reads) {
            return error("parallel_reads", &self.parallel_reads, "write a number from 1 to 64");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_good_and_read_back() {
        let settings = Settings::default();
        settings.check().unwrap();
        let text = serde_json::to_string(&settings).unwrap();
        assert!(text.contains(r#""timeout":"10s""#) && text.contains(r#""1MiB""#), "{text}");
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
        serde_json::from_str::<Settings>(r#"{"regoin":"x"}"#).unwrap_err();
    }

    #[test]
    fn what_cannot_be_used_is_named_with_what_to_write() {
        let good = Settings::default();
        let cases = [
            (Settings { endpoint: "minio:9000".into(), ..good.clone() }, "`lts.endpoint`"),
            (Settings { endpoint: "http://".into(), ..good.clone() }, "`https://host`"),
            (Settings { timeout: Period::seconds(0), ..good.clone() }, "`10s`"),
            (Settings { rate_min: ByteSize(0), ..good.clone() }, "`1MiB`"),
            (Settings { attempts: 0, ..good.clone() }, "`lts.attempts`"),
            (Settings { parallel_reads: 65, ..good }, "from 1 to 64"),
        ];
        for (settings, expected) in cases {
            let message = settings.check().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
