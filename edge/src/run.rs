//! The edge process from its configuration to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use overway_client::{Attachments, Discovery, Edge, EdgeConfig, TcpAccess};
use overway_gateway::Gateway;
use overway_telemetry::reload::Reloading;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::admin::{self, Admin};
use crate::identity::{Files, read_key};
use crate::offers::Offers;
use crate::reload::{Live, keep_at_hand};
use crate::services::Services;

/// How long running connections may go on once the edge has been told to stop.
const GATEWAY_GRACE: Duration = Duration::from_secs(5);

/// How long who is being answered by the admin interface may take.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

/// Offers what is to be offered now, for ever.
async fn keep_offers(mut offers: watch::Receiver<Offers>, attachments: Attachments) {
    loop {
        let now = offers.borrow_and_update().clone();
        tokio::select! {
            () = now.keep(attachments.clone()) => return,
            changed = offers.changed() => if changed.is_err() { return },
        }
    }
}

/// Waits for what ends with its token, but for clients of it that do not let go.
async fn end(admin: JoinHandle<()>) {
    let aborting = admin.abort_handle();
    // A panic there has been printed already.
    if timeout(ADMIN_GRACE, admin).await.is_err() {
        aborting.abort();
    }
}

/// Where the relays that an edge has learnt of are kept.
fn state_file(dir: &Path) -> anyhow::Result<PathBuf> {
    let made = std::fs::create_dir_all(dir);
    made.with_context(|| format!("cannot make edge.state_dir {}", dir.display()))?;
    Ok(dir.join("access.json"))
}

/// How it learns of other relays.
fn discovery(config: &Config) -> anyhow::Result<Discovery> {
    let read_ca = |file: &Path| {
        std::fs::read(file)
            .with_context(|| format!("cannot read access.discover_ca_file {}", file.display()))
    };
    Ok(Discovery {
        urls: config.discover.clone(),
        ca_pem: config.discover_ca_file.as_deref().map(read_ca).transpose()?,
        file: config.state_dir.as_deref().map(state_file).transpose()?,
        ..Discovery::default()
    })
}

/// Runs an edge until the token is cancelled, then drains and stops. Meanwhile it reloads for whoever asks.
///
/// # Errors
/// It could not start: a file that cannot be read, a token that does not count, or an address that cannot be bound.
pub async fn run(
    config: Config,
    reloading: Reloading<Config>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let key = read_key(&config.key_file)?;
    let files = Files::read(&config)?;
    let claims = files.claims(&key)?;
    let ca_pem = std::fs::read(&config.ca_file)
        .with_context(|| format!("cannot read the mesh's CA in {}", config.ca_file.display()))?;
    let id = key.public().id();
    tracing::info!(tenant = %config.tenant, name = claims.name, edge = %id, "edge");
    let edge = Edge::start(EdgeConfig {
        relays: config.relays.clone(),
        tcp: TcpAccess { port: config.tcp_port, ..TcpAccess::default() },
        ca_pem,
        key: Arc::new(key),
        token: files.token(),
        tenant_keys: files.keys(),
        handback: config.handback,
    })?;
    if config.nearest {
        edge.discover(discovery(&config)?);
    }
    let named = watch::Sender::new(keep_at_hand(&edge, &config.gateway));
    let offers = watch::Sender::new(Offers::new(&config.offers, &config.gateway, None));
    let (session, resolver) = (edge.session().clone(), Arc::new(Services(edge.clone())));
    let gateway = Arc::new(Gateway::bind(config.gateway.clone(), session, resolver).await?);
    for listening in gateway.local_addrs() {
        let (protocol, address) = (listening.protocol, listening.address);
        match &listening.service {
            Some(service) => tracing::info!(%protocol, %address, service, "forward"),
            None => tracing::info!(%address, "SOCKS5"),
        }
    }
    let admin = Admin {
        tenant: config.tenant.to_string(),
        edge: edge.clone(),
        named: named.subscribe(),
        gateway: Arc::clone(&gateway),
        offers: offers.subscribe(),
        reloads: reloading.reloads(),
    };
    let stop_admin = CancellationToken::new();
    let admin = match config.admin {
        Some(address) => {
            Some(tokio::spawn(admin::serve(address, admin, stop_admin.clone()).await?))
        }
        None => {
            drop(admin);
            None
        }
    };
    let keeping = keep_offers(offers.subscribe(), edge.attachments().clone());
    let mut live = Live { held: config, edge, gateway, offers, named };
    tokio::select! {
        () = files.follow() => {}
        () = keeping => {}
        () = reloading.serve(&mut live) => {}
        () = shutdown.cancelled() => {}
    }
    tracing::info!("stopping");
    // Whoever resolves from now on goes elsewhere.
    live.edge.attachments().offer(Vec::new());
    stop_admin.cancel();
    if let Some(admin) = admin {
        end(admin).await;
    }
    if let Ok(gateway) = Arc::try_unwrap(live.gateway) {
        gateway.shutdown(GATEWAY_GRACE).await;
    }
    live.edge.close().await;
    Ok(())
}
