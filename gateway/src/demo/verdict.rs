//! What the run came to.

use std::fmt;

use risiti_sim::ledger::{
    self, Accounts, ReceiptsLog, ReceiptsVerdict, Verdict as RecordsVerdict, without_repeats,
};

use super::reader::Read;

/// What the run went through.
#[derive(Debug, Clone, Copy)]
pub struct Trials {
    /// Papers that a power cut has torn.
    pub torn: u64,
    /// Papers printed again, by request or because one was torn.
    pub again: u64,
    /// Times that the gateway was killed.
    pub gateway_cuts: u32,
    /// Times that settlement was killed.
    pub settlement_kills: u32,
}

/// What the run came to.
#[derive(Debug)]
pub struct Verdict {
    records: RecordsVerdict,
    receipts: ReceiptsVerdict,
    unreadable: Vec<String>,
    /// Repeats that were removed by id; none where Kafka has transactions.
    removed: Option<u64>,
    trials: Trials,
}

impl Verdict {
    /// Judges. `deduplicates`: count what a consumer sees that removes repeats
    /// by `ce_id`, as one must where Kafka has no transactions.
    pub fn new(accounts: &Accounts, read: Read, trials: Trials, deduplicates: bool) -> Self {
        let (mut records, mut settled) = (read.records, read.settled);
        let mut deliveries = read.deliveries;
        let mut removed = None;
        if deduplicates {
            let of_records;
            let of_settled;
            (records, of_records) = without_repeats(records);
            (settled, of_settled) = without_repeats(settled);
            let before = deliveries.len();
            deliveries.sort();
            deliveries.dedup();
            removed = Some(of_records + of_settled + (before - deliveries.len()) as u64);
        }
        let log = ReceiptsLog {
            settled,
            receipts: read.receipts,
            deliveries: Some(deliveries),
        };
        Self {
            records: ledger::verdict(accounts, &records),
            receipts: ledger::receipts_verdict(accounts, &log),
            unreadable: read.unreadable,
            removed,
            trials,
        }
    }

    /// Whether every promise was kept, and something was really tried.
    pub fn is_clean(&self) -> bool {
        self.records.published > 0
            && self.records.is_clean()
            && self.records.acknowledged == self.records.published
            && self.records.in_kafka == self.records.published
            && self.receipts.is_clean()
            && self.unreadable.is_empty()
            && self.trials.gateway_cuts > 0
            && self.trials.settlement_kills > 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, receipts) = (&self.records, &self.receipts);
        let clean = if self.is_clean() {
            "CLEAN"
        } else {
            "NOT CLEAN"
        };
        writeln!(f, "\nverdict: {clean}")?;
        let lines = [
            ("payments", records.published),
            ("acknowledged", records.acknowledged),
            ("in Kafka", records.in_kafka),
            ("settled", receipts.settled),
            ("receipts printed", receipts.printed),
            ("records lost", records.lost),
            ("duplicated", records.duplicated),
            ("out of order", records.out_of_order),
            ("settled twice", receipts.settled_twice),
            ("receipts missing", receipts.missing),
            ("printed twice", receipts.printed_twice),
            ("wrong terminal", receipts.wrong_terminal),
        ];
        for (name, count) in lines {
            writeln!(f, "  {name:<17}{count:>8}")?;
        }
        let rare = [
            ("not settled", receipts.unsettled),
            ("never published", records.foreign),
            ("never paid", receipts.foreign),
            ("rejected", receipts.rejected),
            ("no delivery event", receipts.undelivered),
            ("two for a delivery", receipts.delivered_twice),
            ("unreadable", self.unreadable.len() as u64),
        ];
        for (name, count) in rare.iter().filter(|(_, count)| *count > 0) {
            writeln!(f, "  {name:<17}{count:>8}")?;
        }
        let examples = records.examples.iter().chain(&receipts.examples);
        for example in examples.chain(&self.unreadable).take(EXAMPLES) {
            writeln!(f, "    {example}")?;
        }
        writeln!(
            f,
            "  payment to paper, by the terminals' clocks: {}",
            receipts.waited
        )?;
        writeln!(
            f,
            "  through {} power cut of the gateway, {} kill of settlement and {} power cuts of\n  \
             terminals; {} papers were torn by them, {} printed again",
            self.trials.gateway_cuts,
            self.trials.settlement_kills,
            receipts.power_cuts,
            self.trials.torn,
            self.trials.again,
        )?;
        match self.removed {
            Some(removed) => write!(
                f,
                "  The embedded Kafka has no real transactions: counted is what a consumer sees that\n  \
                 removes duplicates by ce_id (it removed {removed}). `make demo KAFKA=real` counts the\n  \
                 committed log of a real Kafka itself."
            ),
            None => write!(
                f,
                "  Counted in the committed log of a real Kafka (read_committed)."
            ),
        }
    }
}

/// How many examples of faults are shown.
const EXAMPLES: usize = 12;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use risiti_sim::ledger::{Account, Delivery, Found};

    use super::*;

    const TRIALS: Trials = Trials {
        torn: 1,
        again: 2,
        gateway_cuts: 1,
        settlement_kills: 1,
    };

    fn accounts() -> Accounts {
        let account = Account {
            published: 2,
            acknowledged: [1, 2].into(),
            printed: BTreeMap::from([(1, 1), (2, 1)]),
            ..Account::default()
        };
        Accounts::from([("t".to_owned(), account)])
    }

    fn found(sequences: &[u64]) -> Vec<Found> {
        (0..)
            .zip(sequences)
            .map(|(offset, sequence)| Found {
                client: "t".into(),
                sequence: *sequence,
                resend: false,
                partition: 0,
                offset,
            })
            .collect()
    }

    /// Two whole payments.
    fn read() -> Read {
        let event = |sequence| Delivery {
            terminal: "t".into(),
            sequence,
            number: sequence,
            gateway: "g".into(),
        };
        Read {
            records: found(&[1, 2]),
            settled: found(&[1, 2]),
            receipts: found(&[1, 2]),
            deliveries: vec![event(1), event(2)],
            ..Read::default()
        }
    }

    fn is_clean(read: Read, trials: Trials, deduplicates: bool) -> bool {
        Verdict::new(&accounts(), read, trials, deduplicates).is_clean()
    }

    #[test]
    fn whole_payments_through_real_trials_are_clean() {
        assert!(is_clean(read(), TRIALS, false));
        let spared = Trials {
            gateway_cuts: 0,
            ..TRIALS
        };
        assert!(!is_clean(read(), spared, false), "nothing was shown");
        let spared = Trials {
            settlement_kills: 0,
            ..TRIALS
        };
        assert!(!is_clean(read(), spared, false), "nothing was shown");
    }

    #[test]
    fn repeats_are_removed_by_id_only_where_kafka_has_no_transactions() {
        let repeated = || Read {
            records: found(&[1, 2, 2]),
            settled: found(&[1, 1, 2]),
            ..read()
        };
        assert!(is_clean(repeated(), TRIALS, true));
        assert!(!is_clean(repeated(), TRIALS, false));
    }

    #[test]
    fn what_is_lost_or_can_not_be_read_is_not_clean() {
        let lost = Read {
            settled: found(&[1]),
            ..read()
        };
        assert!(!is_clean(lost, TRIALS, false));
        let unreadable = Read {
            unreadable: vec!["?".into()],
            ..read()
        };
        assert!(!is_clean(unreadable, TRIALS, false));
    }
}
