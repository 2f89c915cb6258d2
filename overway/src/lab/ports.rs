//! Loopback ports for processes that are to be started, and started again, on the same ones.
//!
//! A port is found by binding it and is held until its process is spawned. It is drawn from below the
//! range from which systems give ports to outgoing connections (32,768 on Linux, 49,152 elsewhere): a
//! port from that range could be taken by any client while its relay is dead.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Where ports are drawn from.
const RANGE: std::ops::Range<u16> = 12_000..32_000;
/// Ports tried before giving up.
const TRIES_MAX: u32 = 2_000;

/// Ports that are held.
#[derive(Debug)]
pub(super) struct Ports {
    random: fastrand::Rng,
    drawn: std::collections::BTreeSet<u16>,
}

/// A held port: nobody else can bind it until this is dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "the sockets are held, not used")]
pub(super) enum Held {
    Udp(UdpSocket),
    Tcp(TcpListener),
}

impl Ports {
    /// Draws differently in every process, so that two labs do not try the same ports.
    pub(super) fn new() -> Self {
        Self { random: fastrand::Rng::new(), drawn: std::collections::BTreeSet::new() }
    }

    /// Holds a free UDP port.
    pub(super) fn udp(&mut self) -> io::Result<(SocketAddr, Held)> {
        self.draw(|address| UdpSocket::bind(address).map(Held::Udp))
    }

    /// Holds a free TCP port.
    pub(super) fn tcp(&mut self) -> io::Result<(SocketAddr, Held)> {
        self.draw(|address| TcpListener::bind(address).map(Held::Tcp))
    }

    /// Tries ports until `bind` succeeds; never the same twice, whatever the protocol.
    fn draw(
        &mut self,
        bind: impl Fn(SocketAddr) -> io::Result<Held>,
    ) -> io::Result<(SocketAddr, Held)> {
        let mut last = io::Error::new(io::ErrorKind::AddrInUse, "all ports tried are in use");
        for _ in 0..TRIES_MAX {
            let port = self.random.u16(RANGE);
            if !self.drawn.insert(port) {
                continue;
            }
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            match bind(address) {
                Ok(held) => return Ok((address, held)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_ports_are_all_different_and_taken() {
        let mut ports = Ports::new();

        let held: Vec<(SocketAddr, Held)> =
            (0..50).map(|n| if n % 2 == 0 { ports.udp() } else { ports.tcp() }.unwrap()).collect();

        let addresses: std::collections::BTreeSet<SocketAddr> =
            held.iter().map(|(address, _)| *address).collect();
        assert_eq!(addresses.len(), held.len());
        for (address, holder) in &held {
            match holder {
                Held::Udp(_) => assert!(UdpSocket::bind(address).is_err()),
                Held::Tcp(_) => assert!(TcpListener::bind(address).is_err()),
            }
        }
    }

    #[test]
    fn a_port_is_drawn_again_when_it_is_taken() {
        let mut ports = Ports::new();
        let tries = std::cell::Cell::new(0);

        let (address, _held) = ports
            .draw(|address| {
                tries.set(tries.get() + 1);
                if tries.get() < 3 {
                    return Err(io::ErrorKind::AddrInUse.into());
                }
                UdpSocket::bind(address).map(Held::Udp)
            })
            .unwrap();

        assert!(RANGE.contains(&address.port()));
        assert!(tries.get() >= 3);
    }
}
