//! The whole way round, for real: terminals, a gateway process, settlement and
//! an Apache Kafka of their own, and the verdict over what they came to.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use risiti_sim::ledger::{Accounts, ReceiptsLog, ReceiptsVerdict, receipts_verdict};
use risiti_sim::mqtt::MqttVersion;
use risiti_sim::site::Site;
use risiti_sim::terminal::{TerminalSpec, Terminals};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::gateway_process::{GatewayProcess, ProcessSwitches};
use crate::ledger::{self, Verdict};
use crate::real_kafka::RealKafka;
use crate::settlement_process::SettlementProcess;
use crate::upward;

/// How long a delivery event may take to Kafka once its receipt was printed.
const EVENTS: Duration = Duration::from_secs(60);

/// Longer than a poll of the receipts consumer, and than a terminal looks for
/// its gateway after a cut.
const SETTLED: Duration = Duration::from_secs(2);

/// Everything but the terminals.
#[derive(Debug)]
pub struct RoundTrip {
    /// The gateway.
    pub gateway: GatewayProcess,
    /// Settlement.
    pub settlement: SettlementProcess,
    /// Its Kafka.
    pub kafka: RealKafka,
    /// What terminals and links run in.
    pub runtime: Runtime,
    /// The gateway's directory, which ends after it.
    pub dir: TempDir,
}

