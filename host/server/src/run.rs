//! A server's life: configuration, listeners, signals, the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use leasehold_core::Core;
use leasehold_core::core::Settings;
use leasehold_core::nodes::NodeName;
use leasehold_http::listener::Listener as Served;
use leasehold_http::{Frontend, RequestLimits, serve};
use leasehold_model::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bind::{self, Certificate};
use crate::config::environment::Overlay;
use crate::config::{Address, Config, LogFormat, LogLevel, defaults, files};
use crate::descriptors::{self, Connections};
use crate::service::{self, PidFile, State};
use crate::signals::{Signals, Told};
use crate::{dev, log, metrics, wiring};

/// Which kind of server.
pub(crate) enum ServerMode {
    Dev(dev::Options),
    /// Files and folders, in their order.
    Configured(Vec<PathBuf>),
}

/// What the command line says; it wins over the environment, which wins over the files.
#[derive(Clone, Copy)]
pub(crate) struct LogFlags {
    pub(crate) level: Option<LogLevel>,
    pub(crate) format: Option<LogFormat>,
}

/// Where a server's configuration comes from, read again at SIGHUP.
struct Origin<'a> {
    mode: &'a ServerMode,
    flags: LogFlags,
    environment: Overlay,
}

impl Origin<'_> {
    fn read(&self) -> Result<Config, String> {
        let mut config = match self.mode {
            ServerMode::Dev(options) => dev::config(options)?,
            ServerMode::Configured(paths) => files::configuration(paths)?,
        };
        self.environment.put_on(&mut config);
        if matches!(self.mode, ServerMode::Configured(_)) {
            self.environment.put_on_seal(&mut config)?;
        }
        config.log_level = self.flags.level.unwrap_or(config.log_level);
        config.log_format = self.flags.format.unwrap_or(config.log_format);
        Ok(config)
    }
}

/// Runs until a signal ends it.
///
/// # Errors
/// In words for the operator; nothing is left open.
pub(crate) fn run(mode: &ServerMode, flags: LogFlags, accepts_changed_storage: bool) -> Result<(), String> {
    let origin = Origin { mode, flags, environment: Overlay::of_this_process()? };
    let config = origin.read()?;
    let level = log::start(config.log_level, config.log_format)?;
    for warning in &config.warnings {
        tracing::warn!("configuration: {warning}");
    }
    for warning in &origin.environment.warnings {
        tracing::warn!("{warning}");
    }
    let limit = descriptors::raise();
    let connections = descriptors::connections(limit, config.connections_max, config.connections_per_address_max);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("could not start: {error}"))?;
    let ended = runtime.block_on(live(&origin, config, connections, accepts_changed_storage, &level));
    // What still blocks a thread (a device that nobody reads, a dead file server) must not hold up the end.
    runtime.shutdown_background();
    ended
}

/// Every file that the configuration names, before the first socket is opened: certificates are read, audit files opened.
async fn named_files(config: &Config) -> Result<Vec<Option<Certificate>>, String> {
    let certificates: Vec<_> = config.listeners.iter().map(Certificate::of).collect();
    let mut problems: Vec<String> = certificates.iter().filter_map(|one| one.as_ref().err().cloned()).collect();
    problems.extend(wiring::unusable_audit_devices(&config.audit).await);
    if problems.is_empty() { certificates.into_iter().collect() } else { Err(problems.join("\n")) }
}

/// Says what is wrong with a configuration and with what it names. It starts, writes, opens for writing and removes nothing.
///
/// # Errors
/// In words for the operator.
pub(crate) fn check(paths: &[PathBuf]) -> Result<(), String> {
    let environment = Overlay::of_this_process()?;
    let mut config = files::configuration(paths)?;
    environment.put_on(&mut config);
    environment.put_on_seal(&mut config)?;
    let warnings = config.warnings.iter().map(ToString::to_string).chain(environment.warnings.iter().cloned());
    for warning in warnings {
        println!("warning: {warning}");
    }
    let certificates = config.listeners.iter().map(|listener| Certificate::of(listener).err());
    let audit = config.audit.iter().map(|device| unusable_audit_file(device).err());
    let problems: Vec<String> = certificates
        .chain(audit)
        .flatten()
        .chain(wiring::unusable_store(&config.store))
        .chain(wiring::seals(&config.seals).err())
        .collect();
    if !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    println!("{} is a configuration that the server would start with", names.join(", "));
    Ok(())
}

