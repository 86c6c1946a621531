//! A server's life: configuration, listeners, signals, the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use leasehold_core::Core;
use leasehold_core::core::Settings;
use leasehold_http::{Frontend, RequestLimits, serve};
use leasehold_model::Timestamp;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{self, Config, Listener, LogFormat, LogLevel, defaults};
use crate::{dev, log, metrics, tls, wiring};

/// Which kind of server.
pub(crate) enum ServerMode {
    Dev(dev::Options),
    Configured(PathBuf),
}

/// What the command line says about the log; it wins over the file.
#[derive(Clone, Copy)]
pub(crate) struct LogWish {
    pub(crate) level: Option<LogLevel>,
    pub(crate) format: Option<LogFormat>,
}

/// Runs until a signal ends it.
///
/// # Errors
/// In words for the operator; nothing is left open.
pub(crate) fn run(life: &ServerMode, wish: LogWish) -> Result<(), String> {
    let config = match life {
        ServerMode::Dev(options) => dev::config(options),
        ServerMode::Configured(file) => read_file(file)?,
    };
    let level = log::start(wish.level.unwrap_or(config.log_level), wish.format.unwrap_or(config.log_format))?;
    for warning in &config.warnings {
        tracing::warn!("configuration: {warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("could not start: {error}"))?;
    runtime.block_on(live(life, config, wish, &level))
}

fn read_file(file: &Path) -> Result<Config, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("could not read {}: {error}", file.display()))?;
    config::read(&text).map_err(|problems| {
        let lines: Vec<String> =
            problems.iter().map(|problem| format!("  line {}: {}", problem.line, problem.what)).collect();
        format!("{} is not a configuration:\n{}", file.display(), lines.join("\n"))
    })
}

/// A bound listener with what is needed to read its certificate again.
struct Bound {
    listener: TcpListener,
    tls: Option<Certificate>,
}

/// A listener's certificate, which is read again at SIGHUP.
struct Certificate {
    /// Of the listener, as the configuration names it.
    address: String,
    cert: PathBuf,
    key: PathBuf,
    sender: watch::Sender<Arc<rustls::ServerConfig>>,
}

impl Certificate {
    /// From the files that the configuration names now. What is wrong with them is logged, and what was read before stays.
    fn read_again(&mut self, wished: Option<&Config>) {
        let listener = wished.and_then(|config| config.listeners.iter().find(|one| one.address == self.address));
        let (cert, key) =
            listener.and_then(|listener| listener.tls.clone()).unwrap_or_else(|| (self.cert.clone(), self.key.clone()));
        match tls::load(&cert, &key) {
            Ok(config) => {
                self.sender.send_replace(config);
                tracing::info!("read {} again", cert.display());
                (self.cert, self.key) = (cert, key);
            }
            Err(why) => tracing::error!("could not reload a certificate: {why}"),
        }
    }
}

impl Listener {
    fn certificate(&self) -> Result<Option<Certificate>, String> {
        let Some((cert, key)) = &self.tls else { return Ok(None) };
        let sender = watch::Sender::new(tls::load(cert, key)?);
        Ok(Some(Certificate { address: self.address.clone(), cert: cert.clone(), key: key.clone(), sender }))
    }
}

async fn bind(address: &str) -> Result<TcpListener, String> {
    // A port alone means every address of this machine, as in Vault.
    let every = address.starts_with(':').then(|| format!("0.0.0.0{address}"));
    TcpListener::bind(every.as_deref().unwrap_or(address)).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("could not listen on {address}: another program does; stop it or choose another address")
        }
        _ => format!("could not listen on {address}: {error}"),
    })
}

/// Every file that the configuration names, before the first socket is opened: certificates are read, audit files opened.
async fn files(config: &Config) -> Result<Vec<Option<Certificate>>, String> {
    let certificates: Vec<_> = config.listeners.iter().map(Listener::certificate).collect();
    let mut problems: Vec<String> = certificates.iter().filter_map(|one| one.as_ref().err().cloned()).collect();
    problems.extend(wiring::unusable_audit_devices(&config.audit).await);
    if problems.is_empty() { certificates.into_iter().collect() } else { Err(problems.join("\n")) }
}

