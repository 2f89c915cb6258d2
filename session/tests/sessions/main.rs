//! Endpoints against one another over a fake fabric. Time-outs here only end a test that hangs.

mod edges;
mod fabric;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use overway_session::{
    DATAGRAM_BYTES_MAX, Flow, Incoming, IncomingFlow, IncomingStream, OpenError, SendError,
    SessionConfig, SessionEndpoint, SessionError, Stream, Terms,
};
use overway_wire::quality::FlowKind;
use overway_wire::{Class, FlowId, PolicyId, Redundancy, RelayId};
use quinn::{ConnectionError, ReadError};
use tokio::time::timeout;

use crate::fabric::{Faults, Mesh, Tapped};

const A: u16 = 1;
const B: u16 = 2;
/// Less than QUIC's idle time-out of 45 s, which would end anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for what must happen.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it happens in time")
}

fn is_closed(error: &ConnectionError, code: u32) -> bool {
    matches!(error, ConnectionError::ApplicationClosed(close) if close.error_code == code.into())
}

/// Asserts that the far end has closed the session, with this code.
fn assert_ended<T: std::fmt::Debug>(read: Result<T, ReadError>, code: u32) {
    let Err(ReadError::ConnectionLost(error)) = read else { panic!("{read:?}") };
    assert!(is_closed(&error, code), "{error}");
}

async fn next_stream(endpoint: &SessionEndpoint) -> IncomingStream {
    match soon(endpoint.accept()).await {
        Some(Incoming::Stream(stream)) => stream,
        other => panic!("expected a stream, got {other:?}"),
    }
}

async fn next_flow(endpoint: &SessionEndpoint) -> IncomingFlow {
    match soon(endpoint.accept()).await {
        Some(Incoming::Flow(flow)) => flow,
        other => panic!("expected a flow, got {other:?}"),
    }
}

async fn stream_pair(opener: &SessionEndpoint, far: &SessionEndpoint) -> (Stream, Stream) {
    let opened = opener.open_stream(far.local().relay, Class::Bulk, "echo");
    let accepted = async { next_stream(far).await.accept().await };
    let (opened, accepted) = soon(async { tokio::join!(opened, accepted) }).await;
    (opened.unwrap(), accepted.unwrap())
}

async fn flow_pair(opener: &SessionEndpoint, far: &SessionEndpoint) -> (Flow, Flow) {
    let opened = opener.open_flow(far.local().relay, PolicyId(0), Redundancy::default(), "voice");
    let accepted = async { next_flow(far).await.accept().await };
    let (opened, accepted) = soon(async { tokio::join!(opened, accepted) }).await;
    (opened.unwrap(), accepted.unwrap())
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at.wrapping_mul(31) >> 3).to_le_bytes()[0]).collect()
}

/// Sends `bytes` one way and the same back; returns what came back.
async fn echo(opener: &SessionEndpoint, far: &SessionEndpoint, bytes: &[u8]) -> Vec<u8> {
    let (mut near, mut away) = stream_pair(opener, far).await;
    tokio::spawn(async move {
        while let Some(chunk) = away.recv.read_chunk(usize::MAX, true).await.unwrap() {
            away.send.write_chunk(chunk.bytes).await.unwrap();
        }
        away.send.finish().unwrap();
        // Kept until all is acknowledged.
        let _ = away.send.stopped().await;
    });
    let send = async {
        near.send.write_all(bytes).await.unwrap();
        near.send.finish().unwrap();
    };
    let receive = async { near.recv.read_to_end(usize::MAX).await.unwrap() };
    soon(async { tokio::join!(send, receive).1 }).await
}

#[tokio::test]
async fn a_stream_carries_bytes_there_and_back() {
    let mesh = Mesh::new(1);
    let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));
    let bytes = pattern(4 << 20);

    let back = echo(&a, &b, &bytes).await;

    assert!(back == bytes);
    let stats = a.stats();
    assert_eq!(stats.frames_duplicate + stats.frames_held + stats.gaps_given_up, 0, "{stats:?}");
}

