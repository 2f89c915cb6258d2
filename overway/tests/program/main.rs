//! The program as it is run: real processes, real files, drawn ports.

mod keeping;
mod mistakes;
mod operations;
mod operator;
#[cfg(feature = "otlp")]
mod otlp;
mod program;
mod reload;
mod routes;
mod tenants;