/// Whether a declared device could be opened, as far as that can be seen without opening it.
fn unusable_audit_file(device: &leasehold_core::audit::DeviceEntry) -> Result<(), String> {
    let Some(text) = ["file_path", "path"].into_iter().find_map(|name| device.options.get(name)) else { return Ok(()) };
    if ["stdout", "discard"].iter().any(|special| text.eq_ignore_ascii_case(special)) {
        return Ok(());
    }
    let path = Path::new(text);
    let named = |why: &dyn std::fmt::Display| format!("audit \"{}\" ({}): {text}: {why}", device.kind, device.path);
    match std::fs::symlink_metadata(path) {
        Ok(file) if file.is_symlink() => {
            Err(named(&"it is a symbolic link, which is not followed: name the file itself"))
        }
        Ok(file) if !file.is_file() => Err(named(&"it is not a regular file")),
        Ok(_) => rustix::fs::access(path, rustix::fs::Access::WRITE_OK).map_err(|error| named(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            std::fs::metadata(folder).map_err(|error| named(&error))?;
            let needed = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
            rustix::fs::access(folder, needed).map_err(|error| named(&format!("{}: {error}", folder.display())))
        }
        Err(error) => Err(named(&error)),
    }
}

async fn live(
    origin: &Origin<'_>,
    config: Config,
    connections: Connections,
    accepts_changed_storage: bool,
    level: &log::Level,
) -> Result<(), String> {
    let metrics = metrics::start()?;
    let certificates = named_files(&config).await?;
    let seals = wiring::seals(&config.seals)?;
    let keeping_seals = seals.keep();
    let mut listeners = Vec::new();
    for (listener, certificate) in config.listeners.iter().zip(&certificates) {
        listeners.push(bind::bind(listener, config.lets_in, certificate.as_ref()).await?);
    }
    let addresses = addresses(&listeners)?;
    let (audit, files) = (config.audit_directory.clone(), config.connection_files_dir.clone());
    let settings = settings(&config, &addresses);
    let wired = wiring::core(&config.store, seals, settings, audit, files, accepts_changed_storage, metrics).await?;
    let (core, postgresql) = (wired.core, wired.postgresql);
    let limits = RequestLimits {
        connections_max: connections.all,
        connections_per_address_max: connections.per_address,
        request_time: config.request_time,
        ..RequestLimits::default()
    };
    let frontend = Frontend::new(core.clone(), wiring::entropy(), limits);
    let _pid_file = config.pid_file.as_deref().map(PidFile::write).transpose()?;

    // Kept until the end: a development server's PostgreSQL goes with it.
    let _development = match origin.mode {
        ServerMode::Dev(options) => {
            let (address, further) = addresses.split_once(", ").unwrap_or((&addresses, ""));
            if !further.is_empty() {
                eprintln!("==> Leasehold server also listening on {further}");
            }
            Some(dev::prepare(&core, options, address).await?)
        }
        ServerMode::Configured(_) => {
            eprintln!("==> Leasehold server listening on {addresses}");
            let api = config.api_addr.clone().unwrap_or_else(|| address_for_clients(&config, &addresses));
            if let Ok(status) = core.seal_status().await {
                let (state, command) = match status.initialized {
                    false => ("not initialized", "init"),
                    true if status.migration => {
                        ("sealed, and another seal is configured than before", "unseal -migrate")
                    }
                    true => ("sealed", "unseal"),
                };
                if status.initialized && status.recovery && !status.migration {
                    eprintln!("==> The server is sealed, and unseals itself with the seal `{}`", status.kind);
                } else {
                    eprintln!(
                        "==> The server is {state}: run `leasehold operator {command}`, with LEASEHOLD_ADDR={api}"
                    );
                }
            }
            None
        }
    };
    let (stop, stopped) = watch::channel(false);
    // Before anybody is served: whoever has been answered may send one, and unheard it would end the process.
    let mut signals = Signals::heard(defaults::DRAIN + defaults::SEAL_TIME + defaults::LAST_RESORT)?;
    let mut frontends = JoinSet::new();
    for listener in listeners {
        frontends.spawn(serve::serve(listener, frontend.clone(), stopped.clone(), defaults::DRAIN));
    }
    let unsealing = tokio::spawn({
        let core = core.clone();
        async move { core.keep_unsealed().await }
    });
    service::notify(State::Ready).await;
    let certificates = certificates.into_iter().flatten().collect();
    until_told_to_stop(origin, &config, level, &core, certificates, &mut signals).await;
    tracing::info!(
        "stopping: requests under way have {} s to finish; another signal stops at once",
        defaults::DRAIN.as_secs()
    );
    service::notify(State::Stopping).await;
    unsealing.abort();
    drop(keeping_seals);
    // Nobody listens any more if this fails: then all frontends have ended already.
    let _ = stop.send(true);
    tokio::select! {
        () = async {
            while frontends.join_next().await.is_some() {}
            // Waits for revocations under way, but not for a database that does not answer.
            if tokio::time::timeout(defaults::SEAL_TIME, core.seal()).await.is_err() {
                tracing::warn!("what is under way did not end in {} s: it is done again after the next start", defaults::SEAL_TIME.as_secs());
            }
        } => {}
        () = told_to_stop(&mut signals) => tracing::warn!("stopping at once: what is under way is undone or done again after the next start"),
    }
    if let Some(storage) = postgresql {
        storage.leave().await;
    }
    Ok(())
}

async fn told_to_stop(signals: &mut Signals) {
    while signals.next().await != Told::Stop {}
}

/// As they are: the configuration may leave the port to the system.
fn addresses(listeners: &[Served]) -> Result<String, String> {
    let found: Result<Vec<String>, _> = listeners.iter().map(|listener| listener.socket.local_address()).collect();
    found.map(|addresses| addresses.join(", ")).map_err(|error| error.to_string())
}

/// Of the first listener; one on every address is reached on this machine.
fn address_for_clients(config: &Config, addresses: &str) -> String {
    let first = addresses.split(", ").next().unwrap_or_default();
    match config.listeners.first().map(|listener| (&listener.address, listener.tls.is_some())) {
        Some((Address::Unix { .. }, _)) => first.to_owned(),
        listener => {
            let scheme = if listener.is_some_and(|(_, is_tls)| is_tls) { "https" } else { "http" };
            format!("{scheme}://{}", first.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]"))
        }
    }
}

fn settings(config: &Config, addresses: &str) -> Settings {
    Settings {
        default_lease_ttl: config.default_lease_ttl,
        max_lease_ttl: config.max_lease_ttl,
        version: format!("{}+leasehold.{}", defaults::API_VERSION, env!("CARGO_PKG_VERSION")),
        commit_date: commit_date(),
        cluster_name: config.cluster_name.clone(),
        storage_type: config.store.name(),
        audit: config.audit.clone(),
        node: NodeName {
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            address: config.api_addr.clone().unwrap_or_else(|| address_for_clients(config, addresses)),
        },
    }
}

/// See `build.rs`.
fn commit_date() -> String {
    env!("LEASEHOLD_COMMITTED_AT").parse().map(|at| Timestamp::from_secs(at).rfc3339()).unwrap_or_default()
}

async fn until_told_to_stop(
    origin: &Origin<'_>,
    running: &Config,
    level: &log::Level,
    core: &Arc<Core>,
    mut certificates: Vec<Certificate>,
    signals: &mut Signals,
) {
    while signals.next().await == Told::Reload {
        service::notify(State::Reloading).await;
        reload(origin, running, level, &mut certificates);
        if tokio::time::timeout(defaults::REOPEN_TIME, core.reopen_audit()).await.is_err() {
            tracing::error!("audit files could not be reopened in {} s", defaults::REOPEN_TIME.as_secs());
        }
        service::notify(State::Ready).await;
    }
}

/// What is wrong on a reload is logged, and what was read before stays.
fn reload(origin: &Origin<'_>, running: &Config, level: &log::Level, certificates: &mut [Certificate]) {
    let wished = match origin.mode {
        ServerMode::Dev(options) if options.files.is_empty() => None,
        ServerMode::Dev(_) | ServerMode::Configured(_) => match origin.read() {
            Ok(config) => Some(config),
            Err(why) => {
                tracing::error!("could not reload: {why}");
                None
            }
        },
    };
    if let Some(config) = &wished {
        level.set(config.log_level);
        for name in running.needs_restart_for(config) {
            tracing::warn!("`{name}` has changed in the configuration: restart the server to take that over");
        }
    }
    for certificate in certificates {
        certificate.read_again(wished.as_ref());
    }
}
