//! A relay's place: what of a relay outlives its process.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use overway_wire::RelayId;
use overway_wire::control::Update;

use crate::packet::Packet;
use crate::pipe::PipeId;
use crate::process::Process;

/// Packets that the kernel keeps for a frozen process; later ones are lost.
const INBOX_MAX: usize = 8_192;

/// See the module.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) id: RelayId,
    /// Provider lines, 1 or 2.
    pub(crate) lines: u8,
    pub(crate) capacity_bps: u64,
    pub(crate) region: String,
    pub(crate) provider: String,
    pub(crate) drift_ppm: i32,
    pub(crate) process: Option<Process>,
    /// While the process gets no time: what waits for it.
    pub(crate) frozen: Option<Inbox>,
    pub(crate) disk: Option<Update>,
    pub(crate) boots: u32,
    /// Connections dialled by all its processes.
    pub(crate) dials: u64,
    pub(crate) client: Client,
    /// Scheduler addresses tried so far.
    pub(crate) attempts: usize,
}

/// What waits for a frozen process.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) packets: VecDeque<Packet>,
    pub(crate) overflowed: u64,
}

/// The relay's side of the control plane.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Client {
    /// Waits before it dials again.
    Pause {
        until: Instant,
        /// How long it waits if that fails too.
        next: Duration,
    },
    /// Waits for a welcome.
    Dialling { pipe: PipeId, since: Instant, next: Duration },
    /// Is connected.
    Up { pipe: PipeId },
}

impl Inbox {
    pub(crate) fn push(&mut self, packet: Packet) {
        if self.packets.len() < INBOX_MAX {
            self.packets.push_back(packet);
        } else {
            self.overflowed += 1;
        }
    }
}

impl Site {
    /// The process, if it runs and gets time.
    pub(crate) fn awake(&mut self) -> Option<&mut Process> {
        self.process.as_mut().filter(|_| self.frozen.is_none())
    }

    pub(crate) fn is_awake(&self) -> bool {
        self.process.is_some() && self.frozen.is_none()
    }

    /// Its control connection, if there is one or might be.
    pub(crate) fn pipe(&self) -> Option<PipeId> {
        match self.client {
            Client::Pause { .. } => None,
            Client::Dialling { pipe, .. } | Client::Up { pipe } => Some(pipe),
        }
    }
}
