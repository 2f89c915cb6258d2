//! `bench flows`: how the memory of a transit relay depends on the number of flows through it.
//!
//! A relay of its own for each number; over each go as many frames, of voice size, in turn of every flow,
//! as fast as they get through. When it is idle again its resident size is read. As relays keep
//! nothing per flow, the sizes should be the same; what differs is the allocator's doing.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use overway::lab::figures::{Figures, Promise};
use overway::lab::stage::Stage;
use overway_wire::Class;

use crate::common::Common;
use crate::forward::cores::Cores;
use crate::forward::mesh::Mesh;
use crate::forward::peer::Shape;
use crate::forward::stand::{Kind, Stand};
use crate::forward::{begin, on_this_thread};

const PAYLOAD_BYTES: usize = 160;
/// Numbers of flows, and the figures' names.
const FLOWS: [(u32, &str); 3] =
    [(10, "rss_mb_10"), (10_000, "rss_mb_10k"), (1_000_000, "rss_mb_1m")];
/// Until what was kept for the neighbours' sake has been let go.
const CALM: Duration = Duration::from_millis(2_500);
/// Megabytes by which the sizes may differ.
const GROWTH_MAX: f64 = 8.0;
/// Every flow has this share of frames arriving at the least, or nothing was shown.
const ARRIVED_MIN: f64 = 0.99;

/// Arguments of `bench flows`.
#[derive(Debug, Args)]
pub(crate) struct FlowsArgs {
    /// Frames over each relay. Default: 3,000,000, or 1,000,000 with --quick: one for each flow.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,
}

/// Measures.
pub(crate) fn run(args: &FlowsArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let frames = args.frames.unwrap_or(if common.quick { 1_000_000 } else { 3_000_000 });
    let cores = begin(stage)?;
    let mesh = Mesh::new()?;
    let mut figures = Figures::default();
    let mut sizes = Vec::new();
    let mut arrived_min = f64::INFINITY;
    for (flows, name) in FLOWS {
        let (size, arrived) = on_this_thread(size_with(flows, frames, &mesh, cores, stage))?;
        figures.add(name, size, Promise::Reported);
        sizes.push(size);
        arrived_min = arrived_min.min(arrived);
    }
    let most = sizes.iter().copied().fold(f64::MIN, f64::max);
    let least = sizes.iter().copied().fold(f64::MAX, f64::min);
    figures.add("rss_growth_mb", most - least, Promise::AtMost(GROWTH_MAX));
    figures.add("arrived_share", arrived_min, Promise::AtLeast(ARRIVED_MIN));
    figures.add("frames_each", frames as f64, Promise::Reported);
    Ok(figures)
}

/// Megabytes of a relay after so many frames of so many flows, and the share of the frames that arrived.
async fn size_with(
    flows: u32,
    frames: u64,
    mesh: &Mesh,
    cores: Cores,
    stage: &Stage,
) -> anyhow::Result<(f64, f64)> {
    stage.status(format!("{frames} frames of {flows} flows"));
    let mut stand = Stand::start(Kind::Relay, true, mesh, cores.subject).await?;
    let shape = Shape { payload: PAYLOAD_BYTES, class: Class::Bulk, flows };
    stand.send(shape, frames, stage).await?;
    tokio::time::sleep(CALM).await;
    let (sent, received) = stand.traffic.counts();
    let bytes = stand.usage().await?.resident_bytes.context("the relay's size")?;
    let megabytes = bytes as f64 / f64::from(1 << 20);
    stage.say(format!("{flows} flows: {megabytes:.1} MB after {received} of {sent} frames"));
    Ok((megabytes, received as f64 / sent as f64))
}
