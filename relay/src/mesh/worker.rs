//! One of the mesh's threads: its endpoints, and the shards that it runs.
//!
//! Tasks of a worker: one accepts on each endpoint, one takes local frames, one takes what other workers give, one
//! follows the table, one the settings; of each shard one dials what is missing (`connect`), one waits for the core's next timeout, one
//! reads each connection, and one tells the lead of its load. The first worker takes commands besides. All end when
//! the command channel closes.
//!
//! | what crosses threads | how | bound and policy |
//! | --- | --- | --- |
//! | the table, the settings | a watch each | the latest only |
//! | frames that another shard takes | mail | [`MAIL_MAX`], the newest is dropped and counted |
//! | notices, loads | mail | the same; the next says it again |
//! | counts for a snapshot | mail | the same, the asker waits |

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overway_relay_core::{Fib, Handed, Heir, Load, Settings, Shard};
use overway_wire::control::WORKERS_MAX;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::snapshot::Tally;
use super::{Command, MeshConfig, ShellStats, Sinks, Snapshot, connect, endpoints};
use crate::delivery::Deliveries;
use crate::local::{LocalQueues, Sourced};
use crate::steer;
use crate::trace::Traces;

/// What waits for a worker at most: as much as its queue of local frames.
pub(super) const MAIL_MAX: usize = 4_096;
/// How often a shard tells the lead of its load: twice in the second that a rate is measured over.
const LOAD_INTERVAL: Duration = Duration::from_millis(500);
/// Frames taken from local ends before others get a turn.
const LOCAL_BATCH: usize = 64;
/// Pieces of mail taken before others get a turn.
const MAIL_BATCH: usize = 64;

/// What one worker gives to another.
pub(super) enum Mail {
    /// For a shard.
    Handed(u8, Handed),
    /// For all shards but the one of this number, from which it is.
    ForAll(u8, Handed),
    /// For the lead, from this shard.
    Load(u8, Load),
    /// Say what all shards count.
    Count(oneshot::Sender<Tally>),
}

/// What all workers share.
pub(super) struct Shared {
    pub(super) config: MeshConfig,
    pub(super) local: Arc<LocalQueues>,
    pub(super) deliveries: Arc<Deliveries>,
    pub(super) traces: Arc<Traces>,
    pub(super) mailboxes: Vec<mpsc::Sender<Mail>>,
    pub(super) fib: watch::Receiver<Arc<Fib>>,
    pub(super) settings: watch::Receiver<Settings>,
    /// Of each address, if there are several workers.
    pub(super) steering: Vec<Arc<steer::socket::Line>>,
    pub(super) stop: CancellationToken,
}

/// One of the mesh's threads.
pub(super) struct Worker {
    pub(super) index: u8,
    pub(super) shared: Arc<Shared>,
    pub(super) sinks: Sinks,
    pub(super) stats: RefCell<ShellStats>,
    pub(super) endpoints: RefCell<Vec<quinn::Endpoint>>,
    shards: RefCell<BTreeMap<u8, Rc<RefCell<Driver>>>>,
}

impl Worker {
    pub(super) fn new(
        index: u8,
        shared: Arc<Shared>,
        sinks: Sinks,
        endpoints: Vec<quinn::Endpoint>,
    ) -> Rc<Self> {
        let (stats, endpoints, shards) =
            (RefCell::default(), RefCell::new(endpoints), RefCell::default());
        Rc::new(Self { index, shared, sinks, stats, endpoints, shards })
    }

    /// How many workers there are.
    pub(super) fn count(&self) -> u8 {
        self.shared.config.workers
    }

    /// Whether a shard is run here.
    pub(super) fn runs(&self, shard: u8) -> bool {
        shard < WORKERS_MAX && shard % self.count() == self.index
    }

    /// A shard that is run here; begins it if need be.
    pub(super) fn shard(self: &Rc<Self>, index: u8) -> Rc<RefCell<Driver>> {
        if let Some(driver) = self.shards.borrow().get(&index) {
            return Rc::clone(driver);
        }
        let shard = Shard { index, workers: self.count() };
        let now = Instant::now();
        let mut driver = Driver::new(Rc::clone(self), shard);
        if !shard.is_lead() {
            driver.core.handle_fib(Arc::clone(&self.shared.fib.borrow()), now);
        }
        let driver = Rc::new(RefCell::new(driver));
        self.shards.borrow_mut().insert(index, Rc::clone(&driver));
        tokio::task::spawn_local(connect::keep_connected(Rc::clone(&driver)));
        tokio::task::spawn_local(keep_time(Rc::clone(&driver)));
        if !shard.is_lead() {
            tokio::task::spawn_local(tell_load(Rc::clone(self), Rc::clone(&driver)));
        }
        driver
    }

