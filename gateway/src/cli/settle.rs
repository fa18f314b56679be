//! `risiti settle`: settlement as a service of its own.
//!
//! Promises: SIGTERM and SIGINT let the transaction under way finish; with the
//! embedded cluster it finds the gateway of the same configuration by what that one
//! leaves beside its data. Never: a gateway's store opened.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use risiti_bridge::settlement::{
    Options, Sealing, Settlement, SettlementHandle, SettlementMetrics, SettlementSetup, State,
    configured_policy,
};
use risiti_config::{Config, Mode};
use risiti_wire::Account;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, enroll, run, say, settle_page, site};
use crate::limits;

/// How often a line of the log says what was settled.
const SUMMARY: Duration = Duration::from_secs(60);

/// How often the handle is looked at for a change of state.
const LOOK: Duration = Duration::from_millis(200);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// The configuration is refused, or something is in the way of the start.
pub fn settle(file: &Path) -> Result<(), Failure> {
    settle_with(file, Options::default())
}

/// The same with options that no configuration has.
///
/// # Errors
/// As [`settle`].
pub fn settle_with(file: &Path, options: Options) -> Result<(), Failure> {
    let config = Config::load(file, std::env::vars())?;
    run::start_log(&config)?;
    run::forbid_core_dumps();
    let setup = setup(&config, options)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(&config, setup))
}

fn setup(config: &Config, options: Options) -> Result<SettlementSetup, Failure> {
    let settings = &config.settlement;
    let cluster = config
        .cluster(&settings.cluster)
        .ok_or("settlement.cluster names no cluster")?;
    if cluster.mode == Mode::Idempotent {
        return Err(format!(
            "cluster {} has mode = \"idempotent\", but settlement needs transactions; grant them and set mode = \"exactly_once\", or name another cluster in settlement.cluster",
            settings.cluster
        )
        .into());
    }
    let bootstrap = match cluster.bootstrap.servers() {
        Some(servers) => servers,
        None => embedded_bootstrap(config)?,
    };
    let accounts = match &settings.accounts_file {
        Some(file) => Some(read_accounts(file)?),
        None => None,
    };
    Ok(SettlementSetup {
        cluster: cluster.clone(),
        bootstrap,
        settings: settings.clone(),
        policy: configured_policy(settings, accounts),
        sealing: sealing(settings)?,
        metrics: Arc::new(SettlementMetrics::default()),
        options,
    })
}

/// What opens seals, if there is a root.
fn sealing(settings: &risiti_config::Settlement) -> Result<Sealing, Failure> {
    let Some(file) = &settings.root_file else {
        return Ok(Sealing::default());
    };
    let generations = site::read_generations(file)?;
    let root = site::read_root(file)?;
    let sealing = Sealing::new(root, settings.seals_are_required(), generations);
    sealing.set_enrolled(enroll::read_enrolled(file)?);
    Ok(sealing)
}

/// The embedded cluster lives in the gateway's process, which leaves its address
/// beside its data.
fn embedded_bootstrap(config: &Config) -> Result<String, Failure> {
    let path = config.gateway.data_dir.join("embedded-kafka");
    let address = std::fs::read_to_string(&path).map_err(|error| {
        format!(
            "kafka.bootstrap is \"embedded\", and {} can't be read ({error}); start the gateway with this configuration first",
            path.display()
        )
    })?;
    Ok(address.trim().to_owned())
}

/// One account a line; empty lines and what follows a `#` are passed over.
fn read_accounts(path: &Path) -> Result<HashSet<Account>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!(
            "settlement.accounts_file {}: {error}; put the accounts there, one a line",
            path.display()
        )
    })?;
    let mut accounts = HashSet::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let account = Account::new(line).map_err(|error| {
            format!(
                "{} line {}: {error}; write the 1 to 18 digits of one account",
                path.display(),
                index + 1
            )
        })?;
        accounts.insert(account);
    }
    Ok(accounts)
}

