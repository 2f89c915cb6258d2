//! One relay's control connection: the relay opens one stream and says hello; then both directions run
//! until either ends. What the core is not asked, renewing the relay's certificate, is done here.

use std::time::{Duration, Instant, SystemTime};

use overway_pki::Identity;
use overway_wire::RelayId;
use overway_wire::control::to_scheduler::Body;
use overway_wire::control::{Hello, Renewal, Renewed, ToRelay, ToScheduler};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{CLOSE_DONE, CLOSE_EXPIRED, CLOSE_PROTOCOL, Certified, Shared};
use crate::driver::{Input, OUTBOUND_MAX, Session, SessionId, Stopped};
use crate::framing::{self, ReadError};

/// Time for the hello to arrive after the handshake.
const HELLO_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of the largest message of a relay. A full report of 2,000 links is about 300 KB.
const TO_SCHEDULER_BYTES_MAX: usize = 1 << 20;
/// Time for the last message, a refusal, to be acknowledged.
const LAST_TIME_MAX: Duration = Duration::from_secs(2);
/// Least time between two renewals on a connection. Certificates last for weeks; in tests, for seconds.
const RENEWAL_INTERVAL_MIN: Duration = Duration::from_millis(500);
/// How often the wall clock is looked at for a certificate's end: it may be set, and a machine may sleep.
const EXPIRY_CHECK_MAX: Duration = Duration::from_secs(60);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Protocol(#[from] ReadError),
    #[error("its first message is no hello")]
    NoHello,
    #[error("it sent no hello in time")]
    HelloTimeout,
    #[error("its certificate has expired")]
    Expired,
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Write(#[from] quinn::WriteError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Serves one connection of this relay, no longer than its certificate lasts. One that has renewed it meanwhile
/// dials again and shows the new one.
pub(super) async fn serve(connection: Connection, member: &Certified, shared: &Shared) {
    let relay = RelayId(member.identity.id);
    let end = run(&connection, member, shared).await;
    match end {
        Ok(()) => connection.close(CLOSE_DONE, b"done"),
        Err(end @ End::Expired) => {
            info!(%relay, "closed a control connection whose certificate has expired");
            shared.counters.certificates_expired.raise();
            connection.close(CLOSE_EXPIRED, end.to_string().as_bytes());
        }
        Err(end @ (End::NoHello | End::HelloTimeout)) => {
            refuse(&connection, relay, &end, shared);
        }
        Err(end @ End::Protocol(ReadError::TooLong { .. } | ReadError::Decode(_))) => {
            refuse(&connection, relay, &end, shared);
        }
        Err(
            end @ (End::Protocol(ReadError::Stream(_))
            | End::Connection(_)
            | End::Write(_)
            | End::Stopped(_)),
        ) => {
            debug!(%relay, reason = %end, "control connection ended");
            connection.close(CLOSE_DONE, b"done");
        }
    }
}

fn refuse(connection: &Connection, relay: RelayId, end: &End, shared: &Shared) {
    warn!(%relay, reason = %end, "closed a control connection");
    shared.counters.protocol_errors.raise();
    connection.close(CLOSE_PROTOCOL, end.to_string().as_bytes());
}

async fn run(connection: &Connection, member: &Certified, shared: &Shared) -> Result<(), End> {
    let identity = &member.identity;
    let (send, recv, hello) = match tokio::time::timeout(HELLO_TIME_MAX, greet(connection)).await {
        Ok(greeted) => greeted?,
        Err(_) => return Err(End::HelloTimeout),
    };
    let relay = RelayId(identity.id);
    let id = shared.next_session();
    let (outbound, queue) = mpsc::channel(OUTBOUND_MAX);
    let closing = CancellationToken::new();
    let session = Session { id, outbound, closing: closing.clone() };
    let hello = Box::new(hello);
    shared.driver.send(Input::Hello { relay, hello, session }).await?;
    let reader = Reader { relay, id, identity, shared };
    let end = tokio::select! {
        () = closing.cancelled() => Ok(()),
        () = until(member.ends) => Err(End::Expired),
        end = reader.run(recv) => end,
        end = write(queue, send) => end,
    };
    shared.driver.send(Input::Closed { relay, session: id }).await?;
    end
}

/// Waits for a time of the wall clock.
async fn until(end: SystemTime) {
    while let Ok(left) =
        end.duration_since(SystemTime::now()).map(|left| left.min(EXPIRY_CHECK_MAX))
    {
        tokio::time::sleep(left).await;
    }
}

/// Waits for the stream and the hello on it.
async fn greet(connection: &Connection) -> Result<(SendStream, RecvStream, Hello), End> {
    let (send, mut recv) = connection.accept_bi().await?;
    let first: Option<ToScheduler> = framing::read(&mut recv, TO_SCHEDULER_BYTES_MAX).await?;
    match first.and_then(|message| message.body) {
        Some(Body::Hello(hello)) => Ok((send, recv, hello)),
        Some(
            Body::Report(_)
            | Body::Ack(_)
            | Body::Renewal(_)
            | Body::Goodbye(_)
            | Body::Offers(_)
            | Body::AccessState(_)
            | Body::Distances(_)
            | Body::Quality(_),
        )
        | None => Err(End::NoHello),
    }
}

/// Sends what the driver queues until it drops the queue.
async fn write(mut queue: mpsc::Receiver<ToRelay>, mut send: SendStream) -> Result<(), End> {
    while let Some(message) = queue.recv().await {
        framing::write(&mut send, &message).await?;
    }
    // A refusal was the last: it must arrive before the connection closes under it.
    if send.finish().is_ok() {
        let _ = tokio::time::timeout(LAST_TIME_MAX, send.stopped()).await;
    }
    Ok(())
}

struct Reader<'a> {
    relay: RelayId,
    id: SessionId,
    identity: &'a Identity,
    shared: &'a Shared,
}

impl Reader<'_> {
    /// Hands over messages until the relay finishes its stream.
    async fn run(self, mut recv: RecvStream) -> Result<(), End> {
        let mut renewed = None;
        loop {
            let message = framing::read::<ToScheduler>(&mut recv, TO_SCHEDULER_BYTES_MAX).await?;
            let Some(message) = message else { return Ok(()) };
            let input = match message.body {
                Some(Body::Renewal(renewal)) => {
                    match self.renew(&renewal, &mut renewed, Instant::now()) {
                        Some(message) => {
                            Input::Answer { relay: self.relay, session: self.id, message }
                        }
                        None => continue,
                    }
                }
                body @ (Some(
                    Body::Hello(_)
                    | Body::Report(_)
                    | Body::Ack(_)
                    | Body::Goodbye(_)
                    | Body::Offers(_)
                    | Body::AccessState(_)
                    | Body::Distances(_)
                    | Body::Quality(_),
                )
                | None) => Input::Message {
                    relay: self.relay,
                    session: self.id,
                    message: ToScheduler { body },
                },
            };
            self.shared.driver.send(input).await?;
        }
    }

    /// Signs the relay's new key for the identity that it has shown, whatever the request says.
    fn renew(
        &self,
        renewal: &Renewal,
        renewed: &mut Option<Instant>,
        now: Instant,
    ) -> Option<ToRelay> {
        let relay = self.relay;
        let early = renewed.is_some_and(|last| now.duration_since(last) < RENEWAL_INTERVAL_MIN);
        if early || self.shared.credentials.revoked().is_revoked(self.identity) {
            self.shared.counters.renewals_refused.raise();
            return None;
        }
        *renewed = Some(now);
        let lifetime = self.shared.settings.load().certificate_lifetime;
        let issued = self.shared.authority.issue(
            &renewal.csr_der,
            self.identity,
            lifetime,
            SystemTime::now(),
        );
        match issued {
            Ok(chain) => {
                info!(%relay, "renewed a relay's certificate");
                self.shared.counters.renewals.raise();
                let chain_der = chain.iter().map(|certificate| certificate.to_vec()).collect();
                Some(ToRelay::from(Renewed { chain_der }))
            }
            Err(error) => {
                warn!(%relay, %error, "refused to renew a relay's certificate");
                self.shared.counters.renewals_refused.raise();
                None
            }
        }
    }
}
