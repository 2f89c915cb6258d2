//! `overway edge` and `overway edge keygen`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use overway_edge::Config;
use overway_tenant::EdgeKey;
use serde_json::json;

use super::failure::Failure;
use super::{keys, logging, output, runtime};

/// Run an edge: an end outside the mesh, beside an application that speaks TCP and UDP.
///
/// An edge makes a key of its own once and keeps it. Its id is the key's thumbprint (RFC 7638). Its application's
/// backend mints tokens that are bound to that id; see `overway token mint --help`.
///
/// Its configuration names the tenant, the files with key, token and the tenant's public keys, two access relays or more, and what it
/// listens on ([[forward]], [[socks]]) or offers ([[service]]).
///
/// Examples:
///   overway edge keygen --out edge.key
///   overway edge --config edge.toml
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true)]
pub(crate) struct EdgeArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "edge.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<EdgeCommand>,
}

#[derive(Debug, Subcommand)]
enum EdgeCommand {
    /// Make an edge's key, and print the edge's id. Overwrites nothing.
    Keygen {
        /// The file for the private key: PKCS #8 in PEM, readable by its owner only.
        #[arg(long, value_name = "FILE", default_value = "edge.key")]
        out: PathBuf,
        /// Print JSON: the id, the public key as a JSON Web Key, the file.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the edge until a signal, or makes a key.
pub(crate) fn run(args: EdgeArgs) -> Result<ExitCode, Failure> {
    match args.command {
        None => {
            let path = args.config;
            let config = Config::load(&path).map_err(Failure::configuration)?;
            logging::configure(config.log.as_deref())?;
            let admin = config.admin.map(|admin| Box::new(move || Some(admin)) as _);
            let read = move || Config::load(&path);
            runtime::serve(admin, read, |reloading, shutdown| {
                overway_edge::run(config, reloading, shutdown)
            })
        }
        Some(EdgeCommand::Keygen { out, json }) => keygen(&out, json),
    }
}

/// Makes the key. The id alone goes to standard output, so that scripts can take it.
fn keygen(out: &Path, json: bool) -> Result<ExitCode, Failure> {
    let key = EdgeKey::from_seed(keys::random()?);
    keys::write_new(out, &key.to_pkcs8_pem(), keys::SECRET)?;
    if json {
        let body = json!({ "id": key.id().to_string(), "key": key.public().to_jwk(), "file": out });
        output::print_json(&body)?;
    } else {
        output::print(&format!("{}\n", key.id()))?;
        eprintln!(
            "wrote {}: secret, and never to leave this edge; the id above is for the backend",
            out.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}