#[tokio::test]
async fn a_stream_survives_loss_copies_and_disorder_unharmed() {
    for seed in 1..=3 {
        let mesh = Mesh::new(seed);
        let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));
        let faults = Faults { lost: 0.01, doubled: 0.05, delayed: 0.05, ..Faults::default() };
        mesh.set_faults(faults);
        let bytes = pattern(2 << 20);

        let back = echo(&a, &b, &bytes).await;

        assert!(back == bytes, "seed {seed}");
        let stats = b.stats();
        assert!(stats.frames_duplicate > 0, "seed {seed}: {stats:?}");
        assert!(stats.frames_reordered > 0, "seed {seed}: {stats:?}");
    }
}

#[tokio::test]
async fn ends_say_how_long_frames_wait_for_order_while_some_do() {
    let mesh = Mesh::new(4);
    let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));
    let bytes = pattern(64 << 10);
    assert!(echo(&a, &b, &bytes).await == bytes);
    let words = |end: &SessionEndpoint| {
        let stats = end.stats();
        [stats.order_words_sent, stats.order_words_received]
    };
    assert_eq!([words(&a), words(&b)], [[0; 2]; 2]);

    mesh.set_faults(Faults { delayed: 0.05, ..Faults::default() });
    soon(async {
        while words(&a).contains(&0) || words(&b).contains(&0) {
            assert!(echo(&a, &b, &bytes).await == bytes);
        }
        mesh.set_faults(Faults::default());
        let mut before = [[0; 2]; 2];
        while before != [words(&a), words(&b)] {
            before = [words(&a), words(&b)];
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn streams_of_one_class_share_a_session_and_either_end_may_open() {
    let mesh = Mesh::new(1);
    let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));

    let _streams =
        (stream_pair(&a, &b).await, stream_pair(&a, &b).await, stream_pair(&b, &a).await);

    assert_eq!((a.stats().sessions_opened, b.stats().sessions_opened), (1, 1));
    assert_eq!((a.stats().streams, b.stats().streams), (3, 3));
}

#[tokio::test]
async fn many_openers_at_once_dial_once() {
    let mesh = Mesh::new(1);
    let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));
    let openers: Vec<_> = (0..20)
        .map(|_| {
            let a = a.clone();
            tokio::spawn(async move { a.open_stream(RelayId(B), Class::Bulk, "echo").await })
        })
        .collect();
    let mut accepted = Vec::new();
    for _ in 0..20 {
        accepted.push(next_stream(&b).await.accept().await.unwrap());
    }
    for opener in openers {
        soon(opener).await.unwrap().unwrap();
    }
    assert_eq!(a.stats().sessions_opened, 1);
}

#[tokio::test]
async fn each_way_of_a_stream_ends_by_itself() {
    let mesh = Mesh::new(1);
    let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));
    let (mut near, mut away) = stream_pair(&a, &b).await;

    near.send.write_all(b"question").await.unwrap();
    near.send.finish().unwrap();
    assert_eq!(soon(away.recv.read_to_end(100)).await.unwrap(), b"question");

    away.send.write_all(b"answer").await.unwrap();
    away.send.finish().unwrap();
    assert_eq!(soon(near.recv.read_to_end(100)).await.unwrap(), b"answer");
}

#[tokio::test]
async fn a_reset_and_a_stop_arrive_as_such() {
    let mesh = Mesh::new(1);
    let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));
    let (mut near, mut away) = stream_pair(&a, &b).await;

    near.send.reset(7_u32.into()).unwrap();
    let read = soon(away.recv.read_chunk(10, true)).await;
    assert_eq!(read, Err(ReadError::Reset(7_u32.into())));

    near.recv.stop(9_u32.into()).unwrap();
    assert_eq!(soon(away.send.stopped()).await, Ok(Some(9_u32.into())));
}

