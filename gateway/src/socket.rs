//! Sockets as the gateway wants them.

use std::io;
use std::net::SocketAddr;
use std::sync::Once;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Connections that the kernel completes ahead of our accepting them.
const BACKLOG: i32 = 1024;
/// Kernel buffer of a UDP forward's socket, each way: all its clients share it. 4 MiB are a third of a
/// second at 100 Mbit/s, or 2,900 full datagrams.
pub(crate) const FORWARD_BUFFER_BYTES: usize = 4 << 20;
/// Kernel buffer of the socket of one served flow, each way.
pub(crate) const SERVED_FLOW_BUFFER_BYTES: usize = 1 << 20;
/// Silence after which the kernel asks whether a TCP peer is still there. Below the five minutes after
/// which many NATs and firewalls forget a connection.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// Between two unanswered questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Unanswered questions after which the connection counts as reset.
const KEEPALIVE_RETRIES: u32 = 6;

/// Linux says twice what it grants, for it keeps its own book-keeping in the buffer (socket(7)).
const KERNEL_FACTOR: usize = if cfg!(target_os = "linux") { 2 } else { 1 };

/// Says once per process that the kernel gave less buffer than asked for.
static SHORTFALL: Once = Once::new();

/// A listening TCP socket.
pub(crate) fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted gateway must not wait for its old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A UDP socket, with kernel buffers of `buffer_bytes` each way if the kernel grants them.
pub(crate) fn bind_udp(address: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.set_recv_buffer_size(buffer_bytes)?;
    socket.set_send_buffer_size(buffer_bytes)?;
    let granted = socket.recv_buffer_size()?.min(socket.send_buffer_size()?) / KERNEL_FACTOR;
    if granted < buffer_bytes {
        SHORTFALL.call_once(|| {
            tracing::info!(
                wanted_bytes = buffer_bytes,
                granted_bytes = granted,
                "UDP socket buffers are smaller than asked for and may overflow in bursts: raise \
                 net.core.rmem_max and net.core.wmem_max with sysctl"
            );
        });
    }
    UdpSocket::from_std(socket.into())
}

/// Makes a connection send at once what is written, and notice a peer that vanished.
pub(crate) fn prepare_tcp(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_prepared_connection_asks_whether_its_peer_is_there() {
        let listener = listen_tcp(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();

        prepare_tcp(&tcp).unwrap();

        let options = SockRef::from(&tcp);
        assert!(options.keepalive().unwrap());
        assert_eq!(options.tcp_keepalive_time().unwrap(), KEEPALIVE_TIME);
        assert!(tcp.nodelay().unwrap());
    }
}
