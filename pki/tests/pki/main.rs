//! The crate through its public API: real files in temporary directories, and real handshakes.

mod access;
mod authority;
mod credentials;
mod handshake;
mod quic;
mod support;
