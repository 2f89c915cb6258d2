//! `overway token`: what an application's backend does, for trying things out and for scripts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use data_encoding::BASE64URL_NOPAD;
use overway_tenant::{
    Claims, EdgeId, EdgeKey, Kid, Names, TenantKey, TenantKeys, TenantName, TokenError, mint,
    verify,
};
use overway_wire::Class;
use serde_json::{Value, json};

use super::failure::Failure;
use super::text::{duration, parse_duration};
use super::{keys, output};

/// Mint tokens for edges, and check them.
///
/// A token says who an edge is, which services it may use and offer, and for how long. It is a JSON Web Token (RFC
/// 7519) that the tenant's key has signed (EdDSA), bound to the edge's own key by cnf.jkt. A backend mints
/// them itself; docs/SERVICES.md shows how in Python and JavaScript.
///
/// Examples:
///   overway tenant keygen --kid 2026-01 --out im.key
///   overway edge keygen --out edge.key
///   overway token mint --key im.key --kid 2026-01 --tenant im --edge-key edge.key --services chat --expires 1h
///   overway token check --tenant-keys im.jwks.json TOKEN
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Sign a token, and print it.
    Mint(MintArgs),
    /// Say what a token says, and whether it counts, as a relay would. Exit code 1 if it does not.
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct MintArgs {
    /// The tenant's private key, as `overway tenant keygen` makes it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The name of that key, as the mesh knows it.
    #[arg(long, value_name = "KID")]
    kid: Kid,
    /// The tenant.
    #[arg(long, value_name = "NAME")]
    tenant: TenantName,
    #[command(flatten)]
    edge: EdgeArgs,
    /// What to call the edge (the claim sub); its id if not given.
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Services that it may use; * for all, none if not given.
    #[arg(long, value_name = "SERVICE", value_delimiter = ',', num_args = 1..)]
    services: Vec<String>,
    /// Services that it may offer; * for all, none if not given.
    #[arg(long, value_name = "SERVICE", value_delimiter = ',', num_args = 1..)]
    offers: Vec<String>,
    /// Classes in which it may send.
    #[arg(
        long,
        value_name = "CLASS",
        value_delimiter = ',',
        num_args = 1..,
        default_value = "realtime,interactive,bulk",
        value_parser = class
    )]
    classes: Vec<Class>,
    /// How long the token counts: a number and s, m, h or d; at most 31d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    expires: Duration,
    /// Print JSON: the token, and its claims.
    #[arg(long)]
    json: bool,
}

/// Whose token it is.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct EdgeArgs {
    /// The edge's key file, from which its id is taken.
    #[arg(long, value_name = "FILE")]
    edge_key: Option<PathBuf>,
    /// The edge's id, as `overway edge keygen` prints it.
    // One in sixty-four begins with a hyphen.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    jkt: Option<EdgeId>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The token; - reads it from standard input.
    token: String,
    /// The tenant's public keys: a JSON Web Key Set, one JSON Web Key, or PEM with --kid.
    #[arg(long, value_name = "FILE")]
    tenant_keys: PathBuf,
    /// The name of the key in a PEM file.
    #[arg(long, value_name = "KID")]
    kid: Option<String>,
    /// Whose keys these are; whom the token names if not given.
    #[arg(long, value_name = "NAME")]
    tenant: Option<TenantName>,
    /// Check also that the token is for the edge of this id.
    // One in sixty-four begins with a hyphen.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    jkt: Option<EdgeId>,
    /// Print JSON: the claims.
    #[arg(long)]
    json: bool,
}

