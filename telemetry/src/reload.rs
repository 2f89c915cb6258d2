//! Reading the configuration again while a process runs.
//!
//! ```text
//! SIGHUP ----------------\
//!                         Reloads --asks--> Reloading: read and check the file --> apply, or change nothing
//! POST /v1/reload -------/        <--answer--------------------------------------------/
//! ```
//!
//! One at a time. A file that is wrong changes nothing. What cannot change while the process runs stays as it is, and is
//! named.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// Those who wait for the one that is under way; more are told to try again.
const WAITING_MAX: usize = 16;

/// What came of reading a configuration again; also the answer to `POST /v1/reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What is another now, for people.
    pub applied: Vec<String>,
    /// Keys whose new values count from the next start on.
    pub needs_restart: Vec<String>,
}

/// Why nothing was reloaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong, or what it says is not to be had. Nothing has changed.
    #[error("{0}")]
    Refused(String),
    /// Too many have asked.
    #[error("too many reloads are under way; try again")]
    Busy,
    /// The process starts or stops, or has no file to read.
    #[error("this process reads no configuration now")]
    Away,
}

type Answer = oneshot::Sender<Result<Reloaded, ReloadError>>;
type Watch = dyn Fn(Stage) + Send;

/// How far a reload is, for whoever has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It begins.
    Begun,
    /// It is over, well or not.
    Over,
}

/// Asks for reloads. Clones ask the same process.
#[derive(Clone, Debug)]
pub struct Reloads(mpsc::Sender<Answer>);

/// What of a running process goes by its configuration.
pub trait Live<C>: Send {
    /// Goes on with another one.
    ///
    /// # Errors
    /// What it says is not to be had. Nothing has changed then.
    fn apply(&mut self, next: C) -> impl Future<Output = anyhow::Result<Reloaded>> + Send;
}

/// Reads the configuration, or says what is wrong with it.
type Read<C> = Box<dyn Fn() -> anyhow::Result<C> + Send>;

/// Reloads a configuration for those who ask.
pub struct Reloading<C> {
    asked: mpsc::Receiver<Answer>,
    reloads: Reloads,
    read: Read<C>,
    watch: Box<Watch>,
}

impl Reloads {
    /// Has the configuration read again, and waits for what comes of it.
    ///
    /// # Errors
    /// Nothing was reloaded.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(answer).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => ReloadError::Busy,
            mpsc::error::TrySendError::Closed(_) => ReloadError::Away,
        })?;
        answered.await.unwrap_or(Err(ReloadError::Away))
    }
}

impl<C> Reloading<C> {
    /// By what `read` reads and checks each time; `watch` is told of each reload.
    pub fn new(
        read: impl Fn() -> anyhow::Result<C> + Send + 'static,
        watch: impl Fn(Stage) + Send + 'static,
    ) -> Self {
        let (ask, asked) = mpsc::channel(WAITING_MAX);
        Self { asked, reloads: Reloads(ask), read: Box::new(read), watch: Box::new(watch) }
    }

    /// Of a process that was given its configuration otherwise than by a file.
    pub fn off() -> Self {
        Self::new(|| anyhow::bail!("this process has no file to read again"), |_| {})
    }

    /// Asks this one.
    pub fn reloads(&self) -> Reloads {
        self.reloads.clone()
    }

    /// Reads for whoever asks and has `live` go on with it, until the future is dropped; logs what came of it.
    pub async fn serve(mut self, live: &mut impl Live<C>) {
        while let Some(answer) = self.asked.recv().await {
            (self.watch)(Stage::Begun);
            let reloaded = match (self.read)() {
                Ok(next) => live.apply(next).await,
                Err(error) => Err(error),
            };
            let reloaded = reloaded.map_err(|error| ReloadError::Refused(format!("{error:#}")));
            tell(&reloaded);
            (self.watch)(Stage::Over);
            // An asker that has gone away needs no answer.
            let _ = answer.send(reloaded);
        }
    }
}

fn tell(reloaded: &Result<Reloaded, ReloadError>) {
    match reloaded {
        Ok(Reloaded { applied, needs_restart }) => {
            let applied =
                if applied.is_empty() { "nothing".to_owned() } else { applied.join("; ") };
            tracing::info!(applied, "the configuration was read again");
            if !needs_restart.is_empty() {
                tracing::warn!("needs a restart: {}", needs_restart.join(", "));
            }
        }
        Err(error) => tracing::error!(%error, "nothing was reloaded"),
    }
}

impl Reloaded {
    /// Notes a key that cannot change while the process runs, if it has changed.
    pub fn fixed<T: PartialEq + ?Sized>(&mut self, key: &str, held: &T, next: &T) {
        if held != next {
            self.needs_restart.push(key.to_owned());
        }
    }

    /// Notes a key that has been applied, if it has changed; says whether it has.
    pub fn live<T: PartialEq + ?Sized>(&mut self, key: &str, held: &T, next: &T) -> bool {
        if held != next {
            self.applied.push(key.to_owned());
        }
        held != next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    struct Word(&'static str);

    impl Live<&'static str> for Word {
        async fn apply(&mut self, next: &'static str) -> anyhow::Result<Reloaded> {
            let mut told = Reloaded::default();
            told.live("word", self.0, next);
            self.0 = next;
            Ok(told)
        }
    }

    #[tokio::test]
    async fn what_was_read_is_applied_and_what_is_wrong_is_answered() {
        let text = Arc::new(Mutex::new("one"));
        let (held, stages) = (Arc::clone(&text), Arc::<Mutex<Vec<Stage>>>::default());
        let read = move || match *held.lock().unwrap() {
            "" => anyhow::bail!("relay.toml: it is empty"),
            text => Ok(text),
        };
        let seen = Arc::clone(&stages);
        let reloading = Reloading::new(read, move |stage| seen.lock().unwrap().push(stage));
        let reloads = reloading.reloads();
        let mut word = Word("none");
        let serving = reloading.serve(&mut word);
        tokio::pin!(serving);
        let mut ask = async || {
            tokio::select! {
                () = &mut serving => unreachable!("it serves as long as somebody may ask"),
                reloaded = reloads.reload() => reloaded,
            }
        };

        assert_eq!(ask().await.unwrap().applied, ["word"]);
        *text.lock().unwrap() = "";
        let refused = ReloadError::Refused("relay.toml: it is empty".to_owned());
        assert_eq!(ask().await, Err(refused));
        *text.lock().unwrap() = "one";
        assert_eq!(ask().await, Ok(Reloaded::default()));
        assert_eq!(*stages.lock().unwrap(), [Stage::Begun, Stage::Over].repeat(3));
    }

    #[tokio::test]
    async fn nobody_waits_for_a_process_that_reads_nothing() {
        let reloading = Reloading::<()>::off();
        let reloads = reloading.reloads();
        drop(reloading);

        assert_eq!(reloads.reload().await, Err(ReloadError::Away));
    }
}
