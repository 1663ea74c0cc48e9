//! What a server tells about itself at `/metrics`.

use super::own_server::http_get;

/// One look at a server's metrics.
#[derive(Debug)]
pub(super) struct Scrape(String);

impl Scrape {
    pub(super) async fn of(endpoint: &str) -> std::io::Result<Self> {
        Ok(Self(http_get(endpoint, "/metrics").await?))
    }

    /// The value of a series, named as it stands there, labels included.
    pub(super) fn value(&self, series: &str) -> Option<f64> {
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
        self.0.lines().find_map(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_by_its_whole_name() {
        let scrape = Scrape(
            "# HELP process_cpu_seconds …\nprocess_cpu_seconds_total 12.5\n\
             steps_bucket{le=\"0.0005\"} 4\nsteps_bucket{le=\"0.001\"} 7\nsteps_count 9\n"
                .to_owned(),
        );
        assert_eq!(scrape.value("process_cpu_seconds_total"), Some(12.5));
        assert_eq!(scrape.value("steps_bucket{le=\"0.001\"}"), Some(7.0));
        assert_eq!(scrape.value("steps"), None, "the beginning of a name is none");
        assert_eq!(scrape.value("other"), None);
    }
}
