//! The edge process from its configuration to its end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use overway_client::{AttachConfig, Attachments, Offering, Port, ResolveError};
use overway_gateway::Gateway;
use overway_session::{EdgePort, FarEnd, SessionConfig, SessionEndpoint};
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::admin::{self, Admin};
use crate::directory::{Ask, CLASS, Directory};
use crate::identity::{Files, read_key};
use crate::offers::Offers;

/// How long running connections may go on once the edge has been told to stop.
const GATEWAY_GRACE: Duration = Duration::from_secs(5);

/// Runs an edge until the token is cancelled, then drains and stops.
///
/// # Errors
/// It could not start: a file that cannot be read, a token that does not count, or an address that cannot be bound.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let key = read_key(&config.key_file)?;
    let files = Files::read(&config)?;
    let claims = files.claims(&key)?;
    let ca_pem = std::fs::read(&config.ca_file)
        .with_context(|| format!("cannot read the mesh's CA in {}", config.ca_file.display()))?;
    let id = key.public().id();
    tracing::info!(tenant = %config.tenant, name = claims.name, edge = %id, "edge");
    let key = Arc::new(key);
    let (relays, token) = (config.relays.clone(), files.token());
    let (attachments, port) =
        Attachments::start(AttachConfig { relays, ca_pem, key: Arc::clone(&key), token })?;
    let Port { sender, receiver, whereabouts } = port;
    let port = EdgePort { sender, receiver, whereabouts };
    let session = SessionEndpoint::for_edge(SessionConfig::default(), port, files.identity(key))?;
    let named = config.gateway.forwards.iter().map(|forward| forward.service.clone());
    let asked = Arc::new(Relays(attachments.clone()));
    let directory = Arc::new(Directory::new(asked, named));
    let offers = Offers::new(&config.offers, &config.gateway);
    let resolver = Arc::clone(&directory) as _;
    let gateway = Arc::new(Gateway::bind(config.gateway.clone(), session.clone(), resolver).await?);
    for listening in gateway.local_addrs() {
        let (protocol, address) = (listening.protocol, listening.address);
        match &listening.service {
            Some(service) => tracing::info!(%protocol, %address, service, "forward"),
            None => tracing::info!(%address, "SOCKS5"),
        }
    }
    let admin = Admin {
        tenant: config.tenant.to_string(),
        edge: id.to_string(),
        attachments: attachments.clone(),
        session: session.clone(),
        gateway: Arc::clone(&gateway),
        directory: Arc::clone(&directory),
        offers: offers.clone(),
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
    tokio::select! {
        () = files.follow() => {}
        () = directory.keep() => {}
        () = offers.keep(attachments.clone()) => {}
        () = shutdown.cancelled() => {}
    }
    tracing::info!("stopping");
    // Whoever resolves from now on goes elsewhere.
    attachments.offer(Vec::new());
    stop_admin.cancel();
    if let Some(admin) = admin {
        // It ends with its token; a panic there has been printed already.
        let _ = admin.await;
    }
    if let Ok(gateway) = Arc::try_unwrap(gateway) {
        gateway.shutdown(GATEWAY_GRACE).await;
    }
    session.close().await;
    attachments.close().await;
    Ok(())
}

/// Asks the access relays.
struct Relays(Attachments);

impl Ask for Relays {
    fn ask(
        &self,
        service: String,
    ) -> Pin<Box<dyn Future<Output = Option<Vec<FarEnd>>> + Send + '_>> {
        Box::pin(async move {
            match self.0.resolve(&service, CLASS).await {
                Ok(found) => {
                    let far = |Offering { edge: id, whereabouts }| FarEnd::Edge {
                        id,
                        whereabouts: Some(whereabouts),
                    };
                    Some(found.into_iter().map(far).collect())
                }
                Err(ResolveError::Forbidden) => Some(Vec::new()),
                Err(ResolveError::Unanswered) => None,
            }
        })
    }
}
