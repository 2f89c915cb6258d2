//! The scheduler as a whole, in this process: real loopback QUIC and HTTP, real files.

mod access;
mod admin;
mod control;
mod dashboard;
mod join;
mod mesh;
mod operator;
mod quality;
mod tenants;