/// Says what is wrong with a configuration and with what it names, and starts nothing.
///
/// # Errors
/// In words for the operator.
pub(crate) fn check(file: &Path) -> Result<(), String> {
    let config = read_file(file)?;
    let named =
        config.audit.iter().flat_map(|device| ["file_path", "path"].map(|name| device.options.get(name))).flatten();
    let absent: Vec<&String> = named.filter(|path| !Path::new(path).exists()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let tried = runtime.map_err(|error| format!("could not start: {error}"))?.block_on(files(&config));
    for made in absent {
        // Whoever checks may not be who runs the server. Where nothing was made there is nothing to remove.
        let _ = std::fs::remove_file(made);
    }
    tried?;
    for warning in &config.warnings {
        println!("warning: {warning}");
    }
    println!("{} is a configuration that the server would start with", file.display());
    Ok(())
}

async fn live(life: &ServerMode, config: Config, wish: LogWish, level: &log::Level) -> Result<(), String> {
    let metrics = metrics::start()?;
    let certificates = files(&config).await?;
    let mut bound = Vec::new();
    for (listener, tls) in config.listeners.iter().zip(certificates) {
        bound.push(Bound { listener: bind(&listener.address).await?, tls });
    }
    let addresses = addresses(&bound)?;
    let (audit, files) = (config.audit_directory.clone(), config.connection_files_dir.clone());
    let core = wiring::core(&config.store, settings(&config), audit, files, metrics)?;
    let frontend = Frontend::new(core.clone(), wiring::entropy(), RequestLimits::default());

    // Kept until the end: a development server's PostgreSQL goes with it.
    let _development = match life {
        ServerMode::Dev(options) => Some(dev::prepare(&core, options, &addresses).await?),
        ServerMode::Configured(_) => {
            eprintln!("==> Leasehold server listening on {addresses}");
            let api = config.api_addr.clone().unwrap_or_else(|| address_for_clients(&config, &addresses));
            if let Ok(status) = core.seal_status().await {
                let (state, command) =
                    if status.initialized { ("sealed", "unseal") } else { ("not initialized", "init") };
                eprintln!("==> The server is {state}: run `leasehold operator {command}`, with LEASEHOLD_ADDR={api}");
            }
            None
        }
    };
    let (stop, stopped) = watch::channel(false);
    let mut doors = JoinSet::new();
    let mut certificates = Vec::new();
    for Bound { listener, tls } in bound {
        let receiver = tls.as_ref().map(|certificate| certificate.sender.subscribe());
        certificates.extend(tls);
        let listener = leasehold_http::listener::Listener { tls: receiver, ..listener.into() };
        doors.spawn(serve::serve(listener, frontend.clone(), stopped.clone(), defaults::DRAIN));
    }
    // From here on: until now a signal has simply ended the program.
    let mut signals = Signals::heard()?;
    until_told_to_stop(life, &config, wish, level, &core, certificates, &mut signals).await;
    tracing::info!(
        "stopping: requests under way have {} s to finish; another signal stops at once",
        defaults::DRAIN.as_secs()
    );
    // Nobody listens any more if this fails: then all doors have closed already.
    let _ = stop.send(true);
    tokio::select! {
        () = async {
            while doors.join_next().await.is_some() {}
            // Waits for revocations under way.
            core.seal().await;
        } => {}
        () = signals.end() => tracing::warn!("stopping at once: what is under way is undone or done again after the next start"),
    }
    Ok(())
}

/// What an operator tells a server that runs.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn heard() -> Result<Self, String> {
        let hear = |kind| signal(kind).map_err(|error| format!("could not listen for signals: {error}"));
        Ok(Self {
            terminate: hear(SignalKind::terminate())?,
            interrupt: hear(SignalKind::interrupt())?,
            hangup: hear(SignalKind::hangup())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// As they are: the configuration may leave the port to the system.
fn addresses(bound: &[Bound]) -> Result<String, String> {
    let found: Result<Vec<String>, _> =
        bound.iter().map(|bound| bound.listener.local_addr().map(|address| address.to_string())).collect();
    found.map(|addresses| addresses.join(", ")).map_err(|error| error.to_string())
}

/// Of the first listener; one on every address is reached on this machine.
fn address_for_clients(config: &Config, addresses: &str) -> String {
    let scheme = if config.listeners.first().is_some_and(|listener| listener.tls.is_some()) { "https" } else { "http" };
    let first = addresses.split(", ").next().unwrap_or_default();
    format!("{scheme}://{}", first.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]"))
}

fn settings(config: &Config) -> Settings {
    Settings {
        default_lease_ttl: config.default_lease_ttl,
        max_lease_ttl: config.max_lease_ttl,
        version: format!("{}+leasehold.{}", defaults::API_VERSION, env!("CARGO_PKG_VERSION")),
        commit_date: commit_date(),
        cluster_name: config.cluster_name.clone(),
        storage_type: config.store.name(),
        audit: config.audit.clone(),
    }
}

/// See `build.rs`.
fn commit_date() -> String {
    env!("LEASEHOLD_COMMITTED_AT").parse().map(|at| Timestamp::from_secs(at).rfc3339()).unwrap_or_default()
}

async fn until_told_to_stop(
    life: &ServerMode,
    running: &Config,
    wish: LogWish,
    level: &log::Level,
    core: &Arc<Core>,
    mut certificates: Vec<Certificate>,
    signals: &mut Signals,
) {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.hangup.recv() => {
                reload(life, running, wish, level, &mut certificates);
                core.reopen_audit().await;
            }
        }
    }
}

/// What is wrong on a reload is logged, and what was read before stays.
fn reload(life: &ServerMode, running: &Config, wish: LogWish, level: &log::Level, certificates: &mut [Certificate]) {
    let wished = match life {
        ServerMode::Dev(_) => None,
        ServerMode::Configured(file) => match read_file(file) {
            Ok(config) => Some(config),
            Err(why) => {
                tracing::error!("could not reload: {why}");
                None
            }
        },
    };
    if let Some(config) = &wished {
        level.set(wish.level.unwrap_or(config.log_level));
        for name in running.needs_restart_for(config) {
            tracing::warn!("`{name}` has changed in the configuration: restart the server to take that over");
        }
    }
    for certificate in certificates {
        certificate.read_again(wished.as_ref());
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_port_alone_means_every_address() {
        let bound = super::bind(":0").await.unwrap().local_addr().unwrap();
        assert!(bound.ip().is_unspecified(), "{bound}");
    }
}
