//! Two edges of a tenant: one offers the service `echo`, which sends back what it is sent, and the other uses it.
//!
//! ```text
//! cargo run -p overway-client --example echo -- serve TENANT DIRECTORY RELAY...
//! cargo run -p overway-client --example echo -- say TENANT DIRECTORY RELAY...
//! ```
//!
//! DIRECTORY holds the edge's files: `edge.key`, `edge.jwt`, `tenant.jwks.json` and the mesh's `ca.pem`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use overway_client::{
    Edge, EdgeConfig, EdgeKey, FlowOptions, Incoming, OfferOptions, Redundancy, StreamOptions,
    TenantKeys,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// Offers the service, and sends back what it is sent.
pub async fn serve(edge: &Edge) -> anyhow::Result<()> {
    let mut offer = edge.offer("echo", OfferOptions::default())?;
    while let Some(incoming) = offer.accept().await {
        // The name is the one in the other's token, which the tenant's backend signed.
        println!("{} asks", incoming.peer().name());
        tokio::spawn(async move {
            match incoming {
                Incoming::Stream(asked) => {
                    let (mut recv, mut send) = asked.accept().await?.into_split();
                    tokio::io::copy(&mut recv, &mut send).await?;
                    send.finish().await?;
                }
                Incoming::Flow(asked) => {
                    let flow = asked.accept().await?;
                    while let Some(datagram) = flow.recv().await {
                        flow.send(&datagram)?;
                    }
                }
            }
            anyhow::Ok(())
        });
    }
    Ok(())
}

/// Sends a text over a stream; what comes back is the same.
pub async fn say(edge: &Edge, text: &str) -> anyhow::Result<String> {
    let stream = edge.open_stream("echo", StreamOptions::default()).await?;
    let (mut recv, mut send) = stream.into_split();
    send.write_all(text.as_bytes()).await?;
    send.finish().await?;
    let mut answer = String::new();
    recv.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Sends datagrams over a flow until one comes back; how long that one took.
pub async fn ping(edge: &Edge) -> anyhow::Result<Duration> {
    let deadline = Duration::from_millis(200);
    let options = FlowOptions { deadline, redundancy: Redundancy::Always, ..Default::default() };
    let flow = edge.open_flow("echo", options).await?;
    for number in 0..100_u8 {
        let start = Instant::now();
        flow.send(&[number])?;
        while let Ok(Some(datagram)) = timeout(2 * deadline, flow.recv()).await {
            if datagram[..] == [number] {
                return Ok(start.elapsed());
            }
        }
    }
    bail!("no datagram came back")
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [verb, tenant, directory, relays @ ..] = &arguments[..] else {
        bail!("expected: serve or say, TENANT, DIRECTORY, RELAY...");
    };
    let read = |name| {
        let path = Path::new(directory).join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let keys = serde_json::from_str(&read("tenant.jwks.json")?)?;
    let edge = Edge::connect(EdgeConfig::new(
        relays.iter().map(|relay| relay.parse()).collect::<Result<_, _>>()?,
        read("ca.pem")?.into(),
        EdgeKey::from_pkcs8_pem(&read("edge.key")?)?,
        read("edge.jwt")?.trim().to_owned(),
        TenantKeys::from_jwks(tenant.parse()?, &keys)?,
    ))
    .await?;
    match verb.as_str() {
        "serve" => serve(&edge).await?,
        "say" => println!("{} came back; {:?}", say(&edge, "hello").await?, ping(&edge).await?),
        _ => bail!("expected serve or say, got {verb}"),
    }
    edge.close().await;
    Ok(())
}
