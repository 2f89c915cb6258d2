//! Going on with another configuration. What can fail is done first, and changes nothing where it does.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use overway_dispatch::Locations;
use overway_telemetry::reload::{self, Reloaded, Reloading};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::control::Shared;

/// What of a configuration may change while the scheduler runs.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Life of certificates that are signed from now on.
    pub(crate) certificate_lifetime: Duration,
    /// Where relays reach schedulers, as tokens name it.
    pub(crate) advertise: Vec<String>,
    /// Where addresses are, if there is a file of it.
    pub(crate) locations: Option<Locations>,
}

impl Settings {
    /// Of a scheduler that is bound there.
    ///
    /// # Errors
    /// The file of locations cannot be used.
    pub(crate) fn new(config: &Config, bound: std::net::SocketAddr) -> anyhow::Result<Self> {
        let bound = [bound];
        let advertise = if config.advertise.is_empty() { &bound[..] } else { &config.advertise };
        Ok(Self {
            certificate_lifetime: config.certificate_lifetime,
            advertise: advertise.iter().map(ToString::to_string).collect(),
            locations: config.locations.as_deref().map(read_locations).transpose()?,
        })
    }
}

/// Reads the file that says where addresses are.
fn read_locations(path: &Path) -> anyhow::Result<Locations> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Locations::new(bytes).with_context(|| path.display().to_string())
}

/// What a running scheduler goes by.
pub(crate) struct Live {
    /// As it was applied; what needs a restart is as it was at the start.
    pub(crate) held: Config,
    /// The control endpoint's address.
    pub(crate) bound: std::net::SocketAddr,
    pub(crate) shared: Arc<Shared>,
}

impl Live {
    /// Goes on with other configurations for whoever asks, until the scheduler stops.
    pub(crate) async fn serve(
        mut self,
        reloading: Reloading<Config>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        stop.run_until_cancelled(reloading.serve(&mut self)).await;
        Ok(())
    }
}

impl reload::Live<Config> for Live {
    async fn apply(&mut self, mut next: Config) -> anyhow::Result<Reloaded> {
        let mut told = Reloaded::default();
        keep_fixed(&self.held, &mut next, &mut told);
        let settings = Settings::new(&next, self.bound)?;
        let directory = &next.state_dir;
        let read = self.shared.credentials.reread(directory, SystemTime::now());
        let read = read.with_context(|| format!("the identity in {}", directory.display()))?;
        // Nothing fails from here on.
        if let Some(read) = read {
            self.shared.credentials.adopt(read);
            told.applied.push("certificate".to_owned());
        }
        self.shared.settings.store(Arc::new(settings));
        note_live(&self.held, &next, &mut told);
        overway_telemetry::log::reload(self.held.log.as_deref(), next.log.as_deref(), &mut told);
        self.held = next;
        Ok(told)
    }
}

/// Keeps what cannot change while the scheduler runs, and names it.
fn keep_fixed(held: &Config, next: &mut Config, told: &mut Reloaded) {
    macro_rules! keep {
        ($($key:literal: $field:ident),+ $(,)?) => {$(
            told.fixed($key, &held.$field, &next.$field);
            next.$field.clone_from(&held.$field);
        )+};
    }
    keep!(
        "scheduler.state_dir": state_dir,
        "scheduler.listen": listen,
        "admin.listen": admin_listen,
        "admin.require_token": admin_token_required,
    );
}

/// Names what has changed. Destructured, so that a new key is either fixed or told.
fn note_live(held: &Config, next: &Config, told: &mut Reloaded) {
    let Config {
        advertise,
        certificate_lifetime,
        locations,
        state_dir: _,
        listen: _,
        admin_listen: _,
        admin_token_required: _,
        log: _,
    } = next;
    told.live("scheduler.advertise", &held.advertise, advertise);
    told.live("certificates.lifetime_days", &held.certificate_lifetime, certificate_lifetime);
    told.live("access.locations", &held.locations, locations);
}
