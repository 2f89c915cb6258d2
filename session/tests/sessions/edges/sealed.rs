//! What relays on the way, and others, can do with what edges say to one another: nothing.

use overway_wire::FrameKind;

use super::*;
use crate::fabric::Tapped;

const SECRET: &[u8] = b"attack at dawn, by the eastern gate";

fn flipped(mut tapped: Tapped, bit: usize) -> Tapped {
    let mut bytes = tapped.frame.payload.to_vec();
    let at = bit / 8 % bytes.len();
    bytes[at] ^= 1 << (bit % 8);
    tapped.frame.payload = bytes.into();
    tapped
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_transit_reads_nothing_and_changes_nothing() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    mesh.tap();
    let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
    let (mut near, mut away) = stream_between(&a, &b).await;
    let (voice, heard) = flow_between(&a, &b, Redundancy::default()).await;
    for number in 0..50_u8 {
        near.send.write_all(SECRET).await.unwrap();
        let mut read = [0; SECRET.len()];
        soon(away.recv.read_exact(&mut read)).await.unwrap();
        voice.send(&[&[number], SECRET].concat()).unwrap();
        assert_eq!(soon(heard.recv()).await.unwrap()[1..], SECRET[..]);
    }

    let frames = mesh.tapped();
    let token = tenant.token(a.id, |_| {});
    let claims = token.split('.').nth(1).unwrap().as_bytes();
    let public = key(1).public();
    for tapped in &frames {
        let payload = &tapped.frame.payload;
        for part in [SECRET, &SECRET[..16], &claims[..32], b"echo", b"voice", &public.0] {
            assert!(!contains(payload, part), "{part:?} in {tapped:?}");
        }
    }

    // Each frame once more, whole and with each of some bits flipped, the other way round too.
    let (before_a, before_b) = (a.endpoint.stats(), b.endpoint.stats());
    let to_b = |it: &&Tapped| [B1, B2].contains(&it.frame.destination);
    for (number, tapped) in frames.iter().enumerate() {
        mesh.inject(tapped.clone());
        for bit in [number * 7, number * 131 + 3] {
            mesh.inject(flipped(tapped.clone(), bit));
        }
    }
    near.send.write_all(b"after").await.unwrap();
    let mut read = [0; 5];
    soon(away.recv.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"after");
    voice.send(b"after").unwrap();
    assert_eq!(soon(heard.recv()).await.as_deref(), Some(&b"after"[..]));

    let datagrams = frames.iter().filter(|it| it.frame.kind == FrameKind::Datagram).count() as u64;
    let of_sessions = frames.iter().filter(to_b).count() as u64 - datagrams;
    let stats = b.endpoint.stats();
    assert_eq!(stats.datagrams_forged - before_b.datagrams_forged, 2 * datagrams);
    assert_eq!(stats.datagrams_duplicate - before_b.datagrams_duplicate, datagrams);
    let dropped = stats.frames_duplicate - before_b.frames_duplicate;
    assert!(dropped >= 3 * of_sessions, "{dropped} of 3 times {of_sessions}");
    assert_eq!(stats.datagrams_received - before_b.datagrams_received, 1);
    assert_eq!((stats.streams, stats.sessions_closed), (1, 0));
    assert_eq!(a.endpoint.stats().sessions_closed, before_a.sessions_closed);
}

#[tokio::test]
async fn an_impostor_elsewhere_who_knows_the_incarnation_changes_nothing() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
    let _impostor = mesh.edge_port(&[C1]);
    let (mut near, mut away) = stream_between(&a, &b).await;
    let (voice, heard) = flow_between(&a, &b, Redundancy::default()).await;
    mesh.tap();
    for _ in 0..20 {
        talk(&mut near, &mut away).await;
        voice.send(b"word").unwrap();
        soon(heard.recv()).await.unwrap();
    }
    let known = mesh.tapped();
    let before = [a.endpoint.stats(), b.endpoint.stats()];

    for (number, tapped) in known.iter().enumerate() {
        // The frame itself and one that is not, with numbers of the past and of the future.
        for ahead in [0, 1, 1_000_000, u64::MAX / 2] {
            let mut forged = flipped(tapped.clone(), number);
            forged.source = C1;
            forged.frame.sequence = forged.frame.sequence.saturating_add(ahead);
            mesh.inject(forged);
        }
        mesh.inject(Tapped { source: C1, frame: tapped.frame.clone() });
        talk(&mut near, &mut away).await;
    }
    carry_across(&mut near, &mut away, &pattern(1 << 20), &[]).await;

    let to_impostor = |it: &Tapped| it.frame.destination == C1 || it.frame.alternate == Some(C1);
    assert!(!mesh.tapped().iter().any(to_impostor));
    for (edge, before) in [&a, &b].into_iter().zip(before) {
        let stats = edge.endpoint.stats();
        let harm = |stats: overway_session::Stats| {
            (stats.sessions_closed, stats.gaps_given_up, stats.frames_held, stats.far_restarts)
        };
        assert_eq!(harm(stats), harm(before));
        assert_eq!(stats.datagrams_received, before.datagrams_received);
    }
}

/// Strangers take names; those in use are not theirs to take.
#[tokio::test]
async fn a_flood_of_incarnations_ends_no_session() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
    let _impostor = mesh.edge_port(&[C1]);
    mesh.tap();
    let (mut near, mut away) = stream_between(&a, &b).await;
    let first = mesh.tapped().into_iter().find(|it| it.frame.destination == B1).unwrap();
    for flow in 0..5_000 {
        let mut forged = first.clone();
        forged.source = C1;
        forged.frame.flow = FlowId(flow * 858_993);
        mesh.inject(forged);
    }

    talk(&mut near, &mut away).await;
    let c = tenant.edge(&mesh, 3, &[at(32)]);
    let (mut near, mut away) = stream_between(&c, &b).await;
    talk(&mut near, &mut away).await;
    assert!(b.endpoint.stats().frames_stale > 2_000);
}
