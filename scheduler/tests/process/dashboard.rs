//! The dashboard: its files, what it asks for, and the stream that it follows.

use std::io::{BufRead as _, BufReader};

use serde_json::Value;
use tokio::sync::mpsc;

use super::mesh::{Fake, Fleet, Mesh, eventually, within};

const FAKES: [Fake; 3] = [
    Fake { name: "rome", region: "eu-south", provider: "a", delays_us: &[] },
    Fake { name: "oslo", region: "eu-north", provider: "b", delays_us: &[60_000] },
    Fake { name: "bonn", region: "eu-west", provider: "a", delays_us: &[10_000, 12_000] },
];

/// Lines of a stream as they come; `None` once it has ended.
fn follow(mesh: &Mesh, last_event_id: &'static str) -> mpsc::UnboundedReceiver<String> {
    let url = format!("{}/v1/events/stream", mesh.admin);
    let (lines, heard) = mpsc::unbounded_channel();
    tokio::task::spawn_blocking(move || {
        let request = ureq::get(&url).header("last-event-id", last_event_id);
        let body = request.call().unwrap().into_body();
        let read = BufReader::new(body.into_reader()).lines().map_while(Result::ok);
        read.take_while(|line| lines.send(line.clone()).is_ok()).for_each(drop);
    });
    heard
}

/// The data of the next message of this kind.
async fn next(heard: &mut mpsc::UnboundedReceiver<String>, kind: &str) -> String {
    within(async {
        loop {
            let line = heard.recv().await.expect("the stream goes on");
            if line == format!("event: {kind}") {
                return heard.recv().await.unwrap().trim_start_matches("data: ").to_owned();
            }
        }
    })
    .await
}

async fn json(mesh: &Mesh, path: &str) -> Value {
    let (code, body) = mesh.get(path).await;
    assert_eq!(code, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn the_page_and_its_files_are_served_and_may_use_nothing_else() {
    let mesh = Mesh::start().await;
    for (path, content_type) in [
        ("/", "text/html"),
        ("/app.js", "text/javascript"),
        ("/app.css", "text/css"),
        ("/licenses.txt", "text/plain"),
    ] {
        let url = format!("{}{path}", mesh.admin);
        let call = tokio::task::spawn_blocking(move || ureq::get(&url).call().unwrap());
        let answer = within(call).await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert!(header("content-type").starts_with(content_type), "{path}");
        assert!(header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert!(header("etag").starts_with('"'), "{path}");
    }
}

#[test]
fn what_is_embedded_is_what_the_source_makes() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/dashboard");
    if !std::path::Path::new(folder).join("node_modules/esbuild").exists() {
        eprintln!("SKIPPED: needs `npm ci` in scheduler/dashboard");
        return;
    }
    let mut check = std::process::Command::new("node");
    let output = check.args(["build.mjs", "--check"]).current_dir(folder).output().unwrap();

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_browser_gets_what_was_then_the_mesh_then_what_happens() {
    let mesh = Mesh::start().await;
    let _fleet = Fleet::start(&mesh, &FAKES).await;
    eventually(|| async {
        let overview = json(&mesh, "/v1/overview").await;
        (overview["link_counts"]["usable"] == 6).then_some(())
    })
    .await;

    let mut heard = follow(&mesh, "");
    let boot = next(&mut heard, "boot").await;
    let events = next(&mut heard, "events").await;
    assert!(events.contains("node_joined") && events.contains("link_usable"), "{events}");
    let overview: Value = serde_json::from_str(&next(&mut heard, "overview").await).unwrap();
    assert_eq!(overview["relays"].as_array().unwrap().len(), 3);
    assert_eq!(overview["relays"][0]["location"], Value::Null);
    assert_eq!(overview["links"].as_array().unwrap().len(), 6);
    assert_eq!(overview["links"][0]["state"], "up");

    mesh.invite("kiev").await;
    let events = next(&mut heard, "events").await;
    assert!(events.contains("node_invited") && events.contains("kiev"), "{events}");

    // One that comes again goes on; one of another process begins anew.
    let (_, all) = mesh.get("/v1/events").await;
    let all: Value = serde_json::from_str(&all).unwrap();
    let sequence = all["events"].as_array().unwrap().last().unwrap()["sequence"].as_u64().unwrap();
    let mut again = follow(&mesh, format!("{boot}-{sequence}").leak());
    mesh.invite("riga").await;
    let events = next(&mut again, "events").await;
    assert!(events.contains("riga") && !events.contains("node_joined"), "{events}");
    let mut other = follow(&mesh, "1-99999");
    assert!(next(&mut other, "events").await.contains("node_joined"));

    // Streams do not hold up the end.
    mesh.stop().await;
    while within(heard.recv()).await.is_some() {}
}

#[tokio::test]
async fn a_relay_has_links_and_a_history() {
    let mesh = Mesh::start().await;
    let _fleet = Fleet::start(&mesh, &FAKES).await;
    let links = eventually(|| async {
        let body = json(&mesh, "/v1/links?relay=oslo").await;
        let links = body["links"].as_array().unwrap().clone();
        links.iter().all(|link| link["usable"] == true).then_some(links)
    })
    .await;
    assert!(links.iter().all(|link| link["from_name"] == "oslo" || link["to_name"] == "oslo"));

    let _heard = follow(&mesh, "");
    let of_link = eventually(|| async {
        let body = json(&mesh, "/v1/history?from=rome&to=oslo").await;
        body["series"]["delay_us"].is_array().then_some(body)
    })
    .await;
    assert_eq!(of_link["at_unix_ms"].as_array().unwrap().len(), 1);
    let delay = of_link["series"]["delay_us"][0].as_u64().unwrap();
    assert!((1..=60_000).contains(&delay), "{of_link}");
    let of_relay = json(&mesh, "/v1/history?relay=oslo").await;
    assert_eq!(of_relay["series"]["sent_bps"], serde_json::json!([0]));
    assert!(json(&mesh, "/v1/history").await["series"]["links_unusable"].is_array());

    assert_eq!(
        json(&mesh, "/v1/history").await["series"]["felt_gap_p99_us"],
        serde_json::json!([null])
    );
    assert_eq!(
        json(&mesh, "/v1/history?class=bulk&service=web").await["series"],
        serde_json::json!({})
    );

    for query in ["from=rome", "service=web", "relay=rome&class=bulk"] {
        let (code, body) = mesh.get(&format!("/v1/history?{query}")).await;
        assert_eq!(code, 400, "{query}: {body}");
    }
    let (code, body) = mesh.get("/v1/links?relay=olso").await;
    assert_eq!(code, 404);
    assert!(body.contains("did you mean \\\"oslo\\\""), "{body}");
}
