//! Where a fleet's modems find their gateway.
//!
//! Promises: a gateway that moves is found at its new place. Never: a connection
//! kept.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::DuplexStream;
use tokio::net::TcpStream;

use super::lock;
use crate::modem::Dialer;
use crate::village::Village;

/// Real TCP to a gateway that may move. Clones find the same one.
#[derive(Debug, Clone)]
pub struct GatewayDialer {
    addr: Arc<Mutex<SocketAddr>>,
}

impl GatewayDialer {
    /// To this address, whatever a terminal says.
    #[must_use]
    pub fn to(addr: SocketAddr) -> Self {
        Self {
            addr: Arc::new(Mutex::new(addr)),
        }
    }

    /// The gateway is here from now on.
    pub fn move_to(&self, addr: SocketAddr) {
        *lock(&self.addr) = addr;
    }
}

impl Dialer for GatewayDialer {
    type Stream = TcpStream;

    fn dial(
        &mut self,
        _host: String,
        _port: u16,
    ) -> impl Future<Output = io::Result<TcpStream>> + Send + 'static {
        let addr = *lock(&self.addr);
        async move {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
    }
}

impl Dialer for Village {
    type Stream = DuplexStream;

    fn dial(
        &mut self,
        _host: String,
        _port: u16,
    ) -> impl Future<Output = io::Result<DuplexStream>> + Send + 'static {
        let dialled = Village::dial(self);
        async move { dialled }
    }
}
