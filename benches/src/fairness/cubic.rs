//! One QUIC connection with cubic over the line, from end to end: what anybody else's traffic is.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use overway_relay::fault::Rule;
use tokio::sync::oneshot;

use crate::chain::bottleneck::Bottleneck;
use crate::common::socket;
use crate::stream::plain::nodes::{Nodes, pour, pull, session_transport};

/// As long as the packets of a link.
const MTU: u16 = 1_300;

/// The connection, until it is dropped.
pub(super) struct Cubic {
    bytes: Arc<AtomicU64>,
    _ending: oneshot::Sender<()>,
}

impl Cubic {
    /// Starts pouring, over the line and with so much delay each way besides.
    pub(super) fn start(line: &Bottleneck, delay: Duration) -> anyhow::Result<Self> {
        let [server, client] = [socket()?, socket()?];
        let address =
            |socket: &UdpSocket| -> anyhow::Result<SocketAddr> { Ok(socket.local_addr()?) };
        let [to_client, to_server] = line.cross(address(&server)?, address(&client)?)?;
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        let (ending, ended) = oneshot::channel();
        std::thread::Builder::new().name("bench-cubic".into()).spawn(move || {
            let run = || -> anyhow::Result<()> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let nodes = Nodes::new(2, 1)?;
                    let transport = || session_transport(MTU);
                    let rule = Rule { delay, ..Rule::default() };
                    let server =
                        nodes.endpoint(0, server, [(to_client, rule)].into(), transport())?;
                    let client =
                        nodes.endpoint(1, client, [(to_server, rule)].into(), transport())?;
                    let serve = async {
                        let incoming = server.accept().await.context("no client")?;
                        pour(&incoming.await?).await
                    };
                    let read = async {
                        let connecting =
                            nodes.connect((1, &client), (0, to_server), transport())?;
                        pull(&connecting.await?, &counted).await
                    };
                    tokio::select! {
                        ended = serve => ended,
                        ended = read => ended,
                        // The benchmark has what it wants.
                        _ = ended => Ok(()),
                    }
                })
            };
            if let Err(error) = run() {
                eprintln!("error: the cubic flow: {error:#}");
            }
        })?;
        Ok(Self { bytes, _ending: ending })
    }

    /// Bytes that its client has read.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