async fn serve(config: &Config, setup: SettlementSetup) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let settings = &config.settlement;
    let metrics = Arc::clone(&setup.metrics);
    let mut generations = settings
        .root_file
        .as_deref()
        .map(|file| site::GenerationsFile::new(file, setup.sealing.clone()));
    let mut enrolled = settings
        .root_file
        .as_deref()
        .map(|file| enroll::EnrolledFile::new(file, setup.sealing.clone()));
    tracing::info!(
        instance = settings.instance,
        group = settings.group,
        from = settings.records_topic,
        kafka = setup.bootstrap,
        rules = setup.policy.rules.len(),
        sealing = ?setup.sealing,
        "settlement starts"
    );
    let listener = match settings.listen {
        Some(listen) => Some(settle_page::listen(listen, Arc::clone(&metrics)).await?),
        None => None,
    };
    let handle = Settlement::start(setup)?;
    let mut told = Told::default();
    let mut look = tokio::time::interval(LOOK);
    let mut summary = tokio::time::interval(SUMMARY);
    let mut reread = tokio::time::interval(limits::GENERATIONS_REREAD);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = look.tick() => told.look(config, &handle, listener),
            _ = summary.tick() => told.summary(&metrics),
            _ = reread.tick() => {
                if let Some(generations) = &mut generations {
                    generations.look();
                }
                if let Some(enrolled) = &mut enrolled {
                    enrolled.look();
                }
            }
        }
        if handle.is_finished() {
            return Err("settlement ended by itself".into());
        }
    }
    notify(&[NotifyState::Stopping]);
    let stopped = tokio::task::spawn_blocking(|| handle.stop(limits::STOP_DEADLINE)).await?;
    told.summary(&metrics);
    tracing::info!(in_order = stopped, "settlement stopped");
    Ok(())
}

/// What was said already.
#[derive(Debug, Default)]
struct Told {
    settling: bool,
    error: Option<String>,
    records: u64,
}

impl Told {
    fn look(
        &mut self,
        config: &Config,
        handle: &SettlementHandle,
        listener: Option<std::net::SocketAddr>,
    ) {
        if !self.settling && handle.state() == State::Settling {
            self.settling = true;
            // One line on standard output for scripts and people at a terminal.
            say(format_args!(
                "risiti settles {} as {}{}",
                config.settlement.records_topic,
                config.settlement.instance,
                listener
                    .map(|listen| format!(", metrics on http://{listen}"))
                    .unwrap_or_default()
            ));
            notify(&[NotifyState::Ready]);
        }
        let error = handle.metrics().last_error();
        if error != self.error {
            if let Some(error) = &error {
                tracing::warn!(error, "settlement waits");
            }
            self.error = error;
        }
    }

    fn summary(&mut self, metrics: &SettlementMetrics) {
        let records = metrics.records();
        if records == self.records {
            return;
        }
        self.records = records;
        tracing::info!(
            accepted = metrics.accepted.load(Relaxed),
            refused = metrics.refused.load(Relaxed),
            repeated = metrics.repeated.load(Relaxed),
            conflicts = metrics.conflicts.load(Relaxed),
            too_old = metrics.too_old.load(Relaxed),
            seals_refused = metrics.seals_refused.load(Relaxed),
            foreign = metrics.foreign.load(Relaxed),
            transactions = metrics.transactions.load(Relaxed),
            aborts = metrics.aborts.load(Relaxed),
            "settled since the start"
        );
    }
}

/// Tells systemd; without it, nothing happens.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(text: &str) -> Result<HashSet<Account>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accounts");
        std::fs::write(&path, text).unwrap();
        read_accounts(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn accounts_are_read_with_leading_zeros_and_comments() {
        let read = accounts("# school A\n0012345 # fees\n\n77\n").unwrap();
        let expected: HashSet<_> = ["0012345", "77"]
            .into_iter()
            .map(|digits| Account::new(digits).unwrap())
            .collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn a_line_that_is_no_account_is_named() {
        let error = accounts("1\nabc\n").unwrap_err();
        assert!(error.contains("line 2"), "{error}");
    }
}
