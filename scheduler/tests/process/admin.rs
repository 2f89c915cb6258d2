//! The admin interface.

use super::mesh::Mesh;

#[tokio::test]
async fn an_empty_mesh_has_a_status_without_relays() {
    let mesh = Mesh::start().await;

    let status = mesh.status().await;

    assert_eq!(status["mesh"], "demo");
    assert_eq!(status["epoch_term"], 1);
    for list in ["relays", "links", "routes"] {
        assert_eq!(status[list].as_array().map(Vec::len), Some(0), "{list}");
    }
    mesh.stop().await;
}

#[tokio::test]
async fn a_running_scheduler_is_alive_ready_and_measured() {
    let mesh = Mesh::start().await;
    mesh.join("rome").await;

    assert_eq!(mesh.get("/livez").await.0, 200);
    assert_eq!(mesh.get("/readyz").await.0, 200);
    let (code, metrics) = mesh.get("/metrics").await;

    assert_eq!(code, 200);
    assert!(metrics.contains("overway_scheduler_joins_total 1"), "{metrics}");
    assert!(metrics.contains("overway_scheduler_relay_connected{relay=\"rome\"} 0"), "{metrics}");
}

#[tokio::test]
async fn nodes_are_invited_listed_and_removed() {
    let mesh = Mesh::start().await;
    mesh.join("rome").await;
    mesh.invite("oslo").await;
    let listed = async || {
        let (_, body) = mesh.get("/v1/nodes").await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let nodes = body["nodes"].as_array().unwrap().clone();
        let text = |node: &serde_json::Value| format!("{} {}", node["name"], node["state"]);
        nodes.iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(listed().await, [r#""rome" "member""#, r#""oslo" "invited""#]);

    assert_eq!(mesh.delete("/v1/nodes/rome").await.0, 204);
    assert_eq!(mesh.delete("/v1/nodes/oslo").await.0, 204);

    assert_eq!(listed().await, [r#""rome" "removed""#]);
    let (_, events) = mesh.get("/v1/events?since=1").await;
    for kind in ["node_joined", "node_removed", "invitation_withdrawn"] {
        assert!(events.contains(kind), "{kind} in {events}");
    }
}

#[tokio::test]
async fn mistakes_are_answered_as_json_that_says_what_is_wrong() {
    let mesh = Mesh::start().await;
    mesh.join("rome").await;
    let cases = [
        (mesh.get("/v2/status").await, 404, "no such path"),
        (mesh.delete("/v1/status").await, 405, "no such method"),
        (mesh.get("/v1/status?colour=red").await, 400, "colour"),
        (mesh.get("/v1/events?since=yesterday").await, 400, "since"),
        (mesh.post("/v1/nodes", r#"{"nam":"x"}"#).await, 422, "nam"),
        (mesh.post("/v1/nodes", "not json").await, 400, "JSON"),
        (mesh.post("/v1/nodes", r#"{"name":"Rome"}"#).await, 400, "a-z"),
        (mesh.post("/v1/nodes", r#"{"name":"x","ttl_s":0}"#).await, 400, "ttl_s"),
        (mesh.post("/v1/nodes", r#"{"name":"rome"}"#).await, 409, "member already"),
        (mesh.delete("/v1/nodes/oslo").await, 404, "oslo"),
    ];
    for ((code, body), expected, words) in cases {
        assert_eq!(code, expected, "{body}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let error = body["error"].as_str().unwrap();
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let mesh = Mesh::start().await;
    let name = "x".repeat(100_000);
    let body: &'static str = format!(r#"{{"name":"{name}"}}"#).leak();

    let (code, _) = mesh.post("/v1/nodes", body).await;

    assert_eq!(code, 413);
}
