//! Quotas of a tenant: what is beyond them is refused, the edge is told which limit it is, and what runs goes on.

use std::time::Duration;

use overway_relay::access::AccessDrop;
use overway_session::Outbound;
use overway_tenant::Quota;
use overway_wire::{Class, FlowId, Whereabouts};

use crate::stand::{Edge, Stand, frame, until};

/// Sends one frame of a flow every few milliseconds until something holds.
async fn send_until(edge: &Edge, to: Whereabouts, flow: u32, holds: impl Fn() -> bool) {
    let sequence = std::cell::Cell::new(0);
    until(async || {
        sequence.set(sequence.get() + 1);
        let frame = Outbound { flow: FlowId(flow), ..frame(to, Class::Bulk, sequence.get()) };
        // What there is no room for is offered again with the next.
        let _ = edge.port.sender.try_send(&mut vec![frame]);
        holds()
    })
    .await;
}

/// The limits that the edge knows of, with their reasons.
fn limits(edge: &Edge) -> Vec<(&'static str, String)> {
    edge.attachments.status().limits.into_iter().map(|it| (it.limit, it.reason)).collect()
}

#[tokio::test]
async fn a_new_flow_beyond_the_quota_is_refused_and_the_one_that_is_open_goes_on() {
    let mut stand = Stand::start_with(1).await;
    stand.change(|tenant| tenant.quota.flows = Some(1)).await;
    let alice = stand.edge(1, vec![stand.nodes[0].address]);
    let here = alice.attached(1).await;
    let stats = || stand.nodes[0].stats();
    send_until(&alice, here, 1, || stats().frames_up >= 3).await;

    send_until(&alice, here, 2, || {
        stats().dropped[AccessDrop::QuotaFlows as usize] > 0 && !limits(&alice).is_empty()
    })
    .await;

    let known = limits(&alice);
    assert_eq!(known[0].0, "flows");
    assert!(known[0].1.starts_with("quota of flows: the tenant has 1 open"), "{known:?}");
    let before = stats().frames_up;
    send_until(&alice, here, 1, || stats().frames_up >= before + 3).await;
    let used = || stand.nodes[0].mesh.deliveries.access_use().unwrap_or_default();
    until(async || used().tenants.first().is_some_and(|tenant| tenant.flows == 1)).await;
    assert!(used().tenants[0].sent_bytes >= 6 * 1_200);
    stand.stop().await;
}

#[tokio::test]
async fn a_months_bytes_end_and_an_edge_beyond_the_quota_of_attachments_is_refused() {
    let mut stand = Stand::start_with(1).await;
    let quota = Quota { attachments: Some(1), bytes_per_month: Some(2_000), ..Quota::default() };
    stand.change(|tenant| tenant.quota = quota).await;
    let relay = stand.nodes[0].address;
    let alice = stand.edge(1, vec![relay]);
    let here = alice.attached(1).await;

    let dropped = || stand.nodes[0].stats().dropped[AccessDrop::QuotaMonth as usize];
    send_until(&alice, here, 1, || dropped() > 0 && !limits(&alice).is_empty()).await;
    assert_eq!(stand.nodes[0].stats().frames_up, 2);
    let known = limits(&alice);
    assert!(
        known[0].1.starts_with("quota of bytes per month: the tenant has sent 2000"),
        "{known:?}"
    );

    let bob = stand.edge(2, vec![relay]);
    until(async || bob.attachments.status().counts.refused > 0).await;
    let error = bob.attachments.status().last_error.unwrap();
    assert!(error.contains("quota of attachments: the tenant has 1 edges"), "{error}");

    // More is allowed: both go on without doing anything.
    let quota = Quota { attachments: Some(2), bytes_per_month: Some(1 << 30), ..quota };
    stand.change(|tenant| tenant.quota = quota).await;
    let frames = || stand.nodes[0].stats().frames_up;
    send_until(&alice, here, 1, || frames() > 2).await;
    tokio::time::timeout(Duration::from_secs(30), bob.attached(1)).await.unwrap();
    stand.stop().await;
}
