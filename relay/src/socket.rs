//! Opens the UDP sockets that QUIC endpoints run on.
//!
//! A relay's socket takes the bursts of all its neighbours at once, and a datagram that finds the kernel's
//! buffer full is lost as if on the line. Large buffers are therefore requested, with privilege if the
//! process has it, and read back: the kernel cuts a request down without saying so. A shortfall is no
//! error; [`BufferReport::hint`] says what mends it.
//!
//! An address belongs to one process: a second relay on the same address fails at its start instead of taking half of
//! the datagrams. One socket does not share it at all (no `SO_REUSEADDR`). Where several workers share it, the first
//! socket is bound as if it were alone, so that it fails where anybody else has the address, and lets others in
//! (`SO_REUSEPORT`) only then; the next relay's first socket fails likewise. An
//! IPv6 socket is IPv6 only: an advertised address is one line of one family, `[::]` leaves the port to
//! IPv4, and no source ever shows up as an IPv4-mapped address.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Bytes requested for each of a socket's two kernel buffers: 65 ms at 1 Gbit/s, more than a relay's
/// thread is kept from its socket on a busy machine.
const BUFFER_BYTES: usize = 8 << 20;

/// What the kernel gave of the buffers that were requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferReport {
    /// Bytes requested for each direction.
    pub wanted: usize,
    /// Bytes given for receiving.
    pub receive: usize,
    /// Bytes given for sending.
    pub send: usize,
}

/// Why a socket could not be opened, naming the address and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} UDP {address}: {source}{}", remedy(source))]
pub(crate) struct SocketError {
    address: SocketAddr,
    step: Step,
    source: io::Error,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Create,
    Configure,
    Bind,
    Share,
}

/// Opens a non-blocking UDP socket bound to `address`, and says which buffers it got.
///
/// # Errors
/// Names the address and the step that failed; the usual one is that the address is in use or is not
/// this machine's.
pub(crate) fn open(address: SocketAddr) -> Result<(UdpSocket, BufferReport), SocketError> {
    open_as(Sharing::Alone, address)
}

/// Opens so many sockets on one address, for as many workers, in their order.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_shared(
    address: SocketAddr,
    workers: usize,
) -> Result<Vec<(UdpSocket, BufferReport)>, SocketError> {
    let first = open(address)?;
    if workers <= 1 {
        return Ok(vec![first]);
    }
    let failed = |source| SocketError { address, step: Step::Share, source };
    share(&SockRef::from(&first.0)).map_err(failed)?;
    // The port is known only now if any would do.
    let bound = first.0.local_addr().map_err(failed)?;
    let others = (1..workers).map(|_| open_as(Sharing::Shared, bound));
    std::iter::once(Ok(first)).chain(others).collect()
}

/// Whether other sockets of this process may have the same address.
#[derive(Clone, Copy, Debug)]
enum Sharing {
    Alone,
    Shared,
}

fn open_as(
    sharing: Sharing,
    address: SocketAddr,
) -> Result<(UdpSocket, BufferReport), SocketError> {
    let failed = |step| move |source| SocketError { address, step, source };

    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
        .map_err(failed(Step::Create))?;
    if address.is_ipv6() {
        socket.set_only_v6(true).map_err(failed(Step::Configure))?;
    }
    socket.set_nonblocking(true).map_err(failed(Step::Configure))?;
    match sharing {
        Sharing::Alone => {}
        Sharing::Shared => share(&SockRef::from(&socket)).map_err(failed(Step::Share))?,
    }
    request_buffers(&socket);
    let report = read_buffers(&socket).map_err(failed(Step::Configure))?;
    socket.bind(&address.into()).map_err(failed(Step::Bind))?;
    Ok((socket.into(), report))
}

