//! `make airtime`: what errands cost on the air at a round trip of 700 ms.

use std::time::Duration;

use risiti_sim::fleet::airtime::{Airtime, AirtimeTable, Errand, measure};
use risiti_sim::network::NetworkProfile;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

const ROUND_TRIP: Duration = Duration::from_millis(700);

fn main() -> std::io::Result<()> {
    let measured = |errand, instant| -> std::io::Result<Airtime> {
        let mut network = NetworkProfile::steady(ROUND_TRIP);
        if instant {
            network.link.up_bits_per_s = None;
            network.link.down_bits_per_s = None;
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()?;
        let all = LocalSet::new();
        Ok(all.block_on(&runtime, measure(errand, network, instant)))
    };
    let errands = [Errand::Payments(1), Errand::Payments(3), Errand::Idle];
    let rows = errands.map(|errand| measured(errand, false));
    let rows = rows.into_iter().collect::<std::io::Result<Vec<_>>>()?;
    println!("{}", AirtimeTable(rows));
    if let Some(trips) = measured(Errand::Payments(1), true)?.round_trips {
        println!(
            "\nround trips from a modem that is ready to the PUBACK of the receipt: {trips:.1}"
        );
    }
    Ok(())
}
