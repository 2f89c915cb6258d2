//! Whether a service's target is well.
//!
//! Three tries in a row that fail make a service unwell, so that one lost packet moves nobody; one that succeeds makes it
//! well again. Before the first answer it is taken for well, or every start would send its clients elsewhere.

use std::time::Duration;

use overway_gateway::ServiceTarget;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Check;

/// A target that needs longer to answer a check is not well.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Failures in a row that count.
const FAILURES: u32 = 3;
/// What the front of an HTTP answer has to hold: "HTTP/1.1 200".
const STATUS_BYTES: usize = 12;

/// What the tries so far say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    failures: u32,
}

impl Verdict {
    /// Of a service that was so before.
    pub(crate) fn of(is_well: bool) -> Self {
        Self { failures: if is_well { 0 } else { FAILURES } }
    }

    /// Takes the outcome of a try; says whether the service is well.
    pub(crate) fn note(&mut self, succeeded: bool) -> bool {
        self.failures = if succeeded { 0 } else { self.failures.saturating_add(1) };
        self.failures < FAILURES
    }
}

impl Check {
    /// Tries a target once.
    pub(crate) async fn try_once(&self, target: &ServiceTarget) -> bool {
        let tried = async {
            match self {
                Self::None => true,
                Self::Tcp => target.reach(ANSWER_MAX).await.is_some(),
                Self::Http(path) => match target.reach(ANSWER_MAX).await {
                    Some(stream) => is_well(stream, path).await.unwrap_or(false),
                    None => false,
                },
            }
        };
        timeout(ANSWER_MAX, tried).await.unwrap_or(false)
    }
}

/// Whether an HTTP server (RFC 9112) answers with 2xx or 3xx.
async fn is_well(mut stream: TcpStream, path: &str) -> std::io::Result<bool> {
    let host = stream.peer_addr()?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: overway\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; STATUS_BYTES];
    stream.read_exact(&mut status).await?;
    Ok(status.starts_with(b"HTTP/1.") && matches!(status[9], b'2' | b'3'))
}

#[cfg(test)]
mod tests {
    use overway_gateway::Target;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn three_failures_in_a_row_count_and_one_success_ends_them() {
        let mut verdict = Verdict::default();
        assert_eq!([false, false].map(|tried| verdict.note(tried)), [true, true]);
        assert!(verdict.note(true));
        assert_eq!([false; 4].map(|tried| verdict.note(tried)), [true, true, false, false]);
        assert!(verdict.note(true));
    }

    fn target(listener: &TcpListener) -> ServiceTarget {
        ServiceTarget::Fixed(Target::Address(listener.local_addr().unwrap()))
    }

    async fn answering(answer: &'static str) -> ServiceTarget {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(&listener);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 256];
                // A client that left gets no answer.
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        target
    }

    #[tokio::test]
    async fn a_server_is_well_by_its_status() {
        let http = Check::Http("/healthz".into());
        for (answer, well) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.0 301 Moved\r\n\r\n", true),
            ("HTTP/1.1 503 Busy\r\n\r\n", false),
            ("SSH-2.0-OpenSSH_9.2\r\n", false),
        ] {
            assert_eq!(http.try_once(&answering(answer).await).await, well, "{answer}");
        }
    }

    #[tokio::test]
    async fn a_target_that_refuses_is_not_well() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(&listener);
        assert!(Check::Tcp.try_once(&target).await);
        drop(listener);
        assert!(!Check::Tcp.try_once(&target).await);
        assert!(Check::None.try_once(&target).await);
    }
}