#[tokio::test]
async fn the_reason_of_a_refusal_reaches_the_opener() {
    let mesh = Mesh::new(1);
    let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));
    let refuse = async {
        for _ in 0..2 {
            let incoming = soon(b.accept()).await.unwrap();
            assert_eq!((incoming.service(), incoming.from()), ("secret", RelayId(A).into()));
            incoming.refuse("not listed").await;
        }
    };
    let open = async {
        let stream = a.open_stream(RelayId(B), Class::Interactive, "secret").await.unwrap_err();
        let flow = a
            .open_flow(RelayId(B), PolicyId(0), Redundancy::default(), "secret")
            .await
            .unwrap_err();
        (stream, flow)
    };

    let ((), (stream, flow)) = soon(async { tokio::join!(refuse, open) }).await;

    for error in [stream, flow] {
        assert!(matches!(&error, OpenError::Refused(reason) if reason == "not listed"), "{error}");
    }
}

#[tokio::test]
async fn a_service_without_a_name_or_with_too_long_a_one_is_not_asked_for() {
    let mesh = Mesh::new(1);
    let a = mesh.endpoint(A);
    for service in [String::new(), "s".repeat(256)] {
        let opened = a.open_stream(RelayId(B), Class::Bulk, &service).await;
        assert!(matches!(opened, Err(OpenError::Service)));
    }
}

#[tokio::test]
async fn a_relay_with_another_relays_certificate_is_refused_by_both_sides() {
    let mesh = Mesh::new(1);
    let a = mesh.endpoint(A);
    // A relay that took over the port of relay 3, with the certificate of relay 2.
    let mut port = mesh.port(3);
    port.local.relay = RelayId(B);
    let impostor =
        SessionEndpoint::new(SessionConfig::default(), port, mesh.credentials(B)).unwrap();

    let dialled = soon(a.open_stream(RelayId(3), Class::Bulk, "echo")).await;
    let Err(OpenError::Session(ConnectionError::TransportError(_))) = dialled else {
        panic!("TLS takes the name of another relay: {dialled:?}");
    };

    let dialling = soon(impostor.open_stream(RelayId(A), Class::Bulk, "echo")).await;
    let Err(OpenError::Session(error)) = dialling else { panic!("{dialling:?}") };
    assert!(is_closed(&error, 1), "{error}");
    assert_eq!(a.stats().sessions_opened, 0);
    assert_eq!(a.stats().identity_refused, 1);
}

#[tokio::test]
async fn an_endpoint_needs_the_certificate_of_its_own_relay() {
    let mesh = Mesh::new(1);
    let made =
        SessionEndpoint::new(SessionConfig::default(), mesh.port(A), mesh.credentials(B)).err();
    assert!(matches!(made, Some(SessionError::OtherRelay { .. })), "{made:?}");
}

#[tokio::test]
async fn a_flow_carries_datagrams_of_every_length_both_ways() {
    let mesh = Mesh::new(1);
    let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));
    let (near, away) = flow_pair(&a, &b).await;
    for length in [0, 1, 160, 1_179, 1_180, 1_183, 1_184, 1_200, DATAGRAM_BYTES_MAX] {
        let datagram = pattern(length);
        near.send(&datagram).unwrap();
        assert_eq!(soon(away.recv()).await, Some(Bytes::from(datagram.clone())));
        away.send(&datagram).unwrap();
        assert_eq!(soon(near.recv()).await, Some(Bytes::from(datagram)));
    }
    assert_eq!(near.send(&pattern(DATAGRAM_BYTES_MAX + 1)), Err(SendError::TooLong));
}

