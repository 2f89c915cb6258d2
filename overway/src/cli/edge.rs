//! `overway edge keygen`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use overway_tenant::EdgeKey;
use serde_json::json;

use super::failure::Failure;
use super::{keys, output};

/// What an edge needs: an end outside the mesh, in an application's own process or beside it.
///
/// An edge makes a key of its own once and keeps it. Its id is the key's thumbprint (RFC 7638). Its application's
/// backend mints tokens that are bound to that id; see `overway token mint --help`.
///
/// Examples:
///   overway edge keygen --out edge.key
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct EdgeArgs {
    #[command(subcommand)]
    command: EdgeCommand,
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

/// Makes the key. The id alone goes to standard output, so that scripts can take it.
pub(crate) fn run(args: EdgeArgs) -> Result<ExitCode, Failure> {
    let EdgeCommand::Keygen { out, json } = args.command;
    let key = EdgeKey::from_seed(keys::random()?);
    keys::write_new(&out, &key.to_pkcs8_pem(), keys::SECRET)?;
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
