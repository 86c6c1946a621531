//! The server's log: to standard error, as text or JSON, at a level that can change while it runs.

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::{LogFormat, LogLevel};

/// Changes the level of a running log.
pub(crate) struct Level(reload::Handle<EnvFilter, Registry>);

impl Level {
    pub(crate) fn set(&self, level: LogLevel) {
        match self.0.reload(filter(level)) {
            Ok(()) => tracing::info!("the log level is {}", level.as_str()),
            Err(error) => tracing::error!(%error, "could not change the log level"),
        }
    }
}

fn filter(level: LogLevel) -> EnvFilter {
    // What our libraries say matters at their warnings only.
    EnvFilter::new(format!(
        "warn,leasehold={0},leasehold_core={0},leasehold_http={0},leasehold_storage={0},leasehold_sandbox={0},leasehold_builtin={0},leasehold_server={0}",
        level.as_str()
    ))
}

/// Starts the log of this process; `Err` when one is running already.
pub(crate) fn start(level: LogLevel, format: LogFormat) -> Result<Level, String> {
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Standard => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
    started.map_err(|error| error.to_string())?;
    std::panic::set_hook(Box::new(|panic| {
        // The place, not the message: a message may quote what was being worked on.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a thread panicked: this is a defect, please report it");
    }));
    Ok(Level(handle))
}
