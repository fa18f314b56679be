//! One MQTT connection of a client, 3.1.1 or 5, by rumqttc's codec.
//!
//! Promises: packets as they are asked for, those that came as they came; what
//! is acknowledged, sent again or forgotten is the caller's. Never: rumqttc's
//! event loop, which forgets what is unacknowledged when a session is not
//! present; or the gateway's own codec, whose mistakes it would hide.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::{self, v4};
use rumqttc::v5::mqttbytes::{self as mqttbytes5, v5};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::limits::PACKET_BYTES_MAX;

/// Which MQTT a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MqttVersion {
    /// 3.1.1.
    V3_1_1,
    /// 5.0.
    V5,
}

/// How long a v5 session outlives its connection, seconds. A 3.1.1 session does
/// for ever.
const SESSION_EXPIRY_S: u32 = 3_600;

/// What comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A PUBLISH.
    Message(Message),
    /// A SUBACK for one filter.
    Subscribed {
        /// For this packet.
        packet_id: u16,
        /// Whether it was granted, at any QoS.
        success: bool,
    },
    /// A PUBACK or PUBREC.
    Acknowledged {
        /// For this packet.
        packet_id: u16,
        /// Whether it says yes.
        success: bool,
    },
    /// A PUBCOMP.
    Completed {
        /// For this packet.
        packet_id: u16,
    },
    /// Something else.
    Other,
}

/// A PUBLISH that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// Its packet identifier; none at QoS 0.
    pub packet_id: Option<u16>,
    /// Whether it may have come before.
    pub dup: bool,
    /// Whether it is a retained message that a new subscription asked for.
    pub retain: bool,
}

/// A connection after its CONNACK.
#[derive(Debug)]
pub struct Wire {
    version: MqttVersion,
    stream: TcpStream,
    incoming: BytesMut,
    outgoing: BytesMut,
}

impl Wire {
    /// Connects, with a persistent session; tells whether it was present.
    ///
    /// # Errors
    /// No connection, or the CONNACK refuses.
    pub async fn connect(
        gateway: SocketAddr,
        client_id: &str,
        version: MqttVersion,
    ) -> io::Result<(Self, bool)> {
        let stream = TcpStream::connect(gateway).await?;
        stream.set_nodelay(true)?;
        let mut wire = Self {
            version,
            stream,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
        };
        match version {
            MqttVersion::V3_1_1 => {
                let mut connect = v4::Connect::new(client_id);
                connect.clean_session = false;
                connect.keep_alive = 60;
                wire.write_v4(&v4::Packet::Connect(connect))?;
            }
            MqttVersion::V5 => {
                let mut properties = v5::ConnectProperties::new();
                properties.session_expiry_interval = Some(SESSION_EXPIRY_S);
                let connect = v5::Connect {
                    keep_alive: 60,
                    client_id: client_id.to_owned(),
                    clean_start: false,
                    properties: Some(properties),
                };
                wire.write_v5(&v5::Packet::Connect(connect, None, None))?;
            }
        }
        wire.flush().await?;
        let present = match version {
            MqttVersion::V3_1_1 => match wire.read_v4().await? {
                v4::Packet::ConnAck(ack) if ack.code == v4::ConnectReturnCode::Success => {
                    ack.session_present
                }
                other => return Err(io::Error::other(format!("{other:?}"))),
            },
            MqttVersion::V5 => match wire.read_v5().await? {
                v5::Packet::ConnAck(ack) if ack.code == v5::ConnectReturnCode::Success => {
                    ack.session_present
                }
                other => return Err(io::Error::other(format!("{other:?}"))),
            },
        };
        Ok((wire, present))
    }

    /// Writes a PUBLISH at QoS 1 or 2 to the buffer.
    ///
    /// # Errors
    /// It is too large.
    pub fn publish(
        &mut self,
        topic: &str,
        qos: u8,
        payload: &[u8],
        packet_id: u16,
        dup: bool,
    ) -> io::Result<()> {
        let payload = Bytes::copy_from_slice(payload);
        match self.version {
            MqttVersion::V3_1_1 => {
                let qos = mqttbytes::qos(qos).map_err(io::Error::other)?;
                let mut publish = v4::Publish::from_bytes(topic, qos, payload);
                (publish.pkid, publish.dup) = (packet_id, dup);
                self.write_v4(&v4::Packet::Publish(publish))
            }
            MqttVersion::V5 => {
                let qos = mqttbytes5::qos(qos).ok_or(io::ErrorKind::InvalidInput)?;
                let mut publish = v5::Publish::new(topic, qos, payload, None);
                (publish.pkid, publish.dup) = (packet_id, dup);
                self.write_v5(&v5::Packet::Publish(publish))
            }
        }
    }

    /// Writes a PUBREL to the buffer.
    ///
    /// # Errors
    /// The codec's.
    pub fn release(&mut self, packet_id: u16) -> io::Result<()> {
        match self.version {
            MqttVersion::V3_1_1 => self.write_v4(&v4::Packet::PubRel(v4::PubRel::new(packet_id))),
            MqttVersion::V5 => self.write_v5(&v5::Packet::PubRel(v5::PubRel::new(packet_id, None))),
        }
    }

