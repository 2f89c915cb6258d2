//! `overway tenant`: the applications that use the mesh, their keys and their quotas.

mod told;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use overway_scheduler::api::{
    KeyRequest, QuotaBody, RevokedKeyRequest, RevokedTokenRequest, TenantBody, TenantCellRequest,
    TenantPolicyRequest, TenantRequest, TenantsBody,
};
use overway_tenant::{JwkSet, Kid, TenantKey, TenantName};
use serde_json::json;

use super::admin::{AdminArgs, Client};
use super::failure::Failure;
use super::{keys, output};

/// Say which applications may use the mesh, and how much of it.
///
/// A tenant is an application. Its backend signs tokens for its edges with a key of its own, of which the mesh knows
/// the public half; what is revoked counts for nothing on every relay within seconds. Keys are rotated without a
/// pause: add the new one, sign with it, and revoke the old one when its tokens have ended.
///
/// Examples:
///   overway tenant add im --policy eu --attachments 10000
///   overway tenant add chat --cell eu
///   overway tenant keygen --kid 2026-01 --out im.key
///   overway tenant key add im --key im.jwks.json
///   overway tenant show im
///   overway tenant token revoke im JTI
///   overway tenant key revoke im 2026-01
///   overway tenant quota im --bulk-bps 50000000
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct TenantArgs {
    #[command(subcommand)]
    command: TenantCommand,
}

