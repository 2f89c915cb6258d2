//! What relays say of users reaches whoever asks.

use overway_quality::Felt;
use overway_wire::control::{Hello, Report, VERSION_MAX};
use overway_wire::quality::{Quality, ServiceQuality};
use serde_json::{Value, json};

use super::mesh::{Mesh, eventually, hello};

fn word(service: &str, delay_ms: u32) -> Quality {
    let mut felt = Felt { reports: 1, one_way: 1, due: 500, on_time: 490, ..Felt::default() };
    (felt.lost, felt.gaps, felt.gaps_good) = (10, 499, 498);
    felt.delay_us.add_many(delay_ms * 1_000, 490);
    felt.loss_ppm.add(20_000);
    let felt = Some((&felt).into());
    let service = ServiceQuality { tenant: 0, service: service.into(), class: 0, felt };
    Quality { services: vec![service], span_ms: 10_000 }
}

#[tokio::test]
async fn what_users_feel_at_two_relays_is_merged_by_region_and_exported() {
    let mesh = Mesh::start().await;
    let mut links = Vec::new();
    for (name, region, delay_ms) in [("rome", "south", 20), ("oslo", "north", 80)] {
        let mut link = mesh.dial(&mesh.join(name).await).await.unwrap();
        let region = region.to_owned();
        link.say(Hello { version_max: VERSION_MAX, region, ..hello(name) }).await;
        link.say(Report { sequence: 1, full: true, ..Report::default() }).await;
        link.say(word("voice", delay_ms)).await;
        links.push(link);
    }

    let body = eventually(|| async {
        let (code, body) = mesh.get("/v1/quality?service=voice&window=1m").await;
        assert_eq!(code, 200, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        (body["services"].as_array().unwrap().len() == 2).then_some(body)
    })
    .await;

    let north = &body["services"][0];
    assert_eq!((&north["region"], &north["class"]), (&json!("north"), &json!("realtime")));
    assert_eq!(
        (&north["due"], &north["lost"], &north["tenant"]),
        (&json!(500), &json!(10), &Value::Null)
    );
    assert_eq!(north["delay_basis"], "one_way");
    let p50 = |body: &Value| body["delay_ms"]["p50"].as_f64().unwrap();
    assert!((p50(north) - 80.0).abs() < 1.3 && (p50(&body["services"][1]) - 20.0).abs() < 0.4);

    let (_, body) = mesh.get("/v1/quality?by=service").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["services"][0]["reports"], &body["window_s"]), (&json!(2), &json!(300)));
    assert_eq!(body["services"].as_array().unwrap().len(), 1);
    for wrong in ["window=1h", "class=fast", "by=weather"] {
        assert_eq!(mesh.get(&format!("/v1/quality?{wrong}")).await.0, 400, "{wrong}");
    }

    let (_, metrics) = mesh.get("/metrics").await;
    let labels = "{tenant=\"\",service=\"voice\",region=\"south\",class=\"realtime\"}";
    for line in [
        format!("overway_quality_deliveries_total{labels} 500"),
        format!("overway_quality_gaps_good_total{labels} 498"),
        "overway_scheduler_qualities_total 2".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
}
