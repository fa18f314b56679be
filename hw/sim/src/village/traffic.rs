//! What passed over a connection, counted at the gateway's end.
//!
//! Promises: bytes and packets of MQTT, and as many segments as were written or
//! read at once. Never: what IP, TCP and the network's own framing add.

/// What passed between the gateway and one terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections.
    pub connections: u64,
    /// Bytes of MQTT from the terminal.
    pub up_bytes: u64,
    /// Bytes of MQTT to the terminal.
    pub down_bytes: u64,
    /// Packets of MQTT from the terminal.
    pub up_packets: u64,
    /// Packets of MQTT to the terminal.
    pub down_packets: u64,
    /// Segments from the terminal.
    pub up_segments: u64,
    /// Segments to the terminal.
    pub down_segments: u64,
    /// From the last accepted connection to the last acknowledgement of a receipt
    /// on it, in milliseconds; 0 if there was none.
    pub delivered_after_ms: u64,
}

impl Traffic {
    /// Adds what passed over one more connection.
    pub(super) fn add(&mut self, one: &Self) {
        self.connections += 1;
        self.up_bytes += one.up_bytes;
        self.down_bytes += one.down_bytes;
        self.up_packets += one.up_packets;
        self.down_packets += one.down_packets;
        self.up_segments += one.up_segments;
        self.down_segments += one.down_segments;
        self.delivered_after_ms = one.delivered_after_ms;
    }

    /// What came to it since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            connections: self.connections - before.connections,
            up_bytes: self.up_bytes - before.up_bytes,
            down_bytes: self.down_bytes - before.down_bytes,
            up_packets: self.up_packets - before.up_packets,
            down_packets: self.down_packets - before.down_packets,
            up_segments: self.up_segments - before.up_segments,
            down_segments: self.down_segments - before.down_segments,
            delivered_after_ms: self.delivered_after_ms,
        }
    }
}

/// Counts the packets in a stream of MQTT by their fixed headers (MQTT 5.0,
/// section 2.1).
#[derive(Debug, Default)]
pub(super) struct Packets {
    place: Place,
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    Type,
    Length {
        so_far: usize,
        shift: u32,
    },
    Rest {
        bytes: usize,
    },
}

impl Packets {
    /// How many packets end in these bytes.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> u64 {
        let mut ended = 0;
        while let Some((first, rest)) = bytes.split_first() {
            bytes = rest;
            self.place = match self.place {
                Place::Type => Place::Length {
                    so_far: 0,
                    shift: 0,
                },
                Place::Length { so_far, shift } => {
                    let so_far = so_far | usize::from(first & 0x7F) << shift;
                    match (first & 0x80, so_far) {
                        (0, 0) => {
                            ended += 1;
                            Place::Type
                        }
                        (0, bytes) => Place::Rest { bytes },
                        _ => Place::Length {
                            so_far,
                            shift: shift + 7,
                        },
                    }
                }
                Place::Rest { bytes: 1 } => {
                    ended += 1;
                    Place::Type
                }
                Place::Rest { bytes } => Place::Rest { bytes: bytes - 1 },
            };
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_however_they_are_cut() {
        let mut stream = vec![0xC0, 0x00, 0x40, 0x02, 0x00, 0x01, 0x30, 0x80, 0x01];
        stream.extend([0; 128]);
        for cut in 0..stream.len() {
            let mut packets = Packets::default();
            let (first, rest) = stream.split_at(cut);
            assert_eq!(packets.take(first) + packets.take(rest), 3);
        }
    }
}
