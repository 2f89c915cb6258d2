//! What an operator asks and wishes of routes.

use overway_pki::{ADMIN_TOKEN_FILE, read_admin_token};
use serde_json::{Value, json};

use super::mesh::{Fake, Fleet, Mesh, eventually};

/// Rome and Oslo are far from one another and near Bonn.
const TRIO: [Fake; 3] = [
    Fake { name: "rome", region: "eu-south", provider: "a", delays_us: &[] },
    Fake { name: "oslo", region: "eu-north", provider: "b", delays_us: &[60_000] },
    Fake { name: "bonn", region: "eu-west", provider: "a", delays_us: &[10_000, 12_000] },
];

async fn trio() -> (Mesh, Fleet) {
    let mesh = Mesh::start().await;
    let fleet = Fleet::start(&mesh, &TRIO).await;
    path_becomes(&mesh, "", "bonn,oslo").await;
    (mesh, fleet)
}

async fn ok(answer: impl Future<Output = (u16, String)>) -> Value {
    let (code, body) = answer.await;
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Waits until this is the path in use from Rome to Oslo, for realtime traffic.
async fn path_becomes(mesh: &Mesh, tenant: &str, expected: &str) {
    let query = format!("/v1/routes?from=rome&to=oslo&class=realtime{tenant}");
    eventually(|| async {
        let body = ok(mesh.get(&query)).await;
        let steps = body["routes"][0]["candidates"][0]["path"].as_array()?.clone();
        let names = steps.iter().map(|step| step["name"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>().join(",") == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn routes_are_listed_by_pair_and_class() {
    let (mesh, _fleet) = trio().await;

    let all = ok(mesh.get("/v1/routes")).await;
    let pair = ok(mesh.get("/v1/routes?from=1&to=oslo")).await;
    let status = ok(mesh.get("/v1/status")).await;
    let with_routes = ok(mesh.get("/v1/status?from=rome")).await;

    assert_eq!(all["routes"].as_array().unwrap().len(), 3 * 2 * 3);
    assert_eq!(all["truncated"], false);
    let classes: Vec<&Value> =
        pair["routes"].as_array().unwrap().iter().map(|route| &route["class"]).collect();
    assert_eq!(classes, ["realtime", "interactive", "bulk"]);
    assert_eq!(status["routes"].as_array().unwrap().len(), 0);
    assert_eq!(status["routes_summary"]["looked_at"], 18);
    assert_eq!(with_routes["routes"].as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn a_route_is_explained_with_its_costs_and_what_lost() {
    let (mesh, _fleet) = trio().await;

    let body = ok(mesh.get("/v1/explain?from=rome&to=oslo&class=realtime")).await;

    let current = &body["current"];
    assert_eq!(current["path"][0]["name"], "bonn");
    assert_eq!(current["verdict"]["kind"], "cheapest");
    assert_eq!(current["links"].as_array().unwrap().len(), 2);
    assert_eq!(current["links"][0]["from_name"], "rome");
    let terms = &current["terms"];
    let sum: u64 = ["delay", "hop", "spread", "loss", "jitter", "load", "price"]
        .iter()
        .map(|term| terms[term].as_u64().unwrap())
        .sum();
    assert_eq!(terms["total"], sum);
    let direct = &body["direct"];
    assert_eq!(direct["path"].as_array().unwrap().len(), 1);
    assert_eq!(direct["verdict"]["kind"], "dearer");
    assert!(direct["delay_us"].as_u64() > current["delay_us"].as_u64(), "{body}");
}

#[tokio::test]
async fn what_if_answers_without_touching_the_mesh() {
    let (mesh, _fleet) = trio().await;

    let relay = ok(mesh.post("/v1/what-if", r#"{"relays":["bonn"]}"#)).await;
    let link = ok(mesh.post("/v1/what-if", r#"{"links":[["rome","bonn"]],"class":"bulk"}"#)).await;
    let all = ok(mesh.post(
        "/v1/what-if",
        r#"{"relays":["3"],"links":[["rome","oslo"]],"from":"rome","to":"oslo"}"#,
    ))
    .await;

    assert_eq!(relay["cut_relays"][0], json!({"id": 3, "name": "bonn"}));
    assert_eq!((&relay["routes"], &relay["ends_cut"]), (&json!(18), &json!(12)));
    assert_eq!((&relay["changed"], &relay["unreachable"]), (&json!(6), &json!(0)), "{relay}");
    let change = &relay["changes"][0];
    assert_eq!(change["then"]["path"][0]["name"], change["destination_name"]);
    assert!(change["delay_change_us"].as_i64().unwrap() > 30_000, "{change}");
    assert!(link["changed"].as_u64().unwrap() >= 2, "{link}");
    assert_eq!((&all["changed"], &all["unreachable"]), (&json!(3), &json!(3)), "{all}");
    assert!(all["changes"][0]["then"].is_null());
    path_becomes(&mesh, "", "bonn,oslo").await;
}

#[tokio::test]
async fn a_drained_relay_empties_and_stays_drained_over_a_restart_until_it_is_undone() {
    let (mesh, fleet) = trio().await;
    // Nobody needs to go over the link between Rome and Oslo while Bonn is there.
    let link = ok(mesh.put("/v1/drains/link/oslo/rome", json!({"deadline_s": 3_600}))).await;
    assert_eq!((&link["kind"], &link["relays"]), (&json!("link"), &json!(["rome", "oslo"])));
    assert!(link["deadline_in_ms"].as_u64().unwrap() <= 3_600_000);
    assert_eq!(mesh.delete("/v1/drains/link/rome/2").await.0, 204);

    ok(mesh.put("/v1/drains/relay/bonn", json!({}))).await;

    path_becomes(&mesh, "", "oslo").await;
    let body = ok(mesh.get("/v1/drains")).await;
    let drain = &body["drains"][0];
    assert_eq!((&drain["relays"][0], &drain["stage"]), (&json!("bonn"), &json!("leaving")));
    assert_eq!((&drain["empty"], &drain["routes_left"]), (&json!(true), &json!(0)));
    assert!(drain["deadline_in_ms"].is_null());

    drop(fleet);
    let mesh = Mesh::start_in(mesh.stop().await).await;
    let status = ok(mesh.get("/v1/status")).await;
    assert_eq!(status["drains"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!(status["relays"][2]["drain"], "leaving");
    assert_eq!(mesh.delete("/v1/drains/relay/3").await.0, 204);
    assert_eq!(ok(mesh.get("/v1/drains")).await["drains"], json!([]));
    assert_eq!(mesh.delete("/v1/drains/relay/bonn").await.0, 404);
}

#[tokio::test]
async fn transit_is_forbidden_and_left_to_the_relay_again() {
    let (mesh, _fleet) = trio().await;

    let forbidden = ok(mesh.put("/v1/transit/bonn", json!({"allow": false}))).await;

    assert_eq!(forbidden, json!({"relay": "bonn", "allow": false}));
    path_becomes(&mesh, "", "oslo").await;
    assert_eq!(ok(mesh.get("/v1/status")).await["relays"][2]["transit_override"], false);
    let cleared = ok(mesh.delete("/v1/transit/bonn")).await;
    assert_eq!(cleared, json!({"relay": "bonn", "allow": null}));
}

#[tokio::test]
async fn a_policy_keeps_its_paths_within_its_cells_and_follows_their_change() {
    let (mesh, _fleet) = trio().await;
    ok(mesh.put("/v1/cells/ends", json!({"regions": ["eu-south", "eu-north"]}))).await;

    let body = ok(mesh.put("/v1/policies/voice", json!({"cells": ["ends"]}))).await;

    assert_eq!((&body["id"], &body["name"]), (&json!(1), &json!("voice")));
    assert_eq!(body["regions_in_force"], json!(["eu-north", "eu-south"]));
    assert_eq!(body["relays"], json!(["rome", "oslo"]));
    path_becomes(&mesh, "&tenant=voice", "oslo").await;

    let cell = json!({"regions": ["eu-south", "eu-north", "eu-west"]});
    let cell = ok(mesh.put("/v1/cells/ends", cell)).await;
    assert_eq!(cell["policies"], json!(["voice"]));
    path_becomes(&mesh, "&tenant=voice", "bonn,oslo").await;

    assert_eq!(mesh.delete("/v1/cells/ends").await.0, 409);
    assert_eq!(mesh.delete("/v1/policies/voice").await.0, 204);
    assert_eq!(mesh.delete("/v1/cells/ends").await.0, 204);
    assert_eq!(ok(mesh.get("/v1/policies")).await["policies"], json!([]));
    assert_eq!(ok(mesh.get("/v1/cells")).await["cells"], json!([]));
}

#[tokio::test]
async fn policies_and_transit_outlast_a_restart() {
    let (mesh, fleet) = trio().await;
    ok(mesh.put("/v1/policies/voice", json!({"providers": ["b"]}))).await;
    ok(mesh.put("/v1/transit/bonn", json!({"allow": false}))).await;
    drop(fleet);

    let mesh = Mesh::start_in(mesh.stop().await).await;

    let status = ok(mesh.get("/v1/status")).await;
    assert_eq!(status["policies"][0]["name"], "voice");
    assert_eq!(status["policies"][0]["relays"], json!(["oslo"]));
    assert_eq!(status["relays"][2]["transit_override"], false);
    assert_eq!(ok(mesh.get("/v1/policies/voice")).await["id"], 1);
}

#[tokio::test]
async fn what_cannot_be_is_told_with_what_may_have_been_meant() {
    let (mesh, _fleet) = trio().await;
    ok(mesh.put("/v1/policies/voice", json!({"providers": ["b"]}))).await;
    let cases = [
        (mesh.get("/v1/explain?from=rom&to=oslo").await, 404, "did you mean \"rome\"?"),
        (mesh.get("/v1/explain?from=rome&to=99").await, 404, "node list"),
        (mesh.get("/v1/explain?from=rome").await, 400, "to"),
        (mesh.get("/v1/explain?from=rome&to=1").await, 400, "same relay"),
        (mesh.get("/v1/explain?from=rome&to=oslo&class=real").await, 400, "realtime"),
        (mesh.get("/v1/explain?from=rome&to=oslo&tenant=voise").await, 404, "mean \"voice\"?"),
        (mesh.get("/v1/explain?from=rome&to=oslo&tenant=voice").await, 409, "under policy voice"),
        (mesh.get("/v1/routes?form=rome").await, 400, "form"),
        (mesh.post("/v1/what-if", "{}").await, 400, "nothing is cut"),
        (mesh.post("/v1/what-if", r#"{"relays":["bon"]}"#).await, 404, "mean \"bonn\"?"),
        (mesh.post("/v1/what-if", r#"{"links":[["bonn","3"]]}"#).await, 400, "two ends"),
        (mesh.put("/v1/drains/relay/bohn", json!({})).await, 404, "mean \"bonn\"?"),
        (mesh.put("/v1/drains/relay/bonn", json!({"until": 1})).await, 422, "until"),
        (mesh.put("/v1/drains/relay/bonn", json!({"deadline_s": u64::MAX})).await, 400, "month"),
        (mesh.put("/v1/drains/link/bonn/bonn", json!({})).await, 400, "other end"),
        (mesh.put("/v1/transit/nowhere", json!({"allow": true})).await, 404, "node list"),
        (mesh.put("/v1/policies/x", json!({})).await, 400, "restrict nothing"),
        (mesh.put("/v1/policies/X", json!({"regions": ["a"]})).await, 400, "a-z"),
        (mesh.put("/v1/policies/x", json!({"cells": ["eu"]})).await, 404, "cell list"),
        (mesh.delete("/v1/policies/nix").await, 404, "policy list"),
        (mesh.put("/v1/cells/eu", json!({"regions": []})).await, 400, "no region"),
        (mesh.delete("/v1/cells/eu").await, 404, "cell list"),
    ];
    for ((code, body), expected, words) in cases {
        let body: Value = serde_json::from_str(&body).unwrap();
        let error = body["error"].as_str().unwrap();
        assert_eq!(code, expected, "{error}");
        assert!(error.contains(words), "{words:?} is not in {error:?}");
    }
}

#[tokio::test]
async fn a_tenant_of_a_cell_has_its_paths_there_and_over_partners_where_the_cell_has_none() {
    let (mesh, _fleet) = trio().await;
    ok(mesh.put("/v1/cells/mid", json!({"regions": ["eu-west"]}))).await;
    let cell = json!({"regions": ["eu-south"], "relays": ["oslo"], "partners": ["mid"]});
    let cell = ok(mesh.put("/v1/cells/ends", cell)).await;
    assert_eq!((&cell["relays"], &cell["partners"]), (&json!(["oslo"]), &json!(["mid"])));

    let (code, _) = mesh.try_send("/v1/tenants", json!({"name": "im", "cell": "ends"})).await;

    assert_eq!(code, 201);
    path_becomes(&mesh, "&tenant=im", "oslo").await;
    let explain = "/v1/explain?from=rome&to=oslo&tenant=im";
    assert_eq!(ok(mesh.get(explain)).await["partners"], false);
    ok(mesh.put("/v1/drains/link/oslo/rome", json!({"deadline_s": 0}))).await;
    let explained = eventually(|| async {
        let (code, body) = mesh.get(explain).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        (code == 200 && body["partners"] == true).then_some(body)
    })
    .await;
    assert_eq!(explained["current"]["path"][0]["name"], "bonn");

    let mesh = Mesh::start_in(mesh.stop().await).await;
    let tenant = ok(mesh.get("/v1/tenants/im")).await;
    assert_eq!((&tenant["cell"], &tenant["policy"]), (&json!("ends"), &json!("cell:ends")));
    let policy = mesh.put("/v1/tenants/im/policy", json!({"policy": null})).await;
    assert!(policy.0 == 409 && policy.1.contains("cell"), "{policy:?}");
    assert_eq!(mesh.delete("/v1/cells/mid").await.0, 409, "a partner");
    ok(mesh.put("/v1/tenants/im/cell", json!({"cell": null}))).await;
    assert_eq!(ok(mesh.get("/v1/policies")).await["policies"], json!([]));
}

/// The header that says: this is the operator.
fn signed(mesh: &Mesh) -> (&'static str, String) {
    let file = mesh.dir.path().join("scheduler").join(ADMIN_TOKEN_FILE);
    ("authorization", format!("Bearer {}", read_admin_token(&file).unwrap()))
}

#[tokio::test]
async fn a_web_page_changes_nothing_without_the_token() {
    let (mesh, _fleet) = trio().await;
    let drain = "/v1/drains/relay/bonn";
    let page = || ("origin", mesh.admin.clone());
    let wrong = || ("authorization", "Bearer admin-guessed".to_owned());

    for headers in [vec![page()], vec![wrong()], vec![page(), wrong()]] {
        let (code, body) = mesh.ask("PUT", drain, &headers).await;
        assert_eq!(code, 401, "{body}");
        assert!(body.contains("admin token"), "{body}");
    }
    assert_eq!(ok(mesh.get("/v1/drains")).await["drains"], json!([]));
    assert_eq!(mesh.ask("GET", "/v1/operator", &[wrong()]).await.0, 401);
    let nobody = ok(mesh.ask("GET", "/v1/operator", &[page()])).await;
    assert_eq!(nobody, json!({"signed_in": false, "token_required": false}));

    let operator = ok(mesh.ask("GET", "/v1/operator", &[page(), signed(&mesh)])).await;
    assert_eq!(operator["signed_in"], true);
    ok(mesh.ask("PUT", drain, &[page(), signed(&mesh)])).await;
    assert_eq!(ok(mesh.get("/v1/drains")).await["drains"][0]["relays"], json!(["bonn"]));
    assert_eq!(mesh.ask("DELETE", drain, &[page()]).await.0, 401);
    assert_eq!(mesh.ask("DELETE", drain, &[page(), signed(&mesh)]).await.0, 204);
}

#[tokio::test]
async fn programs_need_the_token_where_it_is_required_and_it_outlives_a_restart() {
    let mesh = Mesh::start().await;
    let before = signed(&mesh);
    let mesh = Mesh::start_with(mesh.stop().await, "require_token = true").await;
    let cell = "/v1/cells/eu";

    assert_eq!(signed(&mesh), before);
    let (code, body) = mesh.put(cell, json!({"regions": ["eu"]})).await;
    assert_eq!((code, body.contains("--admin-token-file")), (401, true), "{body}");
    assert_eq!(mesh.ask("DELETE", cell, &[before]).await.0, 404);
    assert_eq!(ok(mesh.get("/v1/operator")).await["token_required"], true);
    assert_eq!(mesh.get("/metrics").await.0, 200);
}