    fn others(&self, than: u8) -> Vec<Rc<RefCell<Driver>>> {
        let shards = self.shards.borrow();
        shards.iter().filter(|&(&shard, _)| shard != than).map(|(_, it)| Rc::clone(it)).collect()
    }

    /// Gives what a shard hands on to whom it is for.
    pub(super) fn give(self: &Rc<Self>, from: u8, heir: Heir, handed: Handed, now: Instant) {
        match heir {
            Heir::Shard(shard, _) => {
                self.post(shard % self.count(), Mail::Handed(shard, handed), now);
            }
            Heir::Others => {
                for worker in 0..self.count() {
                    self.post(worker, Mail::ForAll(from, handed.clone()), now);
                }
            }
        }
    }

    fn post(self: &Rc<Self>, worker: u8, mail: Mail, now: Instant) {
        if worker == self.index {
            return self.open(mail, now);
        }
        if let Err(refused) = self.shared.mailboxes[usize::from(worker)].try_send(mail)
            && let Mail::Handed(..) = refused.into_inner()
        {
            self.stats.borrow_mut().handed_dropped += 1;
        }
    }

    fn open(self: &Rc<Self>, mail: Mail, now: Instant) {
        match mail {
            Mail::Handed(shard, handed) => {
                let driver = self.shard(shard);
                driver.borrow_mut().core.handle_handed(handed, now);
                Driver::pump(&driver, now);
            }
            Mail::ForAll(from, handed) => {
                for driver in self.others(from) {
                    driver.borrow_mut().core.handle_handed(handed.clone(), now);
                }
            }
            Mail::Load(shard, load) => self.shard(0).borrow_mut().core.handle_load(shard, load),
            Mail::Count(answer) => {
                // An asker that has gone away needs no answer.
                let _ = answer.send(self.tally());
            }
        }
    }

    /// What the shards count that are run here.
    fn tally(&self) -> Tally {
        let mut tally = Tally { shell: *self.stats.borrow(), ..Tally::default() };
        for driver in self.shards.borrow().values() {
            let driver = driver.borrow();
            let counts = driver.core.counts();
            if driver.is_lead() {
                // The lead's word of what befalls the relay as a whole is the first.
                tally.counts = counts;
            } else {
                tally.counts.add(&counts);
            }
            tally.shell.add(&driver.shell_stats());
        }
        tally
    }

    fn local_frames(self: &Rc<Self>, frames: &mut Vec<Sourced>, now: Instant) {
        let mut frames = frames.drain(..).peekable();
        while let Some(first) = frames.peek() {
            let index = self.shared.local.shard_of(&first.frame);
            // What flows are spread over has changed since it was queued.
            let home = if self.runs(index) { index } else { self.index };
            let driver = self.shard(home);
            let mut held = driver.borrow_mut();
            while let Some(frame) =
                frames.next_if(|next| self.shared.local.shard_of(&next.frame) == index)
            {
                held.local_frame(frame, now);
            }
            drop(held);
            Driver::pump(&driver, now);
        }
    }

    /// Follows a new table, with all shards that it calls for. The lead has made it.
    fn follow(self: &Rc<Self>, fib: &Arc<Fib>, now: Instant) {
        for shard in (0..shards(fib, self.count())).filter(|&shard| self.runs(shard)) {
            self.shard(shard);
        }
        for driver in self.others(0) {
            driver.borrow_mut().core.handle_fib(Arc::clone(fib), now);
            Driver::pump(&driver, now);
        }
    }
}

/// What flows are spread over: as many as the link with most shards has, of those that are on a path.
pub(super) fn shards(fib: &Fib, workers: u8) -> u8 {
    let candidates = fib.peers.values().filter(|peer| peer.candidate);
    candidates.map(|peer| peer.shards(workers)).max().unwrap_or(1)
}