/// Mints or checks; talks to nobody.
pub(crate) fn run(args: TokenArgs) -> Result<ExitCode, Failure> {
    match args.command {
        TokenCommand::Mint(args) => mint_token(args)?,
        TokenCommand::Check(args) => check_token(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The token alone goes to standard output, so that scripts can take it.
fn mint_token(args: MintArgs) -> Result<(), Failure> {
    let key = keys::parsed(&args.key, TenantKey::from_pkcs8_pem)?;
    let edge = args.edge.id()?;
    let issued = now();
    let claims = Claims {
        tenant: args.tenant,
        name: args.name.unwrap_or_else(|| edge.to_string()),
        services: Names::of(args.services.iter().map(String::as_str)),
        offers: Names::of(args.offers.iter().map(String::as_str)),
        classes: args.classes.into_iter().collect::<BTreeSet<_>>(),
        issued,
        not_before: None,
        expires: issued.saturating_add(args.expires.as_secs()),
        id: keys::random_id()?.parse().map_err(Failure::failed)?,
        edge,
    };
    let token = mint(&claims, &key, &args.kid).map_err(Failure::configuration)?;
    if args.json {
        output::print_json(&json!({ "token": token, "claims": as_json(&claims)? }))
    } else {
        output::print(&format!("{token}\n"))
    }
}

fn check_token(args: &CheckArgs) -> Result<(), Failure> {
    let token = match args.token.as_str() {
        "-" => keys::read(Path::new("-"))?.trim().to_owned(),
        token => token.to_owned(),
    };
    let set = keys::public_keys(&args.tenant_keys, args.kid.as_deref())?;
    // Where nobody says whose keys they are, the token does, and a signature by one of them proves it.
    let tenant = match &args.tenant {
        Some(tenant) => tenant.clone(),
        None => named_in(&token)?,
    };
    let keys = TenantKeys::from_jwks(tenant, &set).map_err(|error| {
        Failure::Configuration(format!("{}: {error}", args.tenant_keys.display()))
    })?;
    let claims = verify(&token, &keys, SystemTime::now()).map_err(Failure::failed)?;
    if let Some(edge) = args.jkt.filter(|&edge| edge != claims.edge) {
        let error = format!("the token is for edge {}, not for {edge}", claims.edge);
        return Err(Failure::Failed(error));
    }
    if args.json { output::print_json(&as_json(&claims)?) } else { output::print(&told(&claims)) }
}

/// Whom a token names, whether or not it is theirs.
fn named_in(token: &str) -> Result<TenantName, Failure> {
    let parts: Vec<&str> = token.split('.').collect();
    let payload = <[&str; 3]>::try_from(parts)
        .ok()
        .and_then(|[_, payload, _]| BASE64URL_NOPAD.decode(payload.as_bytes()).ok());
    let json = payload.ok_or_else(|| Failure::failed(TokenError::Parts))?;
    Ok(Claims::from_json(&json).map_err(Failure::failed)?.tenant)
}

fn told(claims: &Claims) -> String {
    let names = |names: &Names| match names.to_list().as_slice() {
        [] => "none".to_owned(),
        ["*"] => "all".to_owned(),
        names => names.join(", "),
    };
    let classes: Vec<_> = claims.classes.iter().map(|class| class.name()).collect();
    let left = duration(Duration::from_secs(claims.expires.saturating_sub(now())));
    let Claims { tenant, name, services, offers, id, edge, .. } = claims;
    format!(
        "the token counts for another {left}\ntenant    {tenant}\nedge      {name}\nid        {edge}\n\
         services  {}\noffers    {}\nclasses   {}\njti       {id}\n",
        names(services),
        names(offers),
        classes.join(", ")
    )
}

fn as_json(claims: &Claims) -> Result<Value, Failure> {
    serde_json::from_slice(&claims.to_json()).map_err(Failure::failed)
}

impl EdgeArgs {
    fn id(&self) -> Result<EdgeId, Failure> {
        match (&self.edge_key, self.jkt) {
            (Some(file), _) => Ok(keys::parsed(file, EdgeKey::from_pkcs8_pem)?.id()),
            (None, Some(id)) => Ok(id),
            (None, None) => {
                Err(Failure::Configuration("give --edge-key FILE or --jkt ID".to_owned()))
            }
        }
    }
}

fn class(text: &str) -> Result<Class, String> {
    let wrong = || format!("{text:?} is no class: there are realtime, interactive and bulk");
    Class::from_name(text).ok_or_else(wrong)
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