#[derive(Debug, Subcommand)]
enum TenantCommand {
    /// Add a tenant. It has no keys yet, so nobody attaches for it.
    #[command(visible_alias = "create")]
    Add {
        /// Its name: a-z, 0-9 and hyphen.
        name: TenantName,
        /// The policy whose routes its traffic takes; everybody's if not given. See `overway policy`.
        #[arg(long, value_name = "POLICY")]
        policy: Option<String>,
        /// The cell that its edges, traffic and records stay in. See `overway cell`.
        #[arg(long, value_name = "CELL", conflicts_with = "policy")]
        cell: Option<String>,
        #[command(flatten)]
        quota: QuotaArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Show all tenants.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show a tenant: its keys, what is revoked, its quota.
    Show {
        /// Its name.
        name: TenantName,
        #[command(flatten)]
        common: Common,
    },
    /// Remove a tenant: its edges are turned away everywhere.
    Remove {
        /// Its name.
        name: TenantName,
        #[command(flatten)]
        common: Common,
    },
    /// Add and revoke keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Revoke tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Set what a tenant's edges may use together, in place of what was said before. What is not given has no limit.
    Quota {
        /// The tenant's name.
        name: TenantName,
        #[command(flatten)]
        quota: QuotaArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Set the policy whose routes a tenant's traffic takes; everybody's if none is named.
    Policy {
        /// The tenant's name.
        name: TenantName,
        /// The policy's name; see `overway policy list`.
        policy: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Set the cell that a tenant's edges, traffic and records stay in; none if none is named.
    Cell {
        /// The tenant's name.
        name: TenantName,
        /// The cell's name; see `overway cell list`.
        cell: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Make a signing key for a tenant's backend. Talks to nobody and overwrites nothing.
    Keygen {
        /// The key's name, which tokens carry: such as a date.
        #[arg(long, value_name = "KID")]
        kid: Kid,
        /// The file for the private key: PKCS #8 in PEM, readable by its owner only. Beside it comes the public
        /// half, FILE with the ending .jwks.json.
        #[arg(long, value_name = "FILE", default_value = "tenant.key")]
        out: PathBuf,
        /// Print JSON: the files, and the public key as a JSON Web Key.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Add a public key; tokens that it has signed count from then on.
    Add {
        /// The tenant's name.
        name: TenantName,
        /// The public key: a JSON Web Key, a set of them, or PEM with --kid.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The key's name, if the file does not say it.
        #[arg(long, value_name = "KID")]
        kid: Option<String>,
        /// Revoke this key in the same moment: when it has leaked, or nothing is signed by it any more.
        #[arg(long, value_name = "KID")]
        replaces: Option<Kid>,
        #[command(flatten)]
        common: Common,
    },
    /// Revoke a key for good, and with it every token that it has signed.
    Revoke {
        /// The tenant's name.
        name: TenantName,
        /// The key's name.
        kid: Kid,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Revoke one token for good.
    Revoke {
        /// The tenant's name.
        name: TenantName,
        /// The token's name, its claim jti; `overway token check` shows it.
        jti: overway_tenant::TokenId,
        #[command(flatten)]
        common: Common,
    },
}

/// What a tenant's edges may use together.
#[derive(Clone, Copy, Debug, Args)]
struct QuotaArgs {
    /// Edges attached at one relay at once.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    attachments: Option<u32>,
    /// Flows that they have open at one relay at once.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    flows: Option<u32>,
    /// Bits per second that they send at one relay in realtime.
    #[arg(long, value_name = "BPS", value_parser = clap::value_parser!(u64).range(1..))]
    realtime_bps: Option<u64>,
    /// The same, interactive.
    #[arg(long, value_name = "BPS", value_parser = clap::value_parser!(u64).range(1..))]
    interactive_bps: Option<u64>,
    /// The same, bulk.
    #[arg(long, value_name = "BPS", value_parser = clap::value_parser!(u64).range(1..))]
    bulk_bps: Option<u64>,
    /// Bytes that they send in a calendar month (UTC), in the whole mesh.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    bytes_per_month: Option<u64>,
}

#[derive(Debug, Args)]
struct Common {
    /// Print JSON, as the admin interface has it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Talks to the scheduler, or makes a key.
pub(crate) fn run(args: TenantArgs) -> Result<ExitCode, Failure> {
    match args.command {
        TenantCommand::Add { name, policy, cell, quota, common } => {
            let (name, quota) = (name.to_string(), QuotaBody::from(quota));
            let request = TenantRequest { name, policy, cell, quota };
            let body: TenantBody = Client::new(&common.admin)?.post("/v1/tenants", &request)?;
            answer(&common, &body, &told::added(&body))?;
        }
        TenantCommand::List { common } => {
            let body: TenantsBody = Client::new(&common.admin)?.get("/v1/tenants")?;
            answer(&common, &body, &told::table(&body.tenants))?;
        }
        TenantCommand::Show { name, common } => {
            let body: TenantBody = Client::new(&common.admin)?.get(&path(&name, ""))?;
            answer(&common, &body, &told::whole(&body))?;
        }
        TenantCommand::Remove { name, common } => {
            let client = Client::new(&common.admin)?;
            client.delete(&path(&name, ""))?;
            match common.json {
                true => output::print_json(&client.get::<TenantsBody>("/v1/tenants")?)?,
                false => output::print(&format!("removed tenant {name}\n"))?,
            }
        }
        TenantCommand::Key(command) => key(command)?,
        TenantCommand::Token(TokenCommand::Revoke { name, jti, common }) => {
            let request = RevokedTokenRequest { jti: jti.to_string() };
            let at = path(&name, "/revoked-tokens");
            let body: TenantBody = Client::new(&common.admin)?.post(&at, &request)?;
            answer(&common, &body, &format!("revoked token {jti} of {name}\n"))?;
        }
        TenantCommand::Quota { name, quota, common } => {
            let at = path(&name, "/quota");
            let body: TenantBody = Client::new(&common.admin)?.put(&at, &QuotaBody::from(quota))?;
            let text = format!("tenant {name}: {}\n", told::quota(&body.quota));
            answer(&common, &body, &text)?;
        }
        TenantCommand::Policy { name, policy, common } => {
            let at = path(&name, "/policy");
            let request = TenantPolicyRequest { policy };
            let body: TenantBody = Client::new(&common.admin)?.put(&at, &request)?;
            let routes = told::routes(&body);
            answer(&common, &body, &format!("tenant {name} takes {routes}\n"))?;
        }
        TenantCommand::Cell { name, cell, common } => {
            let at = path(&name, "/cell");
            let body: TenantBody =
                Client::new(&common.admin)?.put(&at, &TenantCellRequest { cell })?;
            let routes = told::routes(&body);
            answer(&common, &body, &format!("tenant {name} takes {routes}\n"))?;
        }
        TenantCommand::Keygen { kid, out, json } => keygen(&kid, &out, json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn key(command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Add { name, key, kid, replaces, common } => {
            let set = keys::public_keys(&key, kid.as_deref())?;
            let client = Client::new(&common.admin)?;
            let mut replaces = replaces.map(|kid| kid.to_string());
            let mut body = TenantBody::default();
            for key in set.keys {
                let request = KeyRequest { key, replaces: replaces.take() };
                body = client.post(&path(&name, "/keys"), &request)?;
            }
            answer(&common, &body, &told::keys(&body))
        }
        KeyCommand::Revoke { name, kid, common } => {
            let request = RevokedKeyRequest { kid: kid.to_string() };
            let at = path(&name, "/revoked-keys");
            let body: TenantBody = Client::new(&common.admin)?.post(&at, &request)?;
            answer(&common, &body, &told::keys(&body))
        }
    }
}

fn keygen(kid: &Kid, out: &std::path::Path, json: bool) -> Result<(), Failure> {
    let key = TenantKey::from_seed(keys::random()?);
    let public = key.public().to_jwk().named(kid);
    let set = JwkSet { keys: vec![public.clone()] };
    let set = serde_json::to_string_pretty(&set).map_err(Failure::failed)? + "\n";
    let jwks = out.with_extension("jwks.json");
    keys::write_new(out, &key.to_pkcs8_pem(), keys::SECRET)?;
    keys::write_new(&jwks, &set, keys::PUBLIC)?;
    if json {
        return output::print_json(&json!({ "key": public, "private": out, "public": jwks }));
    }
    let (private, jwks) = (out.display(), jwks.display());
    output::print(&format!(
        "wrote {private}: secret, for the backend alone\nwrote {jwks}: public\nnext:\n  \
         overway tenant key add NAME --key {jwks}\n"
    ))
}

fn path(name: &TenantName, rest: &str) -> String {
    format!("/v1/tenants/{name}{rest}")
}

fn answer(common: &Common, body: &impl serde::Serialize, text: &str) -> Result<(), Failure> {
    if common.json { output::print_json(body) } else { output::print(text) }
}

impl From<QuotaArgs> for QuotaBody {
    fn from(args: QuotaArgs) -> Self {
        let QuotaArgs {
            attachments,
            flows,
            realtime_bps,
            interactive_bps,
            bulk_bps,
            bytes_per_month,
        } = args;
        Self { attachments, flows, realtime_bps, interactive_bps, bulk_bps, bytes_per_month }
    }
}