/// Serves until the command channel closes. All workers end with the first that does, if by a panic: without one of them
/// the relay would be deaf to a part of its flows, and whoever has the command channel is told.
pub(super) async fn serve(
    worker: Rc<Worker>,
    mail: mpsc::Receiver<Mail>,
    commands: Option<mpsc::Receiver<Command>>,
) {
    let _stop_others = worker.shared.stop.clone().drop_guard();
    connect::spawn_accepting(&worker);
    tokio::task::spawn_local(take_local(Rc::clone(&worker)));
    tokio::task::spawn_local(take_mail(Rc::clone(&worker), mail));
    tokio::task::spawn_local(follow_fib(Rc::clone(&worker)));
    tokio::task::spawn_local(follow_settings(Rc::clone(&worker)));
    match commands {
        Some(commands) => take_commands(&worker, commands).await,
        None => worker.shared.stop.cancelled().await,
    }
    endpoints::close(&worker.endpoints.take()).await;
    worker.shards.take();
}

async fn take_commands(worker: &Rc<Worker>, mut commands: mpsc::Receiver<Command>) {
    let lead = worker.shard(0);
    Driver::pump(&lead, Instant::now());
    let stop = &worker.shared.stop;
    while let Some(Some(command)) = stop.run_until_cancelled(commands.recv()).await {
        match command {
            Command::Snapshot(answer) => {
                tokio::task::spawn_local(take_snapshot(Rc::clone(worker), answer));
            }
            command => lead.borrow_mut().command(command, Instant::now()),
        }
        Driver::pump(&lead, Instant::now());
    }
}

/// Asks all workers what they count.
async fn take_snapshot(worker: Rc<Worker>, answer: oneshot::Sender<Snapshot>) {
    let mut tallies = vec![worker.tally()];
    for mailbox in &worker.shared.mailboxes[1..] {
        let (tx, rx) = oneshot::channel();
        // A worker that has ended counts nothing more.
        if mailbox.send(Mail::Count(tx)).await.is_ok()
            && let Ok(tally) = rx.await
        {
            tallies.push(tally);
        }
    }
    let snapshot = worker.shard(0).borrow().snapshot(&tallies, Instant::now());
    // An asker that has gone away needs no answer.
    let _ = answer.send(snapshot);
}

async fn follow_fib(worker: Rc<Worker>) {
    let mut fib = worker.shared.fib.clone();
    loop {
        let held = Arc::clone(&fib.borrow_and_update());
        worker.follow(&held, Instant::now());
        if fib.changed().await.is_err() {
            return;
        }
    }
}

/// Follows settings that are changed while the relay runs. Shards that begin later begin with them.
async fn follow_settings(worker: Rc<Worker>) {
    let mut settings = worker.shared.settings.clone();
    while settings.changed().await.is_ok() {
        let (held, now) = (settings.borrow_and_update().clone(), Instant::now());
        let shards: Vec<_> = worker.shards.borrow().values().cloned().collect();
        for driver in shards {
            driver.borrow_mut().core.handle_settings(held.clone(), now);
            Driver::pump(&driver, now);
        }
    }
}

async fn take_local(worker: Rc<Worker>) {
    let queue = worker.shared.local.of(worker.index);
    let mut frames = Vec::with_capacity(LOCAL_BATCH);
    loop {
        queue.filled().await;
        while queue.take(LOCAL_BATCH, &mut frames) || !frames.is_empty() {
            worker.local_frames(&mut frames, Instant::now());
            tokio::task::yield_now().await;
        }
    }
}

async fn take_mail(worker: Rc<Worker>, mut mailbox: mpsc::Receiver<Mail>) {
    let mut batch = Vec::with_capacity(MAIL_BATCH);
    while mailbox.recv_many(&mut batch, MAIL_BATCH).await > 0 {
        let now = Instant::now();
        batch.drain(..).for_each(|mail| worker.open(mail, now));
        tokio::task::yield_now().await;
    }
}

async fn tell_load(worker: Rc<Worker>, driver: Rc<RefCell<Driver>>) {
    loop {
        tokio::time::sleep(LOAD_INTERVAL).await;
        let now = Instant::now();
        let (shard, load) = driver.borrow_mut().load(now);
        worker.post(0, Mail::Load(shard, load), now);
    }
}

/// Wakes the core when it wants to be woken.
async fn keep_time(driver: Rc<RefCell<Driver>>) {
    let alarm = driver.borrow().alarm();
    Driver::pump(&driver, Instant::now());
    loop {
        alarm.ring().await;
        driver.borrow_mut().timeout(Instant::now());
        Driver::pump(&driver, Instant::now());
    }
}
