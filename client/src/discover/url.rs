//! Asking a URL: HTTP, or HTTPS by rustls, where certificates are judged by the CAs that are given, or the system's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use overway_dispatch::Answer;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// From the first packet to the answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Bytes of an answer of a URL, or of the file.
pub(super) const BYTES_MAX: u64 = 256 << 10;
/// Bytes of the system's CAs; there are about 220 KB of them.
const CAS_BYTES_MAX: u64 = 16 << 20;
/// Where systems keep the CAs that they trust: Debian, Alpine and Arch; Fedora and its kin, old and new; SUSE; BSD and macOS.
const SYSTEM_CAS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Names another file of them, as for OpenSSL.
const CAS_VARIABLE: &str = "SSL_CERT_FILE";

/// What a URL is asked.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) url: String,
    pub(super) key: String,
    pub(super) tenant: Option<String>,
    /// See [`super::Discovery::ca_pem`].
    pub(super) ca_pem: Option<Vec<u8>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// Nobody answers now, or what is answered makes no sense.
    #[error("{0}")]
    Unanswered(ureq::Error),
    /// TLS does not come about: mostly a certificate that does not count.
    #[error(
        "TLS: {0}; see that the certificate is for this name, in date, and of a CA that is given or that the system trusts"
    )]
    Tls(ureq::Error),
    /// The CAs that were given are none.
    #[error("the CAs given for it have no certificate in PEM")]
    NoCa,
    /// The system's are not where they are looked for.
    #[error(
        "no file of CAs that the system trusts is found: install them (ca-certificates), name theirs in {CAS_VARIABLE}, or give \
         one for this URL"
    )]
    NoSystemCas,
}

impl Question {
    /// Asks; blocks until there is an answer, five seconds at most.
    pub(super) fn ask(&self) -> Result<Answer, AskError> {
        let is_https = self.url.starts_with("https://");
        let tls = if is_https { tls(self.ca_pem.as_deref())? } else { TlsConfig::default() };
        let agent: Agent = Agent::config_builder()
            .timeout_global(Some(ANSWER_MAX))
            // What begins sealed stays so; and without roots nothing may become HTTPS.
            .max_redirects(if is_https { 3 } else { 0 })
            .https_only(is_https)
            .tls_config(tls)
            .build()
            .into();
        let mut request = agent.get(with_path(&self.url)).query("key", &self.key);
        if let Some(tenant) = &self.tenant {
            request = request.query("tenant", tenant);
        }
        let mut response = request.call().map_err(sorted)?;
        response.body_mut().with_config().limit(BYTES_MAX).read_json().map_err(sorted)
    }
}

fn sorted(error: ureq::Error) -> AskError {
    let is_of_rustls = |error: &std::io::Error| {
        let inner = error.get_ref();
        inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some()
    };
    match &error {
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) => AskError::Tls(error),
        ureq::Error::Io(io) if is_of_rustls(io) => AskError::Tls(error),
        _ => AskError::Unanswered(error),
    }
}

fn tls(ca_pem: Option<&[u8]>) -> Result<TlsConfig, AskError> {
    let roots = match ca_pem {
        Some(pem) => {
            Some(certificates(pem)).filter(|roots| !roots.is_empty()).ok_or(AskError::NoCa)
        }
        None => system_cas().ok_or(AskError::NoSystemCas),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::from(roots?))
        .unversioned_rustls_crypto_provider(provider);
    Ok(config.build())
}

fn system_cas() -> Option<Vec<Certificate<'static>>> {
    let said = std::env::var_os(CAS_VARIABLE).map(PathBuf::from);
    let usual = SYSTEM_CAS.into_iter().map(PathBuf::from);
    let read = |path: PathBuf| Some(certificates(&read_bounded(&path)?));
    said.into_iter().chain(usual).filter_map(read).find(|found| !found.is_empty())
}

fn read_bounded(path: &Path) -> Option<Vec<u8>> {
    let length = std::fs::metadata(path).ok()?.len();
    (length <= CAS_BYTES_MAX).then(|| std::fs::read(path).ok()).flatten()
}

/// The certificates in a text; what else is in it counts for nothing.
fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let items = parse_pem(pem).filter_map(Result::ok);
    let certificate = |item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    };
    items.filter_map(certificate).collect()
}

/// A URL with the path of the question, unless it has one.
fn with_path(url: &str) -> String {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    match after_scheme.trim_end_matches('/').contains('/') {
        true => url.to_owned(),
        false => format!("{}/v1/access", url.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    #[test]
    fn a_url_without_a_path_is_completed() {
        for (said, asked) in [
            ("http://192.0.2.1:8080", "http://192.0.2.1:8080/v1/access"),
            ("http://mesh.example/", "http://mesh.example/v1/access"),
            ("https://mesh.example/eu/access", "https://mesh.example/eu/access"),
        ] {
            assert_eq!(with_path(said), asked);
        }
    }

    /// Answers questions by HTTPS; a question for it, and the certificate that it shows.
    async fn served() -> (String, String) {
        let names = vec!["127.0.0.1".to_owned()];
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let (acceptor, listener) =
            (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let url = format!("https://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((asker, _)) = listener.accept().await {
                // Who does not take the certificate goes away.
                let Ok(mut asker) = acceptor.accept(asker).await else { continue };
                let body = r#"{"client": null, "relays": []}"#;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = asker.read(&mut [0; 2_048]).await;
                let _ = asker.write_all(format!("{head}{body}").as_bytes()).await;
                let _ = asker.shutdown().await;
            }
        });
        (url, cert.pem())
    }

    async fn asked(url: &str, ca_pem: Option<&str>) -> Result<Answer, AskError> {
        let ca_pem = ca_pem.map(|pem| pem.as_bytes().to_vec());
        let question = Question { url: url.to_owned(), key: "k".to_owned(), tenant: None, ca_pem };
        tokio::task::spawn_blocking(move || question.ask()).await.unwrap()
    }

    #[tokio::test]
    async fn an_https_url_is_asked_and_its_certificate_judged_by_the_cas_that_are_given() {
        let (url, certificate) = served().await;
        let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();

        assert!(asked(&url, Some(&certificate)).await.unwrap().relays.is_empty());

        let refused = asked(&url, Some(&other.cert.pem())).await.unwrap_err();
        assert!(matches!(refused, AskError::Tls(_)), "{refused:?}");
        assert!(refused.to_string().contains("see that the certificate"), "{refused}");
        let refused = asked(&url, Some("no certificate")).await.unwrap_err();
        assert!(matches!(refused, AskError::NoCa), "{refused:?}");
        // The system's CAs do not know it, if there are any.
        let refused = asked(&url, None).await.unwrap_err();
        assert!(matches!(refused, AskError::Tls(_) | AskError::NoSystemCas), "{refused:?}");
        let nobody = asked("http://127.0.0.1:1", None).await.unwrap_err();
        assert!(matches!(nobody, AskError::Unanswered(_)), "{nobody:?}");
    }
}
