//! The first words of a session between edges, and those that follow.
//!
//! ```text
//!   QUIC handshake: each has shown a key, the dialled one that which was asked for
//!     dialler -- uni stream: token, where I am --> dialled: judged; then
//!     dialler <-- uni stream: token, where I am -- dialled; judged
//!   token of the tenant, for that key, in time:  the session is used, by both
//!   any other, or none within the time limit:    closed with CODE_TOKEN and the reason
//!     -- a new token, or where I am now -->     <-- likewise, as long as the session stands
//!     -- where I am, once more -->              while the other end is sought
//! ```
//!
//! A token that ends, or that the tenant has revoked, ends the session, unless a newer one came before.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use overway_tenant::{EdgeId, LEEWAY};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::dial::turned_away;
use super::{CODE_IDENTITY, CODE_RESTARTED, CODE_TOKEN, Inner, Local};
use crate::edge::{EdgeSession, LocalEdge, Placed, Standing, WORD_BYTES_MAX, Word, tls};
use crate::far::Party;
use crate::names::Far;
use crate::open::{self, OpenError};
use crate::pool::Session;
use crate::terms::Terms;
use crate::transport;

/// Between two looks at a token's end, which the clock may have come nearer by a jump.
const CLOCK_EVERY: Duration = Duration::from_secs(600);

/// The ways of the words, and what was said of ourselves last.
struct Words {
    send: SendStream,
    recv: RecvStream,
    token: watch::Receiver<String>,
    places: watch::Receiver<Placed>,
}

impl Inner {
    /// Makes a session of a connection, if its far end is an edge of the tenant, and starts to serve it.
    pub(super) async fn greet(
        self: &Arc<Self>,
        edge: &LocalEdge,
        connection: Connection,
        far: Arc<Far>,
        terms: Terms,
        client: bool,
    ) -> Result<Session, OpenError> {
        let Some(shown) = tls::shown_by(&connection) else {
            return Err(self.turn_away(&connection, OpenError::Identity));
        };
        let id = shown.id();
        let exchanged =
            timeout(self.config.request_timeout, exchange(edge, &connection, id, client)).await;
        let (words, first, standing) = match exchanged {
            Ok(Ok(exchanged)) => exchanged,
            Ok(Err(OpenError::Session(error))) => {
                return Err(turned_away(OpenError::Session(error)));
            }
            Ok(Err(error)) => return Err(self.turn_away(&connection, error)),
            Err(_) => {
                let late = OpenError::Token("none came in time".to_owned());
                return Err(self.turn_away(&connection, late));
            }
        };
        far.prove(id, first.revision(first.boot), first.whereabouts())
            .map_err(|_| self.turn_away(&connection, OpenError::Identity))?;
        self.close_sessions_before(id, first.boot);
        transport::admit(&connection);
        let known = Arc::new(EdgeSession::new(id, Arc::clone(&far), first.boot, standing));
        let incarnation = far.own_incarnation();
        let edge = Some(Arc::clone(&known));
        let session = Session { connection, far: far.name(), terms, incarnation, edge, client };
        self.begin(&session);
        self.spawn(Arc::clone(self).tend(session.clone(), known, words));
        Ok(session)
    }

    /// Closes a connection with an edge that is not as it has to be, and tells it why.
    fn turn_away(&self, connection: &Connection, error: OpenError) -> OpenError {
        self.counters.identity_refused.increment();
        tracing::debug!(%error, "an edge is turned away");
        match &error {
            OpenError::Token(reason) => {
                connection.close(CODE_TOKEN, open::shortened(reason).as_bytes());
            }
            OpenError::NoAnswer => connection.close(CODE_TOKEN, b"no proper word came"),
            other => connection.close(CODE_IDENTITY, other.to_string().as_bytes()),
        }
        error
    }

    /// An edge is one process: sessions with an earlier one have nobody at the far end.
    fn close_sessions_before(&self, id: EdgeId, boot: u64) {
        let sessions = self.pool.with(Party::Edge(id));
        let earlier = |session: &&Session| {
            session.stands() && session.edge.as_ref().is_some_and(|edge| edge.boot != boot)
        };
        let mut earlier = sessions.iter().filter(earlier).peekable();
        if earlier.peek().is_some() {
            self.counters.far_restarts.increment();
        }
        for session in earlier {
            session.connection.close(CODE_RESTARTED, b"the far end started anew");
        }
    }

