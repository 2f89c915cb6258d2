//! Routes whose paths have weights: flows are spread, stay where they are, and fail over like any other.

use std::collections::BTreeMap;
use std::time::Duration;

use overway_relay_core::LocalFrame;
use overway_wire::control::{Item, Update};
use overway_wire::{Class, FlowId, NeighbourLink, RelayId};

use crate::harness::{Mesh, frame, weighted_route};

const FLOWS: u32 = 400;

/// From 1 to 3 through 2, 4 and 5, with these weights; others go straight.
fn mesh(weights: [u32; 3]) -> Mesh {
    Mesh::with(5, 1, |id| match id {
        1 => routes(weights),
        2 | 4 | 5 => {
            [weighted_route(3, 0, &[(&[3], 0)]), weighted_route(1, 0, &[(&[1], 0)])].concat()
        }
        _ => Vec::new(),
    })
}

fn routes([two, four, five]: [u32; 3]) -> Vec<Item> {
    weighted_route(3, 0, &[(&[2, 3], two), (&[4, 3], four), (&[5, 3], five)])
}

fn of_flow(flow: u32, sequence: u64) -> LocalFrame {
    LocalFrame { flow: FlowId(flow), ..frame(3, Class::Realtime, sequence) }
}

/// Sends a frame of every flow; says through which relay each went.
fn transits(mesh: &mut Mesh) -> BTreeMap<u32, u16> {
    let mut transits = BTreeMap::new();
    for flow in 0..FLOWS {
        mesh.flying.clear();
        mesh.send_frame(1, of_flow(flow, 0));
        let data = mesh.flying.iter().find(|flying| flying.from == RelayId(1)).unwrap();
        transits.insert(flow, data.to.0);
    }
    transits
}

fn count(transits: &BTreeMap<u32, u16>, relay: u16) -> usize {
    transits.values().filter(|&&through| through == relay).count()
}

#[test]
fn flows_are_spread_by_weight_and_stay_where_they_are() {
    let mut mesh = mesh([600, 300, 100]);

    let first = transits(&mut mesh);

    assert!((210..=270).contains(&count(&first, 2)), "{}", count(&first, 2));
    assert!((90..=150).contains(&count(&first, 4)), "{}", count(&first, 4));
    assert!((20..=60).contains(&count(&first, 5)), "{}", count(&first, 5));
    assert_eq!(transits(&mut mesh), first);
}

#[test]
fn a_small_change_of_weights_moves_few_flows() {
    let mut mesh = mesh([600, 400, 0]);
    let before = transits(&mut mesh);

    let put = routes([550, 450, 0]);
    mesh.update(1, Update { epoch_sequence: 1, base: 1, revision: 2, put, ..Update::default() });

    let after = transits(&mut mesh);
    let moved = before.iter().filter(|&(flow, relay)| after[flow] != *relay).count();
    assert!((5..=40).contains(&moved), "{moved} of {FLOWS} moved for a twentieth");
    assert!(before.iter().all(|(flow, &relay)| relay == 2 || after[flow] == relay));
}

#[test]
fn without_weights_every_flow_takes_the_best_path() {
    let mut mesh = mesh([0, 0, 0]);
    assert_eq!(count(&transits(&mut mesh), 2), FLOWS as usize);
}

#[test]
fn a_path_without_a_weight_is_for_those_that_lost_theirs() {
    let mut mesh = mesh([0, 500, 500]);
    let before = transits(&mut mesh);
    assert_eq!(count(&before, 2), 0);

    let close = |mesh: &mut Mesh, relay| {
        let now = mesh.now;
        let link = NeighbourLink::new(RelayId(relay), Default::default());
        mesh.relay(1).handle_link_closed(link, now);
        // What it had not acknowledged leaves by detours, which are not drawn.
        mesh.collect();
    };
    close(&mut mesh, 4);
    assert_eq!(count(&transits(&mut mesh), 5), FLOWS as usize);
    close(&mut mesh, 5);
    assert_eq!(count(&transits(&mut mesh), 2), FLOWS as usize);
}

#[test]
fn whichever_path_a_flow_is_on_its_failure_costs_no_frame_and_moves_nobody_else() {
    for (lost, others) in [(2, [4, 5]), (4, [2, 5]), (5, [2, 4])] {
        let mut mesh = mesh([400, 300, 300]);
        let before = transits(&mut mesh);
        mesh.run(Duration::from_millis(500));
        mesh.delivered.clear();
        let flow_on = |relay: u16| *before.iter().find(|&(_, &on)| on == relay).unwrap().0;
        let flows = [flow_on(lost), flow_on(others[0]), flow_on(others[1])];
        for sequence in 0..100 {
            if sequence == 50 {
                mesh.frozen.insert(RelayId(lost));
                mesh.flying.retain(|flying| flying.to != RelayId(lost));
            }
            for flow in flows {
                mesh.send_frame(1, of_flow(flow, sequence));
            }
            mesh.run(Duration::from_millis(20));
        }
        mesh.run(Duration::from_millis(200));

        for flow in flows {
            let arrived = mesh.delivered.iter().filter(|(_, it)| it.flow == FlowId(flow));
            let arrived: std::collections::BTreeSet<u64> =
                arrived.map(|(_, it)| it.sequence).collect();
            assert_eq!(arrived, (0..100).collect(), "{lost} lost, flow {flow}");
        }
        let after = transits(&mut mesh);
        assert_eq!(count(&after, lost), 0);
        assert!(before.iter().all(|(flow, &relay)| relay == lost || after[flow] == relay));
    }
}
