//! Who the edge is: its key, and the two files that its tenant may change while it runs.
//!
//! Token and tenant's keys are looked at every second. What cannot be read or makes no sense is complained of, and what
//! was held before stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use overway_tenant::{Claims, EdgeKey, JwkSet, TOKEN_BYTES_MAX, TenantKeys, TenantName};
use tokio::sync::watch;

use crate::Config;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of a file that is read: sixteen keys take a tenth of it.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What is read from the tenant's files, as it is now.
#[derive(Debug)]
pub(crate) struct Files {
    token_file: PathBuf,
    keys_file: PathBuf,
    tenant: TenantName,
    token: watch::Sender<String>,
    keys: watch::Sender<Arc<TenantKeys>>,
    complaints: [Option<String>; 2],
}

impl Files {
    /// Reads both files.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub(crate) fn read(config: &Config) -> anyhow::Result<Self> {
        let Config { token_file, tenant_keys_file: keys_file, tenant, .. } = config;
        let token = watch::Sender::new(read_token(token_file)?);
        let keys = watch::Sender::new(Arc::new(read_keys(keys_file, tenant)?));
        let (token_file, keys_file) = (token_file.clone(), keys_file.clone());
        let complaints = [None, None];
        Ok(Self { token_file, keys_file, tenant: tenant.clone(), token, keys, complaints })
    }

    /// The token as it is now.
    pub(crate) fn token(&self) -> watch::Receiver<String> {
        self.token.subscribe()
    }

    /// The tenant's keys, likewise.
    pub(crate) fn keys(&self) -> watch::Receiver<Arc<TenantKeys>> {
        self.keys.subscribe()
    }

    /// What the token says, if it counts for this key now.
    ///
    /// # Errors
    /// Why it does not, for people.
    pub(crate) fn claims(&self, key: &EdgeKey) -> anyhow::Result<Claims> {
        let keys = Arc::clone(&self.keys.borrow());
        overway_client::own_claims(&self.token.borrow(), key, &keys)
            .with_context(|| self.token_file.display().to_string())
    }

    /// Looks at the files for ever.
    pub(crate) async fn follow(mut self) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let token = read_token(&self.token_file);
            self.complain(0, token.as_ref().err());
            if let Ok(token) = token {
                let changed = |held: &mut String| {
                    *held != token && {
                        *held = token;
                        true
                    }
                };
                if self.token.send_if_modified(changed) {
                    tracing::info!(file = %self.token_file.display(), "took a new token");
                }
            }
            let keys = read_keys(&self.keys_file, &self.tenant);
            self.complain(1, keys.as_ref().err());
            if let Ok(keys) = keys {
                let changed = |held: &mut Arc<TenantKeys>| {
                    **held != keys && {
                        *held = Arc::new(keys);
                        true
                    }
                };
                if self.keys.send_if_modified(changed) {
                    tracing::info!(file = %self.keys_file.display(), "took the tenant's new keys");
                }
            }
        }
    }

    /// Complains of a file once, until something else is wrong with it.
    fn complain(&mut self, file: usize, error: Option<&anyhow::Error>) {
        let error = error.map(|error| format!("{error:#}"));
        if let Some(error) = error.as_ref().filter(|_| error != self.complaints[file]) {
            tracing::warn!("{error}; what was read before still counts");
        }
        self.complaints[file] = error;
    }
}

/// Reads the edge's own key.
///
/// # Errors
/// Names the file and what is wrong with it.
pub(crate) fn read_key(path: &Path) -> anyhow::Result<EdgeKey> {
    let text = read(path).with_context(|| {
        format!("no edge key in {}: make one with `overway edge keygen`", path.display())
    })?;
    EdgeKey::from_pkcs8_pem(&text).with_context(|| format!("{} is no edge key", path.display()))
}

fn read_token(path: &Path) -> anyhow::Result<String> {
    let text =
        read(path).with_context(|| format!("cannot read the token in {}", path.display()))?;
    let token = text.trim();
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        bail!("{} holds no token", path.display());
    }
    Ok(token.to_owned())
}

fn read_keys(path: &Path, tenant: &TenantName) -> anyhow::Result<TenantKeys> {
    let file = || format!("{} is no set of the tenant's keys", path.display());
    let text = read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let set: JwkSet = serde_json::from_str(&text).with_context(file)?;
    TenantKeys::from_jwks(tenant.clone(), &set).with_context(file)
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use overway_tenant::{Kid, Names, TenantKey};

    struct Stand {
        dir: tempfile::TempDir,
        backend: TenantKey,
        key: EdgeKey,
    }

    impl Stand {
        fn new() -> Self {
            let (backend, key) = (TenantKey::from_seed([1; 32]), EdgeKey::from_seed([2; 32]));
            let stand = Self { dir: tempfile::tempdir().unwrap(), backend, key };
            let kid: Kid = "k1".parse().unwrap();
            let set = JwkSet { keys: vec![stand.backend.public().to_jwk().named(&kid)] };
            stand.write("keys", &serde_json::to_string(&set).unwrap());
            stand.write("token", &stand.token("one"));
            stand
        }

        fn token(&self, id: &str) -> String {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            let claims = Claims {
                tenant: "shop".parse().unwrap(),
                name: "edge".into(),
                services: Names::Any,
                offers: Names::none(),
                classes: overway_wire::Class::ALL.into(),
                issued: now,
                not_before: None,
                expires: now + 600,
                id: id.parse().unwrap(),
                edge: self.key.public().id(),
            };
            overway_tenant::mint(&claims, &self.backend, &"k1".parse().unwrap()).unwrap()
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.dir.path().join(name), text).unwrap();
        }

        fn files(&self) -> anyhow::Result<Files> {
            let path = |name: &str| self.dir.path().join(name);
            Files::read(&Config {
                tenant: "shop".parse().unwrap(),
                key_file: path("key"),
                token_file: path("token"),
                tenant_keys_file: path("keys"),
                handback: true,
                relays: Vec::new(),
                tcp_port: None,
                discover: Vec::new(),
                discover_ca_file: None,
                nearest: true,
                state_dir: None,
                ca_file: path("ca"),
                admin: None,
                offers: Vec::new(),
                gateway: overway_gateway::GatewayConfig::default(),
                log: None,
            })
        }
    }

    #[test]
    fn a_token_counts_for_its_own_key_alone() {
        let stand = Stand::new();
        let files = stand.files().unwrap();

        assert_eq!(files.claims(&stand.key).unwrap().id.as_str(), "one");
        let other = files.claims(&EdgeKey::from_seed([3; 32])).unwrap_err();
        let other = format!("{other:#}");
        assert!(other.contains("another key"), "{other}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_token_is_taken_and_nonsense_is_not() {
        let stand = Stand::new();
        let files = stand.files().unwrap();
        let mut token = files.token();
        token.mark_unchanged();
        let follow = tokio::spawn(files.follow());

        let next = stand.token("two");
        stand.write("token", &format!("{next}\n"));
        token.changed().await.unwrap();
        assert_eq!(*token.borrow_and_update(), next);

        stand.write("token", "");
        tokio::time::sleep(2 * LOOK).await;
        assert!(!token.has_changed().unwrap());
        follow.abort();
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let stand = Stand::new();
        stand.write("keys", "{}");
        let error = format!("{:#}", stand.files().unwrap_err());
        assert!(error.contains("keys") && error.contains("no set"), "{error}");

        let error = format!("{:#}", read_key(&stand.dir.path().join("absent")).unwrap_err());
        assert!(error.contains("overway edge keygen"), "{error}");
    }
}