    /// Says and hears what changes, until the session ends or must.
    async fn tend(self: Arc<Self>, session: Session, known: Arc<EdgeSession>, words: Words) {
        let Local::Edge(edge) = &self.local else { return };
        let Words { send, recv, token, places } = words;
        let reason = tokio::select! {
            reason = hear(edge, &known, recv) => reason,
            reason = say(&known, send, token, places) => reason,
            reason = stand(edge, &known) => reason,
        };
        // A session that has ended is not closed again.
        if session.stands() {
            tracing::debug!(far = %known.id, reason, "a session with an edge must end");
            session.connection.close(CODE_TOKEN, open::shortened(&reason).as_bytes());
        }
    }
}

/// Sends the first word and waits for the far end's, whose token is judged. Whoever was dialled does not say a word
/// before that.
async fn exchange(
    edge: &LocalEdge,
    connection: &Connection,
    id: EdgeId,
    client: bool,
) -> Result<(Words, Word, Standing), OpenError> {
    let hear = async {
        let mut recv = connection.accept_uni().await?;
        let word = open::read_within::<Word>(&mut recv, WORD_BYTES_MAX).await?;
        let token = word.token.clone().unwrap_or_default();
        let standing = edge.judge(token, id).map_err(OpenError::Token)?;
        Ok::<_, OpenError>((recv, word, standing))
    };
    let say = async {
        let (mut token, mut places) = (edge.token.clone(), edge.places.clone());
        let first = Word {
            token: Some(token.borrow_and_update().clone()),
            boot: edge.boot,
            attached: Some((*places.borrow_and_update()).into()),
        };
        let mut send = connection.open_uni().await?;
        open::write(&mut send, &first).await?;
        Ok::<_, OpenError>((send, token, places))
    };
    let ((send, token, places), (recv, word, standing)) = if client {
        let said = say.await?;
        (said, hear.await?)
    } else {
        let heard = hear.await?;
        (say.await?, heard)
    };
    Ok((Words { send, recv, token, places }, word, standing))
}

/// Hears what the far end says; returns why the session must end.
async fn hear(edge: &LocalEdge, known: &EdgeSession, mut recv: RecvStream) -> String {
    loop {
        let word = match open::read_within::<Word>(&mut recv, WORD_BYTES_MAX).await {
            Ok(word) => word,
            Err(error) => return format!("no proper word came: {error}"),
        };
        if let Some(token) = &word.token {
            match edge.judge(token.clone(), known.id) {
                Ok(standing) => known.renew(standing),
                Err(reason) => return reason,
            }
        }
        if word.attached.is_some() {
            let revision = word.revision(known.boot);
            if known.far.prove(known.id, revision, word.whereabouts()).is_err() {
                return OpenError::Identity.to_string();
            }
        }
    }
}

/// Says what changes here; returns why the session must end.
async fn say(
    known: &EdgeSession,
    mut send: SendStream,
    mut token: watch::Receiver<String>,
    mut places: watch::Receiver<Placed>,
) -> String {
    loop {
        let word = tokio::select! {
            token = changed(&mut token) => Word { token: Some(token), ..Word::default() },
            placed = changed(&mut places) => {
                Word { attached: Some(placed.into()), ..Word::default() }
            }
            () = known.urged() => {
                let placed = *places.borrow_and_update();
                Word { attached: Some(placed.into()), ..Word::default() }
            }
        };
        if let Err(error) = open::write(&mut send, &word).await {
            return format!("a word cannot be sent: {error}");
        }
    }
}

/// Waits until the far end's token counts no more; returns why.
async fn stand(edge: &LocalEdge, known: &EdgeSession) -> String {
    let mut keys = edge.keys.clone();
    loop {
        let standing = known.standing();
        if let Err(reason) = edge.judge(standing.token, known.id) {
            return reason;
        }
        let end = standing.claims.expires_at() + LEEWAY;
        let left = end.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::select! {
            // The end itself is past after the full second in which it lies.
            () = tokio::time::sleep((left + Duration::from_secs(1)).min(CLOCK_EVERY)) => {}
            _ = changed(&mut keys) => {}
            () = known.renewed() => {}
        }
    }
}

/// The next value; if nobody can change it any more, never.
async fn changed<T: Clone>(receiver: &mut watch::Receiver<T>) -> T {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    receiver.borrow_and_update().clone()
}