impl RoundTrip {
    /// Starts all.
    ///
    /// # Errors
    /// One of them did not start.
    pub fn start(switches: ProcessSwitches) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let root = dir.path().join("site.root");
        Site::default().write_root(&root)?;
        // The stand-in terminals have no keys, the emulated one has.
        let sealing = format!("[settlement]\nroot_file = {root:?}\nsealing = \"accepted\"\n");
        Self::start_in(dir, switches, &sealing)
    }

    /// The same with other tables behind the configuration of both, and a site that is
    /// not the simulated one.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(switches: ProcessSwitches, tables: &str) -> io::Result<Self> {
        Self::start_in(tempfile::tempdir()?, switches, tables)
    }

    fn start_in(dir: TempDir, switches: ProcessSwitches, tables: &str) -> io::Result<Self> {
        let kafka = RealKafka::start()?;
        let config = upward::config("gw-1", &kafka.bootstrap) + tables;
        let gateway = GatewayProcess::start(&config, dir.path(), switches, None)?;
        let settlement = SettlementProcess::start(&config, dir.path())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        Ok(Self {
            gateway,
            settlement,
            kafka,
            runtime,
            dir,
        })
    }

    /// Starts terminals.
    #[must_use]
    pub fn terminals(&self, specs: Vec<TerminalSpec>, seed: u64) -> Terminals {
        let _inside = self.runtime.enter();
        Terminals::start(specs, seed)
    }

    /// Kafka is killed, and then so many records are acknowledged, which stand
    /// nowhere but on the gateway's disk.
    ///
    /// # Errors
    /// It took too long.
    pub fn strand_records(
        &mut self,
        terminals: &Terminals,
        records: u64,
        within: Duration,
    ) -> io::Result<()> {
        self.kafka.kill();
        let all = terminals.totals().acknowledged + records;
        let stranded = terminals.wait("stranded", within, |totals| totals.acknowledged >= all);
        self.runtime.handle().block_on(stranded).map(drop)
    }

    /// The gateway loses its disk with everything on it, and starts on an empty
    /// one.
    ///
    /// # Errors
    /// It did not start.
    pub fn wipe_gateway(&mut self) -> io::Result<()> {
        self.gateway.kill();
        std::fs::remove_dir_all(self.gateway.data_dir())?;
        self.gateway.restart()
    }

    /// Waits until so many receipts are printed.
    ///
    /// # Errors
    /// It took too long.
    pub fn wait_printed(
        &self,
        terminals: &Terminals,
        receipts: u64,
        within: Duration,
    ) -> io::Result<()> {
        let reached = terminals.wait("printed", within, |totals| totals.printed >= receipts);
        self.runtime.handle().block_on(reached).map(drop)
    }

    /// Waits until nothing is on its way any more, for controls in which not
    /// every receipt comes home: every payment is acknowledged, what the gateway
    /// has is in Kafka and settled, every receipt has passed through the outbox.
    ///
    /// # Errors
    /// It took too long.
    pub fn wait_at_rest(
        &self,
        terminals: &Terminals,
        payments: u64,
        within: Duration,
    ) -> io::Result<()> {
        let all = terminals.wait("acknowledged", within, |totals| {
            totals.acknowledged == payments
        });
        self.runtime.handle().block_on(all)?;
        self.gateway.wait_forwarded(within)?;
        let until = Instant::now() + within;
        loop {
            let records = self.kafka.committed(upward::RECORDS)?.len();
            let receipts = self.kafka.committed("risiti.receipts")?.len();
            if receipts >= records {
                break;
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!(
                    "{receipts} receipts for {records} records within {within:?}"
                )));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        // The last receipts may still be on their way from Kafka into the outbox
        // and from the outbox to their terminals.
        let mut since = Instant::now();
        let mut last = 0;
        while since.elapsed() < SETTLED {
            let waiting = self.gateway.status()?.receipts.waiting;
            let printed = terminals.totals().printed;
            if waiting > 0 || printed != last {
                (since, last) = (Instant::now(), printed);
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("{waiting} receipts wait")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until there is a delivery event for each receipt.
    ///
    /// # Errors
    /// Kafka can't be read.
    pub fn wait_delivered(&self) -> io::Result<()> {
        let until = Instant::now() + EVENTS;
        loop {
            let receipts = self.kafka.committed("risiti.receipts")?.len();
            let events = self.kafka.committed("risiti.deliveries")?.len();
            // What is missing in the end is for the judge.
            if events >= receipts || Instant::now() > until {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Ends the terminals and judges the way round.
    ///
    /// # Errors
    /// A log can't be read to its end, or holds what does not belong there.
    pub fn receipts_verdict(
        &self,
        accounts: &Accounts,
        with_deliveries: bool,
    ) -> io::Result<ReceiptsVerdict> {
        let settled = self.kafka.committed("risiti.transactions")?;
        let receipts = self.kafka.committed("risiti.receipts")?;
        let deliveries = match with_deliveries {
            true => {
                let log = self.kafka.committed("risiti.deliveries")?;
                Some(ledger::deliveries(&log).map_err(io::Error::other)?)
            }
            false => None,
        };
        let log = ReceiptsLog {
            settled: ledger::transactions(&settled).map_err(io::Error::other)?,
            receipts: ledger::receipts(&receipts).map_err(io::Error::other)?,
            deliveries,
        };
        Ok(receipts_verdict(accounts, &log))
    }

    /// Judges the way up.
    ///
    /// # Errors
    /// As [`Self::receipts_verdict`].
    pub fn records_verdict(&self, accounts: &Accounts) -> io::Result<Verdict> {
        let found = upward::found(&self.kafka.bootstrap, &[upward::RECORDS])?;
        Ok(ledger::verdict(accounts, &found))
    }
}

/// `count` terminals named `t0` and on, MQTT 3.1.1 and 5, windows from 1 to 20,
/// each with so many payments; they never lose power and never send again.
#[must_use]
pub fn terminals(count: usize, payments: u64, gateway: SocketAddr) -> Vec<TerminalSpec> {
    let windows = [20, 1, 7, 4, 13];
    (0..count)
        .map(|n| TerminalSpec {
            id: format!("t{n}"),
            gateway,
            version: if n % 2 == 0 {
                MqttVersion::V3_1_1
            } else {
                MqttVersion::V5
            },
            window: windows[n % windows.len()],
            payments: Some(payments),
            per_second: 5.0,
            resend: None,
            power: None,
            away: None,
            prints_before_saving: false,
        })
        .collect()
}
