
mod fabric;
use fabric::*;
use overway_session::*;
use overway_wire::*;
use std::time::Instant;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn perf() {
    let mesh = Mesh::new(1);
    let (a, b) = (mesh.endpoint(1), mesh.endpoint(2));
    let loss: f64 = std::env::var("LOSS").ok().map_or(0.0, |l| l.parse().unwrap());
    let reorder: f64 = std::env::var("REORDER").ok().map_or(0.0, |l| l.parse().unwrap());
    mesh.set_faults(Faults { lost: loss, delayed: reorder, ..Faults::default() });
    let b2 = b.clone();
    tokio::spawn(async move {
        loop {
            let Some(Incoming::Stream(s)) = b2.accept().await else { return };
            let mut s = s.accept().await.unwrap();
            let start = Instant::now();
            let (mut n, mut last, mut t) = (0u64, 0u64, Instant::now());
            while let Some(c) = s.recv.read_chunk(1 << 20, true).await.unwrap() {
                n += c.bytes.len() as u64;
                if t.elapsed().as_millis() > 500 { eprintln!("{:.2}s {:.0} Mbit/s", start.elapsed().as_secs_f64(), (n-last) as f64*8e-6/t.elapsed().as_secs_f64()); last = n; t = Instant::now(); }
            }
            eprintln!("total {:.0} Mbit/s", n as f64 * 8e-6 / start.elapsed().as_secs_f64());
            s.send.finish().unwrap();
        }
    });
    let mut s = a.open_stream(RelayId(2), Class::Bulk, "x").await.unwrap();
    let block = vec![7u8; 1 << 16];
    let start = Instant::now();
    while start.elapsed().as_secs() < 5 { s.send.write_all(&block).await.unwrap(); }
    s.send.finish().unwrap();
    let _ = s.recv.read_to_end(10).await;
    eprintln!("{:?}\n{:?}", a.stats(), b.stats());
}