#[tokio::test]
async fn both_ends_say_what_a_flow_and_a_stream_feel_like() {
    let mesh = Mesh::new(1);
    let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));
    let (near, away) = flow_pair(&a, &b).await;
    for number in 0..20_u8 {
        near.send(&[number; 1_472]).unwrap();
        away.send(&[number; 160]).unwrap();
        soon(async { tokio::join!(away.recv(), near.recv()) }).await;
    }
    let (_near_stream, _away_stream) = stream_pair(&a, &b).await;

    for (endpoint, frames, far) in [(&a, 20, "r2"), (&b, 40, "r1")] {
        let reports = endpoint.take_flow_reports(64, 1 << 16);
        let [flow] = &reports[..] else { panic!("{reports:?}") };
        let felt = flow.felt.as_ref().unwrap();
        assert_eq!((&*flow.service, &*flow.far, flow.kind()), ("voice", far, FlowKind::Datagrams));
        assert_eq!((felt.due, felt.on_time, felt.lost, felt.gaps), (frames, frames, 0, 19));
        // Stamped, as both ends know of it.
        assert_eq!((felt.reports, felt.one_way), (1, 1));
        assert!(endpoint.take_flow_reports(64, 1 << 16).is_empty(), "said once");
    }
    // A stream has something to say once a second in which it moved is over.
    let spoke = async {
        loop {
            _ = echo(&a, &b, &pattern(10_000)).await;
            let reports = a.take_flow_reports(64, 1 << 16);
            if let Some(streams) = reports.into_iter().find(|one| one.kind() == FlowKind::Streams) {
                return streams;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let streams = soon(spoke).await;
    let felt = streams.felt.as_ref().unwrap();
    assert!(felt.due >= 1 && felt.delay_us.is_some() && felt.one_way == 0, "{streams:?}");
    assert!(streams.id >= 1 << 32);
}

#[tokio::test]
async fn a_flow_gives_no_datagram_twice_and_none_that_was_damaged() {
    for seed in 1..=3 {
        let mesh = Mesh::new(seed);
        let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));
        let (near, away) = flow_pair(&a, &b).await;
        mesh.set_faults(Faults {
            lost: 0.02,
            doubled: 0.3,
            delayed: 0.1,
            damaged: 0.1,
            ..Faults::default()
        });
        for number in 0..1_000_u32 {
            let mut datagram = number.to_be_bytes().to_vec();
            datagram.resize(if number % 2 == 0 { 200 } else { DATAGRAM_BYTES_MAX }, 7);
            near.send(&datagram).unwrap();
            tokio::task::yield_now().await;
        }
        mesh.set_faults(Faults::default());
        near.close();
        let mut seen = std::collections::BTreeSet::new();
        while let Some(datagram) = soon(away.recv()).await {
            let number = u32::from_be_bytes(datagram[..4].try_into().unwrap());
            let length = if number % 2 == 0 { 200 } else { DATAGRAM_BYTES_MAX };
            assert!(datagram.len() == length && datagram[4..].iter().all(|&byte| byte == 7));
            assert!(seen.insert(number), "seed {seed}: {number} twice");
        }
        let stats = b.stats();
        assert!(stats.datagrams_duplicate > 0 && stats.datagrams_forged > 0, "{stats:?}");
        assert!(seen.len() > 300, "seed {seed}: {} of 1,000; {stats:?}", seen.len());
    }
}

#[tokio::test]
async fn both_ends_open_flows_which_end_with_either_end() {
    let mesh = Mesh::new(1);
    let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));
    let (a_to_b, at_b) = flow_pair(&a, &b).await;
    let (b_to_a, at_a) = flow_pair(&b, &a).await;
    a_to_b.send(b"one").unwrap();
    b_to_a.send(b"two").unwrap();
    assert_eq!(soon(at_b.recv()).await.as_deref(), Some(&b"one"[..]));
    assert_eq!(soon(at_a.recv()).await.as_deref(), Some(&b"two"[..]));

    drop(a_to_b);
    assert_eq!(soon(at_b.recv()).await, None);
    assert_eq!(at_b.send(b"late"), Err(SendError::Closed));

    drop(at_a);
    assert_eq!(soon(b_to_a.recv()).await, None);
}

#[tokio::test]
async fn a_far_end_that_starts_anew_is_noticed_and_reached_again() {
    let mesh = Mesh::new(1);
    let (a, first) = (mesh.endpoint(A), mesh.endpoint(B));
    let (mut stream, _kept) = stream_pair(&a, &first).await;
    let (flow, _kept_too) = flow_pair(&a, &first).await;
    // The old process is gone without a word: its port is another's now.
    let second = mesh.endpoint(B);

    stream.send.write_all(b"anybody there?").await.unwrap();
    let read = soon(stream.recv.read_chunk(10, true)).await;
    assert!(matches!(read, Err(ReadError::ConnectionLost(_))), "{read:?}");
    assert_eq!(soon(flow.recv()).await, None);

    stream_pair(&a, &second).await;
    flow_pair(&a, &second).await;
    assert_eq!(a.stats().far_restarts, 1);
}

