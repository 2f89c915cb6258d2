//! The gateway over real sockets on loopback and sessions over a fabric in memory.

mod mesh;
mod policy;
mod tcp;
mod udp;
