//! Clients of a gateway that note every promise in a witness file: whatever a
//! PUBACK said, as they saw it. Run below the crash shim, which puts the notes in
//! order among the gateway's file operations.
//!
//! Says `ready`, then reads `ADDRESS WITNESS MESSAGES` from standard input, once the
//! gateway serves.
//! Each client publishes its numbers from 1 on, in order, at QoS 1:
//!
//! | note | published | to |
//! | --- | --- | --- |
//! | `r c1 17` | `c1/17` | `raw/c1`: Kafka |
//! | `q c1 18` | `c1/18` | `chat/c1`: waits for the persistent session `sleeper` |
//! | `t c1 19` | `c1/19`, retained | `last/c1` |
//!
//! `s` notes that `sleeper` has subscribed.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;

use risiti_tests::wire_client::{Connect, Message, Packet, Wire};

/// Enough that the journal's groups hold several clients' records.
const CLIENTS: u32 = 6;

/// PUBLISHes a client has on the way.
const WINDOW: u32 = 8;

fn main() -> io::Result<()> {
    println!("ready");
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let [address, witness, messages] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        return Err(io::Error::other("ADDRESS WITNESS MESSAGES"));
    };
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let messages: u32 = messages.parse().map_err(io::Error::other)?;
    let witness = File::options().create(true).append(true).open(witness)?;

    let mut sleeper = Wire::accepted(address, &Connect::persistent(5, "sleeper"))?;
    sleeper.subscribe(&[("chat/#", 1)])?;
    (&witness).write_all(b"s\n")?;
    sleeper.disconnect()?;

    std::thread::scope(|scope| {
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|n| {
                let witness = &witness;
                scope.spawn(move || client(address, &format!("c{n}"), messages, witness))
            })
            .collect();
        clients.into_iter().try_for_each(|client| {
            client
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
        })
    })
}

/// What the message with this number is.
fn message(id: &str, number: u32) -> (char, Message) {
    let payload = format!("{id}/{number}");
    match number % 8 {
        3 | 6 => ('q', Message::new(&format!("chat/{id}"), payload, 1)),
        5 => (
            't',
            Message::new(&format!("last/{id}"), payload, 1).retained(),
        ),
        _ => ('r', Message::new(&format!("raw/{id}"), payload, 1)),
    }
}

fn client(address: SocketAddr, id: &str, messages: u32, mut witness: &File) -> io::Result<()> {
    let mut wire = Wire::accepted(address, &Connect::persistent(5, id))?;
    let mut next = 1;
    for awaited in 1..=messages {
        while next <= messages && next < awaited + WINDOW {
            let (_, message) = message(id, next);
            wire.send_publish(&message.id(next as u16))?;
            next += 1;
        }
        match wire.recv()? {
            // In order (MQTT-4.6.0-2), and accepted or without a subscriber.
            Packet::PubAck(got, 0 | 0x10) if u32::from(got) == awaited => {
                let (kind, _) = message(id, awaited);
                witness.write_all(format!("{kind} {id} {awaited}\n").as_bytes())?;
            }
            other => return Err(io::Error::other(format!("{id}: {other:?}, not {awaited}"))),
        }
    }
    Ok(())
}