/// QUIC itself would find it out after 45 s of silence.
#[tokio::test]
async fn an_idle_flow_ends_soon_after_its_far_end_is_back() {
    let mesh = Mesh::new(1);
    let (a, first) = (mesh.endpoint(A), mesh.endpoint(B));
    let (flow, _kept) = flow_pair(&a, &first).await;
    let second = mesh.endpoint(B);

    let within = Duration::from_secs(20);
    assert_eq!(timeout(within, flow.recv()).await, Ok(None));
    let (near, away) = timeout(within, flow_pair(&a, &second)).await.unwrap();

    near.send(b"anybody there?").unwrap();
    assert_eq!(soon(away.recv()).await.as_deref(), Some(&b"anybody there?"[..]));
    assert_eq!((a.stats().far_restarts, second.stats().far_restarts), (1, 0));
}

#[tokio::test]
async fn a_far_end_that_starts_anew_reaches_others_at_once() {
    let mesh = Mesh::new(1);
    let (a, first) = (mesh.endpoint(A), mesh.endpoint(B));
    let (mut stream, _kept) = stream_pair(&a, &first).await;
    let second = mesh.endpoint(B);

    let (mut fresh, mut away) = stream_pair(&second, &a).await;
    assert_eq!(a.stats().far_restarts, 0);

    let read = soon(stream.recv.read_chunk(10, true)).await;
    assert!(matches!(read, Err(ReadError::ConnectionLost(_))), "{read:?}");
    assert_eq!(a.stats().far_restarts, 1);
    fresh.send.write_all(b"still there").await.unwrap();
    let chunk = soon(away.recv.read_chunk(11, true)).await.unwrap().unwrap();
    assert_eq!(chunk.bytes, &b"still there"[..]);
}

#[tokio::test]
async fn forged_incarnations_and_sequences_end_no_session() {
    let mesh = Mesh::new(1);
    let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));
    let (mut near, mut away) = stream_pair(&a, &b).await;

    // The true end says nothing all the while, except when it is hailed.
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    for number in 0..50 {
        pause.tick().await;
        mesh.forge(B, A, FlowId(7 + number % 2), u64::from(number));
    }
    for sequence in [5_000_000, u64::MAX - 1] {
        mesh.forge(B, A, FlowId(7), sequence);
    }

    for word in [b"question", b"answered"] {
        away.send.write_all(word).await.unwrap();
        let mut read = [0; 8];
        soon(near.recv.read_exact(&mut read)).await.unwrap();
        assert_eq!(&read, word);
        near.send.write_all(word).await.unwrap();
        soon(away.recv.read_exact(&mut read)).await.unwrap();
        assert_eq!(&read, word);
    }
    assert_eq!(a.stats().far_restarts, 0);
}

#[tokio::test]
async fn closing_ends_streams_flows_and_the_accepting() {
    let mesh = Mesh::new(1);
    let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));
    let (_near, mut away) = stream_pair(&a, &b).await;
    let (near_flow, away_flow) = flow_pair(&a, &b).await;

    soon(a.close()).await;

    assert!(soon(a.accept()).await.is_none());
    assert_ended(soon(away.recv.read_chunk(10, true)).await, 0);
    assert_eq!(soon(away_flow.recv()).await, None);
    assert_eq!(soon(near_flow.recv()).await, None);
    let opened = soon(a.open_stream(RelayId(B), Class::Bulk, "echo")).await;
    assert!(matches!(opened, Err(OpenError::Closed)), "{opened:?}");
}

