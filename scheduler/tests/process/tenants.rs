//! Tenants: what the operator says of them is kept, and reaches relays.

use overway_tenant::{Tenant, TenantKey};
use overway_wire::control::{Ack, Hello, Report, VERSION_MAX, item, to_relay};
use serde_json::{Value, json};

use super::mesh::{Link, Mesh, hello, within};

fn jwk(seed: u8, kid: &str) -> Value {
    let key = TenantKey::from_seed([seed; 32]).public().to_jwk().named(&kid.parse().unwrap());
    serde_json::to_value(key).unwrap()
}

fn parsed((code, body): (u16, String)) -> (u16, Value) {
    (code, if body.is_empty() { Value::Null } else { serde_json::from_str(&body).unwrap() })
}

/// Takes updates until one has a tenant as it is wanted.
async fn pushed(link: &mut Link, wanted: impl Fn(&Tenant) -> bool) -> Tenant {
    within(async {
        loop {
            let Some(to_relay::Body::Update(update)) = link.hear().await.body else { continue };
            link.say(Ack { revision: update.revision, resync: false }).await;
            let tenants = update.put.into_iter().filter_map(|item| match item.body? {
                item::Body::Tenant(tenant) => Some(Tenant::try_from(&tenant).unwrap()),
                item::Body::Node(_)
                | item::Body::Peer(_)
                | item::Body::Route(_)
                | item::Body::Service(_)
                | item::Body::Revoked(_)
                | item::Body::Policy(_)
                | item::Body::TenantService(_)
                | item::Body::AccessRelay(_)
                | item::Body::AccessPrefixes(_) => None,
            });
            if let Some(tenant) = tenants.into_iter().find(|tenant| wanted(tenant)) {
                return tenant;
            }
        }
    })
    .await
}

async fn relay(mesh: &Mesh, name: &str) -> Link {
    let mut link = mesh.dial(&mesh.join(name).await).await.unwrap();
    link.say(Hello { version_max: VERSION_MAX, ..hello(name) }).await;
    link.say(Report { sequence: 1, full: true, ..Report::default() }).await;
    link
}

#[tokio::test]
async fn what_is_said_of_a_tenant_reaches_a_relay_and_outlasts_a_restart() {
    let mesh = Mesh::start().await;
    let mut link = relay(&mesh, "rome").await;

    let (code, body) = parsed(mesh.post("/v1/tenants", r#"{"name":"im"}"#).await);
    assert_eq!((code, &body["number"], &body["policy"]), (201, &json!(1), &Value::Null));
    assert_eq!(pushed(&mut link, |_| true).await.keys.keys.len(), 0);

    mesh.send("/v1/tenants/im/keys", json!({"key": jwk(1, "a")})).await;
    mesh.send("/v1/tenants/im/keys", json!({"key": jwk(2, "b"), "replaces": "a"})).await;
    mesh.send("/v1/tenants/im/revoked-tokens", json!({"jti": "t1"})).await;
    let tenant = pushed(&mut link, |tenant| !tenant.keys.revoked_tokens.is_empty()).await;
    assert_eq!(tenant.keys.keys.keys().map(overway_tenant::Kid::as_str).collect::<Vec<_>>(), ["b"]);
    assert!(tenant.keys.revoked_kids.contains(&"a".parse().unwrap()));

    mesh.send("/v1/tenants/im/revoked-keys", json!({"kid": "b"})).await;
    assert!(pushed(&mut link, |tenant| tenant.keys.keys.is_empty()).await.keys.keys.is_empty());
    let policy = mesh.put("/v1/policies/eu", json!({"regions": ["eu"]})).await;
    assert_eq!(parsed(policy).1["id"], 2, "of the same numbers");
    let (code, _) = mesh.put("/v1/tenants/im/policy", json!({"policy": "eu"})).await;
    assert_eq!(code, 200);
    let quota = json!({"attachments": 5, "bulk_bps": 1_000_000});
    assert_eq!(mesh.put("/v1/tenants/im/quota", quota).await.0, 200);
    let tenant = pushed(&mut link, |tenant| tenant.quota.attachments.is_some()).await;
    assert_eq!((tenant.route_policy.0, tenant.quota.bps[2]), (2, Some(1_000_000)));
    assert_eq!(mesh.delete("/v1/policies/eu").await.0, 409);
    drop(link);

    let mesh = Mesh::start_in(mesh.stop().await).await;
    let (_, body) = parsed(mesh.get("/v1/tenants/im").await);
    assert_eq!((&body["policy"], &body["number"]), (&json!("eu"), &json!(1)));
    assert_eq!(body["quota"]["attachments"], 5);
    assert_eq!(body["revoked_tokens"][0]["jti"], "t1");
    assert_eq!(body["revoked_keys"][1]["kid"], "b");
    let mut link = relay(&mesh, "oslo").await;
    let again = pushed(&mut link, |_| true).await;
    assert_eq!((again.number.0, again.keys.revoked_tokens.len()), (1, 1));

    assert_eq!(mesh.delete("/v1/tenants/im").await.0, 204);
    assert_eq!(parsed(mesh.get("/v1/tenants").await).1["tenants"], json!([]));
}

#[tokio::test]
async fn what_cannot_be_of_a_tenant_is_told_with_the_reason() {
    let mesh = Mesh::start().await;
    mesh.post("/v1/tenants", r#"{"name":"im"}"#).await;
    mesh.send("/v1/tenants/im/keys", json!({"key": jwk(1, "a")})).await;
    let mut private = jwk(1, "a");
    private["d"] = json!("c2VjcmV0");
    let mut nameless = jwk(1, "a");
    nameless.as_object_mut().unwrap().remove("kid");
    let keys = "/v1/tenants/im/keys";
    let cases = [
        (mesh.post("/v1/tenants", r#"{"name":"im"}"#).await, 409, "already"),
        (mesh.post("/v1/tenants", r#"{"name":"Im"}"#).await, 400, "a-z"),
        (mesh.post("/v1/tenants", r#"{"name":"a","policy":"eu"}"#).await, 404, "policy list"),
        (mesh.post("/v1/tenants", r#"{"name":"a","quota":{"flows":0}}"#).await, 400, "no quota"),
        (mesh.post("/v1/tenants", r#"{"name":"a","key":1}"#).await, 422, "key"),
        (mesh.get("/v1/tenants/in").await, 404, "did you mean \"im\"?"),
        (mesh.try_send(keys, json!({"key": jwk(2, "a")})).await, 409, "is another"),
        (mesh.try_send(keys, json!({"key": private})).await, 400, "private half"),
        (mesh.try_send(keys, json!({"key": nameless})).await, 400, "\"kid\""),
        (mesh.try_send("/v1/tenants/im/revoked-keys", json!({"kid": "b"})).await, 404, "no key"),
        (mesh.try_send("/v1/tenants/im/revoked-tokens", json!({"jti": ""})).await, 400, "jti"),
        (mesh.delete("/v1/tenants/ip").await, 404, "tenant list"),
    ];
    for (answer, expected, words) in cases {
        let (code, body) = parsed(answer);
        let error = body["error"].as_str().unwrap();
        assert_eq!(code, expected, "{error}");
        assert!(error.contains(words), "{words:?} is not in {error:?}");
    }
}
