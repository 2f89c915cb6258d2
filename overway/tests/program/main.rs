//! The program as it is run: real processes, real files, drawn ports.

mod mistakes;
mod operator;
mod program;
mod routes;
mod tenants;