#[tokio::test]
async fn streams_of_two_redundancies_have_sessions_of_their_own_whose_frames_say_so() {
    let mesh = Mesh::new(1);
    let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));
    mesh.tap();
    let with = |redundancy| Terms::from(Class::Interactive).with_redundancy(redundancy);
    let mut streams = Vec::new();
    for redundancy in Redundancy::ALL {
        let opened = a.open_stream(RelayId(B), with(redundancy), "echo");
        let accepted = async { next_stream(&b).await.accept().await.unwrap() };
        let (opened, accepted) = soon(async { tokio::join!(opened, accepted) }).await;
        streams.push((opened.unwrap(), accepted));
    }
    for (near, away) in &mut streams {
        away.send.write_all(b"back").await.unwrap();
        let mut back = [0; 4];
        soon(near.recv.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"back");
    }

    let mut sequences = BTreeMap::<_, Vec<u64>>::new();
    for Tapped { source, frame } in mesh.tapped() {
        if frame.class == Class::Interactive {
            let lane = (source.relay.0, frame.redundancy, frame.flow);
            sequences.entry(lane).or_default().push(frame.sequence);
        }
    }
    let lanes: Vec<_> =
        sequences.keys().map(|&(relay, redundancy, _)| (relay, redundancy)).collect();
    let expected = [A, B].into_iter().flat_map(|relay| Redundancy::ALL.map(|mode| (relay, mode)));
    assert_eq!(lanes, expected.collect::<Vec<_>>(), "one lane each, both ways");
    for sequences in sequences.into_values() {
        let count = u64::try_from(sequences.len()).unwrap();
        assert_eq!(sequences, (0..count).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_revoked_relay_loses_its_sessions() {
    let mesh = Mesh::new(1);
    let (a, b) = (mesh.endpoint(A), mesh.endpoint(B));
    let (_near, mut away) = stream_pair(&a, &b).await;

    a.disconnect(RelayId(B));

    assert_ended(soon(away.recv.read_chunk(10, true)).await, 1);
}

#[tokio::test]
async fn a_revoked_relay_loses_a_session_that_is_used_for_nothing_new() {
    let mesh = Mesh::new(1);
    let config = SessionConfig { open_timeout: Duration::from_secs(2), ..SessionConfig::default() };
    let (a, b) = (mesh.endpoint_with(A, config), mesh.endpoint(B));
    let (mut near, _away) = stream_pair(&a, &b).await;
    mesh.set_deaf(A, true);
    loop {
        // The first may still hear what was under way.
        let heard = a.stats().frames_received;
        let opened = a.open_stream(RelayId(B), Class::Bulk, "echo").await;
        assert!(matches!(opened, Err(OpenError::TimedOut)), "{opened:?}");
        if a.stats().frames_received == heard {
            break;
        }
    }
    assert_eq!(a.stats().sessions_closed, 0);

    a.disconnect(RelayId(B));

    let read = soon(near.recv.read_chunk(10, true)).await;
    let closed = ReadError::ConnectionLost(ConnectionError::LocallyClosed);
    assert_eq!(read, Err(closed));
}

#[tokio::test]
async fn handshakes_beyond_the_bound_are_refused_until_there_is_room() {
    let mesh = Mesh::new(1);
    let config = SessionConfig {
        handshake_timeout: Duration::from_secs(1),
        handshakes_max: 1,
        ..SessionConfig::default()
    };
    let (a, b, c) = (mesh.endpoint(A), mesh.endpoint_with(B, config), mesh.endpoint(3));
    mesh.set_deaf(A, true);
    let stuck = tokio::spawn(async move { a.open_stream(RelayId(B), Class::Bulk, "echo").await });
    // Only a handshake that was taken up is answered.
    while b.stats().frames_sent == 0 {
        tokio::task::yield_now().await;
    }

    let refused = soon(c.open_stream(RelayId(B), Class::Bulk, "echo")).await;
    assert!(
        matches!(refused, Err(OpenError::Session(ConnectionError::ConnectionClosed(_)))),
        "{refused:?}"
    );

    stuck.abort();
    let opened = async {
        loop {
            match c.open_stream(RelayId(B), Class::Bulk, "echo").await {
                Err(OpenError::Session(_)) => tokio::task::yield_now().await,
                other => break other,
            }
        }
    };
    let accepted = async { next_stream(&b).await.accept().await };
    let (opened, accepted) = soon(async { tokio::join!(opened, accepted) }).await;
    assert!(opened.is_ok() && accepted.is_ok());
}