#[cfg(unix)]
fn share(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(unix))]
fn share(_socket: &SockRef<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

impl BufferReport {
    /// Says which buffer is short and the sysctl that mends it, or `None` if nothing is short.
    pub fn hint(&self) -> Option<String> {
        let short = [
            ("receive", self.receive, "net.core.rmem_max"),
            ("send", self.send, "net.core.wmem_max"),
        ];
        let hints: Vec<String> = short
            .into_iter()
            .filter(|&(_, given, _)| given < self.wanted)
            .map(|(direction, given, sysctl)| {
                let wanted = self.wanted;
                format!(
                    "{direction} buffer is {given} bytes of {wanted} wanted: sysctl -w {sysctl}={wanted}"
                )
            })
            .collect();
        (!hints.is_empty()).then(|| hints.join("; "))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create a socket for",
            Self::Configure => "configure the socket of",
            Self::Bind => "bind",
            Self::Share => "share between workers",
        })
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            " (another process has it; choose another port or stop that one)"
        }
        io::ErrorKind::AddrNotAvailable => {
            " (no interface of this machine has it; listen on one that does, and advertise the public one)"
        }
        io::ErrorKind::PermissionDenied => {
            " (ports below 1024 need a privilege; choose a higher one)"
        }
        _ => "",
    }
}

/// Requests the buffers beyond the system's limit, which only a privileged process may, or else up to
/// it. A refusal is not an error: what counts is what is read back.
#[cfg(target_os = "linux")]
fn request_buffers(socket: &Socket) {
    use rustix::net::sockopt;
    if sockopt::set_socket_recv_buffer_size_force(socket, BUFFER_BYTES).is_err() {
        let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, BUFFER_BYTES).is_err() {
        let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    }
}

/// Requests the buffers. A refusal is not an error: what counts is what is read back.
#[cfg(not(target_os = "linux"))]
fn request_buffers(socket: &Socket) {
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(BUFFER_BYTES);
}

fn read_buffers(socket: &Socket) -> io::Result<BufferReport> {
    // Linux doubles a request to make room for its own bookkeeping, and reads back the double
    // (socket(7)).
    let share = if cfg!(target_os = "linux") { 2 } else { 1 };
    Ok(BufferReport {
        wanted: BUFFER_BYTES,
        receive: socket.recv_buffer_size()? / share,
        send: socket.send_buffer_size()? / share,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn a_socket_is_bound_where_asked_and_reports_its_buffers() {
        let (socket, report) = open((Ipv4Addr::LOCALHOST, 0).into()).unwrap();

        let local = socket.local_addr().unwrap();
        assert_eq!(local.ip(), Ipv4Addr::LOCALHOST);
        assert_ne!(local.port(), 0);
        assert_eq!(report.wanted, BUFFER_BYTES);
        assert!(report.receive > 0 && report.send > 0);
        let short = report.receive < report.wanted || report.send < report.wanted;
        assert_eq!(report.hint().is_some(), short);
    }

    #[test]
    fn an_address_in_use_is_named_with_the_remedy() {
        let (first, _) = open((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = first.local_addr().unwrap();

        let error = open(address).unwrap_err();

        assert_eq!(error.address, address);
        let text = error.to_string();
        assert!(text.starts_with(&format!("cannot bind UDP {address}: ")), "{text}");
        assert!(text.contains("another process has it"), "{text}");
    }

    #[test]
    fn an_address_that_workers_share_is_nobody_elses() {
        let ours = open_shared((Ipv4Addr::LOCALHOST, 0).into(), 3).unwrap();
        let address = ours[0].0.local_addr().unwrap();
        assert_eq!(ours.len(), 3);
        assert!(ours.iter().all(|(socket, _)| socket.local_addr().unwrap() == address));

        assert_eq!(open(address).unwrap_err().address, address);
        assert!(open_shared(address, 3).is_err());
    }

    #[test]
    fn an_ipv6_socket_leaves_the_port_to_ipv4() {
        // A machine without IPv6 has nothing to show here.
        let Ok((six, _)) = open((Ipv6Addr::UNSPECIFIED, 0).into()) else { return };

        assert!(socket2::SockRef::from(&six).only_v6().unwrap());
    }

    #[test]
    fn a_short_buffer_names_its_sysctl() {
        let report = BufferReport { wanted: 1_000, receive: 400, send: 1_000 };
        let hint = report.hint().unwrap();

        assert!(hint.contains("sysctl -w net.core.rmem_max=1000"), "{hint}");
        assert!(!hint.contains("wmem_max"), "{hint}");
        assert_eq!(BufferReport { receive: 1_000, ..report }.hint(), None);
    }
}