    /// Writes a SUBSCRIBE to one filter, at QoS 1, to the buffer.
    ///
    /// # Errors
    /// The codec's.
    pub fn subscribe(&mut self, filter: &str, packet_id: u16) -> io::Result<()> {
        match self.version {
            MqttVersion::V3_1_1 => {
                let mut subscribe = v4::Subscribe::new(filter, mqttbytes::QoS::AtLeastOnce);
                subscribe.pkid = packet_id;
                self.write_v4(&v4::Packet::Subscribe(subscribe))
            }
            MqttVersion::V5 => {
                let filter = v5::Filter::new(filter, mqttbytes5::QoS::AtLeastOnce);
                let mut subscribe = v5::Subscribe::new(filter, None);
                subscribe.pkid = packet_id;
                self.write_v5(&v5::Packet::Subscribe(subscribe))
            }
        }
    }

    /// Writes a PUBACK to the buffer.
    ///
    /// # Errors
    /// The codec's.
    pub fn acknowledge(&mut self, packet_id: u16) -> io::Result<()> {
        match self.version {
            MqttVersion::V3_1_1 => self.write_v4(&v4::Packet::PubAck(v4::PubAck::new(packet_id))),
            MqttVersion::V5 => self.write_v5(&v5::Packet::PubAck(v5::PubAck::new(packet_id, None))),
        }
    }

    /// Writes a PINGREQ to the buffer: two bytes in both versions.
    pub fn ping(&mut self) {
        self.outgoing.extend_from_slice(&[0xc0, 0]);
    }

    /// Sends what is in the buffer.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all_buf(&mut self.outgoing).await
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn disconnect(&mut self) -> io::Result<()> {
        // Two bytes in both versions (3.1.1, section 3.14; 5.0, section 3.14.2.1).
        self.outgoing.extend_from_slice(&[0xe0, 0]);
        self.flush().await?;
        self.stream.shutdown().await
    }

    /// The next packet. Cancelling it loses nothing.
    ///
    /// # Errors
    /// The connection is gone, or what came is no MQTT.
    pub async fn next(&mut self) -> io::Result<Incoming> {
        Ok(match self.version {
            MqttVersion::V3_1_1 => match self.read_v4().await? {
                v4::Packet::PubAck(v4::PubAck { pkid, .. })
                | v4::Packet::PubRec(v4::PubRec { pkid }) => Incoming::Acknowledged {
                    packet_id: pkid,
                    success: true,
                },
                v4::Packet::PubComp(done) => Incoming::Completed {
                    packet_id: done.pkid,
                },
                v4::Packet::SubAck(ack) => Incoming::Subscribed {
                    packet_id: ack.pkid,
                    success: matches!(
                        ack.return_codes.as_slice(),
                        [v4::SubscribeReasonCode::Success(_)]
                    ),
                },
                v4::Packet::Publish(publish) => Incoming::Message(Message {
                    topic: publish.topic,
                    payload: publish.payload,
                    packet_id: (publish.pkid != 0).then_some(publish.pkid),
                    dup: publish.dup,
                    retain: publish.retain,
                }),
                _ => Incoming::Other,
            },
            MqttVersion::V5 => match self.read_v5().await? {
                v5::Packet::PubAck(ack) => Incoming::Acknowledged {
                    packet_id: ack.pkid,
                    success: matches!(
                        ack.reason,
                        v5::PubAckReason::Success | v5::PubAckReason::NoMatchingSubscribers
                    ),
                },
                v5::Packet::PubRec(ack) => Incoming::Acknowledged {
                    packet_id: ack.pkid,
                    success: matches!(
                        ack.reason,
                        v5::PubRecReason::Success | v5::PubRecReason::NoMatchingSubscribers
                    ),
                },
                v5::Packet::PubComp(done) => Incoming::Completed {
                    packet_id: done.pkid,
                },
                v5::Packet::SubAck(ack) => Incoming::Subscribed {
                    packet_id: ack.pkid,
                    success: matches!(
                        ack.return_codes.as_slice(),
                        [v5::SubscribeReasonCode::Success(_)]
                    ),
                },
                v5::Packet::Publish(publish) => Incoming::Message(Message {
                    topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                    payload: publish.payload,
                    packet_id: (publish.pkid != 0).then_some(publish.pkid),
                    dup: publish.dup,
                    retain: publish.retain,
                }),
                _ => Incoming::Other,
            },
        })
    }

    fn write_v4(&mut self, packet: &v4::Packet) -> io::Result<()> {
        packet
            .write(&mut self.outgoing, PACKET_BYTES_MAX)
            .map(drop)
            .map_err(io::Error::other)
    }

    fn write_v5(&mut self, packet: &v5::Packet) -> io::Result<()> {
        packet
            .write(&mut self.outgoing, None)
            .map(drop)
            .map_err(io::Error::other)
    }

    async fn read_v4(&mut self) -> io::Result<v4::Packet> {
        loop {
            match v4::Packet::read(&mut self.incoming, PACKET_BYTES_MAX) {
                Err(mqttbytes::Error::InsufficientBytes(_)) => self.read_more().await?,
                done => return done.map_err(io::Error::other),
            }
        }
    }

    async fn read_v5(&mut self) -> io::Result<v5::Packet> {
        loop {
            match v5::Packet::read(&mut self.incoming, None) {
                Err(mqttbytes5::Error::InsufficientBytes(_)) => self.read_more().await?,
                done => return done.map_err(io::Error::other),
            }
        }
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.incoming).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
