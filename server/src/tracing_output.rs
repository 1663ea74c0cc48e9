//! What the process says about itself, on standard error.

use tracing_subscriber::EnvFilter;

use crate::settings::{SettingsError, Tracing, TracingFormat};

/// Starts messages as the settings say. Once per process.
pub fn start_tracing(settings: &Tracing) -> Result<(), SettingsError> {
    let filter = EnvFilter::try_new(&settings.filter).map_err(|error| SettingsError::Rule {
        key: "tracing.filter",
        message: format!(
            "`{}` is no filter ({error}); write a level such as `info`, or `target=level` pairs",
            settings.filter
        ),
    })?;
    let output = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A subscriber that is there already is the embedding process's choice.
    let _ = match settings.format {
        TracingFormat::Text => output.try_init(),
        TracingFormat::Json => output.json().try_init(),
    };
    Ok(())
}
