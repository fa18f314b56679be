//! `risiti run`: the gateway as a service.

use std::io::IsTerminal;
use std::path::Path;

use risiti_config::{Config, LogFormat};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, Registry, fmt, prelude::*, reload};

use super::{Failure, say};
use crate::gateway::{Gateway, Switches};
use crate::limits;
use crate::status::INSECURE;

type LogHandle = reload::Handle<EnvFilter, Registry>;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// The configuration is refused, or something is in the way of the start.
pub fn run(file: &Path) -> Result<(), Failure> {
    // One line on standard output for scripts and for people at a terminal.
    run_with(file, Switches::default(), |gateway| {
        say(format_args!(
            "risiti serves MQTT on {}, admin on http://{}{}",
            gateway.mqtt_addr(),
            gateway.admin_addr(),
            gateway
                .embedded_bootstrap()
                .map(|b| format!(", embedded Kafka on {b}"))
                .unwrap_or_default()
        ));
    })
}

/// The same with switches that no configuration has, and another way to say
/// that it serves.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    file: &Path,
    switches: Switches,
    announce: impl FnOnce(&Gateway),
) -> Result<(), Failure> {
    let config = Config::load(file, std::env::vars())?;
    let log = start_log(&config)?;
    raise_file_limit();
    forbid_core_dumps();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(file, config, log, switches, announce));
    // A thread that a dead disk holds must not hold up the end.
    runtime.shutdown_background();
    served
}

/// rumqttd's router logs every link at `info` and above: not our words.
const LOG_ALWAYS: &str = ",rumqttd=off";

fn filter(level: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(format!("{level}{LOG_ALWAYS}"))
        .map_err(|e| format!("log.level {level:?}: {e}; for example \"info\"").into())
}

pub(super) fn start_log(config: &Config) -> Result<LogHandle, Failure> {
    let (filter, handle) = reload::Layer::new(filter(&config.log.level)?);
    let layer = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    match config.log.format {
        LogFormat::Text => registry.with(layer).try_init()?,
        LogFormat::Json => registry.with(layer.json()).try_init()?,
    }
    Ok(handle)
}

/// What is in memory, tokens and keys among it, is not written to a disk when a process
/// ends badly.
pub(super) fn forbid_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps can't be forbidden: they would hold secrets");
    }
}

/// A connection is a file descriptor; the usual soft limit is 1,024.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

async fn serve(
    file: &Path,
    config: Config,
    log: LogHandle,
    switches: Switches,
    announce: impl FnOnce(&Gateway),
) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    for warning in config.warnings() {
        if warning.starts_with(INSECURE) {
            tracing::error!("{warning}"); // in red
        } else {
            tracing::warn!("{warning}");
        }
    }
    let gateway = Gateway::start(config, switches).await?;
    tracing::info!(
        mqtt = %gateway.mqtt_addr(),
        admin = %gateway.admin_addr(),
        "serving"
    );
    for (name, addr) in gateway.listeners().skip(1) {
        tracing::info!(listener = name, mqtt = %addr, "serving");
    }
    announce(&gateway);
    notify(&[NotifyState::Ready]);
    let mut watchdog = watchdog_interval();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                notify_reloading();
                reload_config(file, &gateway, &log);
                notify(&[NotifyState::Ready]);
            }
            () = async { match watchdog.as_mut() {
                Some(tick) => { tick.tick().await; }
                None => std::future::pending().await,
            } } => notify(&[NotifyState::Watchdog]),
        }
    }
    tracing::info!("stopping");
    notify(&[NotifyState::Stopping]);
    gateway.stop(limits::STOP_DEADLINE).await;
    tracing::info!("stopped");
    Ok(())
}

/// Tells systemd; without it, nothing happens.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// With the time that `Type=notify-reload` wants in the same message.
fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

fn watchdog_interval() -> Option<tokio::time::Interval> {
    let timeout = sd_notify::watchdog_enabled()?;
    // Twice within the time that systemd allows.
    Some(tokio::time::interval(timeout / 2))
}

fn reload_config(file: &Path, gateway: &Gateway, log: &LogHandle) {
    let new = match Config::load(file, std::env::vars()) {
        Ok(new) => new,
        Err(errors) => {
            tracing::error!("not reloaded, the old configuration stays in force: {errors}");
            return;
        }
    };
    match filter(&new.log.level) {
        Ok(filter) => {
            if let Err(error) = log.reload(filter) {
                tracing::error!(%error, "log.level stays as it was");
            }
        }
        Err(error) => tracing::error!("log.level stays as it was: {error}"),
    }
    let diff = gateway.reload(new);
    for line in &diff.applied {
        tracing::info!("reloaded {line}");
    }
    for line in &diff.needs_restart {
        tracing::warn!("takes effect at the next restart: {line}");
    }
    if diff.is_empty() {
        tracing::info!("reloaded, nothing changed");
    }
}
