//! What users feel.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use overway_scheduler_core::{QUALITY_WINDOW_MAX, QualityStatus, Scheduler};
use serde::Deserialize;

use super::names::Known;
use super::{Admin, Failure};
use crate::api::{QualityBody, ServiceQualityBody};

/// The shortest window: of what three reports of each relay say.
const WINDOW_MIN: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QualityQuery {
    tenant: Option<String>,
    service: Option<String>,
    region: Option<String>,
    class: Option<String>,
    window: Option<String>,
    by: Option<By>,
}

/// What is told apart beside service and class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    #[default]
    Region,
    Service,
}

/// `GET /v1/quality`.
pub(super) async fn show(
    State(admin): State<Admin>,
    query: Result<Query<QualityQuery>, QueryRejection>,
) -> Result<Json<QualityBody>, Failure> {
    let Query(QualityQuery { tenant, service, region, class, window, by }) = query?;
    let window = window.map_or(Ok(QUALITY_WINDOW_MAX), |text| parse_window(&text))?;
    let class = class.map(|class| Known::class(&class)).transpose()?;
    let look = move |core: &Scheduler, now| core.quality(window, now);
    let all = admin.shared.driver.look(look).await?;
    let is_wanted = |status: &QualityStatus| {
        let key = &status.key;
        let named = status.tenant_name.as_deref().unwrap_or_default();
        service.as_ref().is_none_or(|service| *service == key.service)
            && tenant.as_ref().is_none_or(|tenant| tenant == named)
            && region.as_ref().is_none_or(|region| *region == key.region)
            && class.is_none_or(|class| class == key.class)
            && !status.felt.is_empty()
    };
    let mut wanted: Vec<QualityStatus> = all.into_iter().filter(is_wanted).collect();
    if by == Some(By::Service) {
        wanted = merged(wanted);
    }
    let services = wanted.into_iter().map(ServiceQualityBody::new).collect();
    Ok(Json(QualityBody { window_s: window.as_secs(), services }))
}

/// One for each tenant, service and class.
fn merged(statuses: Vec<QualityStatus>) -> Vec<QualityStatus> {
    let mut merged: Vec<QualityStatus> = Vec::new();
    for mut status in statuses {
        status.key.region.clear();
        match merged.iter_mut().find(|known| known.key == status.key) {
            Some(known) => known.felt.merge(&status.felt),
            None => merged.push(status),
        }
    }
    merged
}

/// Reads seconds or minutes.
fn parse_window(text: &str) -> Result<Duration, Failure> {
    let unit = |(number, unit): (&str, &str)| match unit {
        "s" => number.parse().ok(),
        "m" => number.parse::<u64>().ok()?.checked_mul(60),
        _ => None,
    };
    let window = text.split_at_checked(text.len().saturating_sub(1)).and_then(unit);
    let window = window.map(Duration::from_secs);
    window.filter(|window| (WINDOW_MIN..=QUALITY_WINDOW_MAX).contains(window)).ok_or_else(|| {
        let error = format!("{text:?} is no window: give 30s to 5m");
        Failure::new(StatusCode::BAD_REQUEST, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_quality::Felt;
    use overway_scheduler_core::QualityKey;
    use overway_wire::{Class, PolicyId};

    #[test]
    fn windows_are_read_within_their_bounds() {
        let seconds = |text: &str| parse_window(text).ok().map(|window| window.as_secs());
        assert_eq!(
            [seconds("30s"), seconds("5m"), seconds("90s")],
            [Some(30), Some(300), Some(90)]
        );
        for wrong in ["", "5", "m", "6m", "10s", "1h", "-1m", "5ö", "99999999999999999999m"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn regions_of_one_service_are_merged() {
        let status = |service: &str, region: &str, delay| {
            let mut felt = Felt { reports: 1, one_way: 1, ..Felt::default() };
            felt.delay_us.add(delay);
            let (service, region) = (service.to_owned(), region.to_owned());
            QualityStatus {
                key: QualityKey { tenant: PolicyId(0), service, region, class: Class::Bulk },
                tenant_name: None,
                felt,
                totals: Felt::default(),
            }
        };

        let merged =
            merged(vec![status("a", "eu", 10), status("a", "us", 30), status("b", "us", 7)]);

        let bodies: Vec<_> = merged.into_iter().map(ServiceQualityBody::new).collect();
        assert_eq!(bodies.len(), 2);
        assert_eq!((bodies[0].reports, bodies[0].delay_ms.p99), (2, Some(0.03)));
        assert_eq!((&bodies[0].region, &bodies[0].tenant), (&None, &None));
        assert_eq!(bodies[1].delay_basis.as_deref(), Some("one_way"));
    }
}
