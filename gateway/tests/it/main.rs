//! The gateway over real sockets on loopback and sessions over a fabric in memory.

mod limits;
mod mesh;
mod policy;
mod proxy;
mod reload;
mod socks;
mod tcp;
mod udp;
