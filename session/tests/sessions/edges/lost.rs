//! Both ends lose all their addresses at once, and one is told where the other is now.

use super::*;

/// Tells `asker` where `sought` is again and again, as a directory does.
fn keep_telling(
    asker: &Edge,
    sought: EdgeId,
    addresses: &[Address],
) -> tokio::task::JoinHandle<()> {
    let (endpoint, whereabouts) = (asker.endpoint.clone(), whereabouts(addresses));
    tokio::spawn(async move {
        loop {
            endpoint.seek(&[FarEnd::Edge { id: sought, whereabouts }]);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

impl Edge {
    /// Loses all addresses, and is attached elsewhere then.
    fn flee_to(&self, mesh: &Mesh, addresses: &[Address]) {
        self.addresses.iter().for_each(|&address| mesh.kill(address));
        self.move_to(mesh, addresses);
    }
}

#[tokio::test]
async fn a_stream_goes_on_when_both_ends_are_elsewhere_at_once() {
    for seed in 1..=3 {
        let (mesh, tenant) = (Mesh::new(seed), Tenant::new("acme"));
        let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
        let lost = 0.02 * (seed - 1) as f64;
        mesh.set_faults(Faults { lost, delayed: 0.1, ..Faults::default() });
        let (mut near, mut away) = stream_between(&a, &b).await;
        let telling = keep_telling(&a, b.id, &[B3, B4]);

        let flight: [&dyn Fn(); 1] = [&|| {
            a.flee_to(&mesh, &[A3]);
            b.flee_to(&mesh, &[B3, B4]);
        }];
        // Who sends most is the one whose window is full of what is lost.
        if seed == 2 {
            carry_across(&mut away, &mut near, &pattern(2 << 20), &flight).await;
        } else {
            carry_across(&mut near, &mut away, &pattern(2 << 20), &flight).await;
        }

        telling.abort();
        let stats = [a.endpoint.stats(), b.endpoint.stats()];
        assert!(stats.iter().all(|stats| stats.sessions_opened == 1), "seed {seed}: {stats:?}");
        assert!(stats.iter().all(|stats| stats.frames_sought > 0), "seed {seed}: {stats:?}");
    }
}

#[tokio::test]
async fn what_is_idle_goes_on_too_and_flows_follow() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
    let (mut near, mut away) = stream_between(&a, &b).await;
    let (voice_near, voice_away) = flow_between(&a, &b, Redundancy::default()).await;
    a.flee_to(&mesh, &[A3]);
    b.flee_to(&mesh, &[B3, B4]);

    let telling = keep_telling(&a, b.id, &[B3, B4]);
    let found = async {
        while (voice_near.far(), voice_away.far()) != (B3, A3) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(found).await;

    telling.abort();
    talk(&mut near, &mut away).await;
    voice_away.send(b"here").unwrap();
    assert_eq!(soon(voice_near.recv()).await.as_deref(), Some(&b"here"[..]));
}

#[tokio::test]
async fn a_wrong_hint_costs_a_few_packets_and_moves_nothing() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
    let d = tenant.edge(&mesh, 4, &[D1]);
    let (mut near, mut away) = stream_between(&a, &b).await;
    let telling = keep_telling(&a, b.id, &[D1]);

    [B1, B2].into_iter().for_each(|address| mesh.kill(address));
    near.send.write_all(&pattern(1 << 20)).await.unwrap();
    let sought = || a.endpoint.stats().frames_sought;
    let tried = async {
        while sought() < 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(tried).await;
    assert!(sought() < 50, "{} of about 900 packets", sought());

    [B1, B2].into_iter().for_each(|address| mesh.revive(address));
    let read = async { away.recv.read_exact(&mut vec![0; 1 << 20]).await.unwrap() };
    soon(read).await;
    telling.abort();
    talk(&mut away, &mut near).await;
    assert_eq!((d.endpoint.stats().sessions_opened, a.endpoint.stats().sessions_closed), (0, 0));
}

#[tokio::test]
async fn an_end_that_has_started_anew_elsewhere_ends_the_session_once_it_is_found() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, first) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
    let (mut stream, _kept) = stream_between(&a, &first).await;
    a.flee_to(&mesh, &[A3]);
    [B1, B2].into_iter().for_each(|address| mesh.kill(address));
    let second = tenant.edge(&mesh, 2, &[B3, B4]);

    let telling = keep_telling(&a, second.id, &second.addresses);
    let read = soon(stream.recv.read_chunk(10, true)).await;

    telling.abort();
    assert!(matches!(read, Err(ReadError::ConnectionLost(ConnectionError::Reset))), "{read:?}");
    let (mut near, mut away) = stream_between(&a, &second).await;
    talk(&mut near, &mut away).await;
}
