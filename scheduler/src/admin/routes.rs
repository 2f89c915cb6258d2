//! Routes: listed, explained, and as they would be.
//!
//! A mesh may have millions of routes. They are asked of the core for one source at a time, so that a plan
//! that is due waits for one source at most, and only as many are listed as somebody may read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use overway_scheduler_core::{Drainable, RouteStatus, Scheduler};
use overway_topology::{Candidate, Cuts, RouteKey};
use overway_wire::{Class, LinkId, PolicyId, RelayId};
use serde::Deserialize;

use super::names::Known;
use super::{Admin, Failure};
use crate::api::{
    ExplainBody, RelayRefBody, RouteBody, RoutesBody, WhatIfBody, WhatIfRequest, WhatIfRouteBody,
};

/// Routes in one answer: all classes of a mesh of 58 relays, about 10 MB.
const LISTED_MAX: usize = 10_000;
/// Changes in one answer; the worst stand first.
const CHANGES_MAX: usize = 1_000;
/// Relays or links that one question takes out.
const CUTS_MAX: usize = 256;
/// Routes worked out at a time, while nothing else is asked of the core. Each time it makes a copy of the
/// mesh to cut.
const CHUNK: usize = 1_024;
/// Time for working out; those who ask wait for ten seconds.
const WORK_TIME_MAX: Duration = Duration::from_secs(5);

/// Which routes are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoutesQuery {
    from: Option<String>,
    to: Option<String>,
    class: Option<String>,
    tenant: Option<String>,
}

/// `GET /v1/routes`.
pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<RoutesQuery>, QueryRejection>,
) -> Result<Json<RoutesBody>, Failure> {
    let Query(RoutesQuery { from, to, class, tenant }) = query?;
    let known = Known::read(&admin).await?;
    let wanted = Wanted::new(&known, from.as_deref(), to.as_deref(), class.as_deref(), tenant)?;
    let (routes, truncated) = listed(&admin, &known, &wanted).await?;
    Ok(Json(RoutesBody { routes, truncated }))
}

/// The routes that are wanted, as far as they are listed, and whether there are more.
pub(super) async fn listed(
    admin: &Admin,
    known: &Known,
    wanted: &Wanted,
) -> Result<(Vec<RouteBody>, bool), Failure> {
    let mut routes = Vec::new();
    for source in wanted.sources(known) {
        let found = routes_from(admin, source, wanted.to).await?;
        for route in found.iter().filter(|route| wanted.has(route.key)) {
            if routes.len() == LISTED_MAX {
                return Ok((routes, true));
            }
            routes.push(RouteBody::new(route, &known.names));
        }
    }
    Ok((routes, false))
}

async fn routes_from(
    admin: &Admin,
    source: RelayId,
    to: Option<RelayId>,
) -> Result<Vec<RouteStatus>, Failure> {
    let look = move |core: &Scheduler, _| match to {
        Some(destination) => core.routes_between(source, destination),
        None => core.routes_from(source),
    };
    Ok(admin.shared.driver.look(look).await?)
}

/// Which routes are wanted. What is not said leaves all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    from: Option<RelayId>,
    to: Option<RelayId>,
    class: Option<Class>,
    policy: Option<PolicyId>,
}

impl Wanted {
    /// Finds what is named.
    pub(super) fn new(
        known: &Known,
        from: Option<&str>,
        to: Option<&str>,
        class: Option<&str>,
        tenant: Option<String>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            from: from.map(|from| known.relay(from)).transpose()?,
            to: to.map(|to| known.relay(to)).transpose()?,
            class: class.map(Known::class).transpose()?,
            policy: tenant.map(|tenant| known.policy(&tenant)).transpose()?,
        })
    }

    fn sources(&self, known: &Known) -> Vec<RelayId> {
        self.from.map_or_else(|| known.relays().collect(), |from| vec![from])
    }

    fn has(&self, key: RouteKey) -> bool {
        self.class.is_none_or(|class| class == key.class)
            && self.policy.is_none_or(|policy| policy == key.policy)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    from: String,
    to: String,
    class: Option<String>,
    tenant: Option<String>,
}

/// `GET /v1/explain`.
pub(super) async fn explain(
    State(admin): State<Admin>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Json<ExplainBody>, Failure> {
    let Query(ExplainQuery { from, to, class, tenant }) = query?;
    let known = Known::read(&admin).await?;
    let (source, destination) = (known.relay(&from)?, known.relay(&to)?);
    if source == destination {
        let error = format!("{from} and {to} are the same relay: name two");
        return Err(Failure::new(StatusCode::BAD_REQUEST, error));
    }
    let class = class.as_deref().map_or(Ok(Class::default()), Known::class)?;
    let policy = tenant.as_deref().map(|tenant| known.policy(tenant)).transpose()?;
    let policy = policy.unwrap_or_default();
    let key = RouteKey { source, destination, class, policy };
    let backup = tenant.as_deref().and_then(|tenant| known.backup(tenant));
    let found = admin.shared.driver.look(move |core, now| {
        let own = core.explain(key, now);
        own.or_else(|| core.explain(RouteKey { policy: backup?, ..key }, now))
    });
    let Some(found) = found.await? else {
        return Err(no_route(&known, key, tenant.as_deref()));
    };
    let partners = found.explanation.key.policy != policy;
    let name = tenant.as_deref().unwrap_or_default();
    Ok(Json(ExplainBody { partners, ..ExplainBody::new(&found, name, &known.names) }))
}

/// There is no path, which is not the fault of who asks.
fn no_route(known: &Known, key: RouteKey, tenant: Option<&str>) -> Failure {
    let name = |relay| known.names.get(&relay).map_or("?", String::as_str);
    let (from, to, class) = (name(key.source), name(key.destination), key.class.name());
    let error = match tenant {
        None => format!(
            "no path leads from {from} to {to} for {class} now: `overway status` shows which relays and \
             links are down"
        ),
        Some(tenant) => format!(
            "no path leads from {from} to {to} for {class} under policy {tenant} now: `overway policy \
             list` shows what it allows, `overway explain {from} {to}` what leads there without it"
        ),
    };
    Failure::new(StatusCode::CONFLICT, error)
}

/// `POST /v1/what-if`.
pub(super) async fn what_if(
    State(admin): State<Admin>,
    request: Result<Json<WhatIfRequest>, JsonRejection>,
) -> Result<Json<WhatIfBody>, Failure> {
    let Json(WhatIfRequest { relays, links, from, to, class }) = request?;
    let known = Known::read(&admin).await?;
    let cuts = Arc::new(cuts(&known, &relays, &links)?);
    let wanted = Wanted::new(&known, from.as_deref(), to.as_deref(), class.as_deref(), None)?;
    let mut body = WhatIfBody {
        cut_relays: cuts.relays.iter().map(|&id| RelayRefBody::new(id, &known.names)).collect(),
        cut_links: cuts
            .links
            .iter()
            .map(|&(a, b)| (RelayRefBody::new(a, &known.names), RelayRefBody::new(b, &known.names)))
            .collect(),
        ..WhatIfBody::default()
    };
    let mut keys = Vec::new();
    for source in wanted.sources(&known) {
        let routes = routes_from(&admin, source, wanted.to).await?;
        keys.extend(affected(&routes, &wanted, &cuts, &mut body));
    }
    let started = Instant::now();
    for keys in keys.chunks(CHUNK) {
        if started.elapsed() > WORK_TIME_MAX {
            break;
        }
        let (cuts, keys) = (Arc::clone(&cuts), keys.to_vec());
        let found = admin.shared.driver.look(move |core, _| core.what_if(&cuts, &keys)).await?;
        body.evaluated += found.len() as u64;
        let changes = found
            .iter()
            .filter_map(|(key, now, then)| WhatIfRouteBody::new(*key, now, then, &known.names));
        body.changes.extend(changes);
    }
    sum_up(&mut body);
    Ok(Json(body))
}

fn cuts(known: &Known, relays: &[String], links: &[(String, String)]) -> Result<Cuts, Failure> {
    let wrong = |error: String| Failure::new(StatusCode::BAD_REQUEST, error);
    if relays.is_empty() && links.is_empty() {
        return Err(wrong("nothing is cut: name relays, or pairs of relays as links".to_owned()));
    }
    if relays.len() + links.len() > CUTS_MAX {
        return Err(wrong(format!("at most {CUTS_MAX} relays and links are cut at a time")));
    }
    let relays: BTreeSet<RelayId> =
        relays.iter().map(|relay| known.relay(relay)).collect::<Result<_, _>>()?;
    let mut pairs = BTreeSet::new();
    for (one, other) in links {
        let (a, b) = (known.relay(one)?, known.relay(other)?);
        if a == b {
            return Err(wrong(format!(
                "{one} and {other} are the same relay: a link has two ends"
            )));
        }
        pairs.insert((a.min(b), a.max(b)));
    }
    Ok(Cuts { relays, links: pairs })
}

/// Counts the routes, and finds those whose path in use is cut.
fn affected(
    routes: &[RouteStatus],
    wanted: &Wanted,
    cuts: &Cuts,
    body: &mut WhatIfBody,
) -> Vec<RouteKey> {
    let mut keys = Vec::new();
    for RouteStatus { key, candidates, weights: _ } in routes {
        let Some(in_use) = candidates.first().filter(|_| wanted.has(*key)) else { continue };
        body.routes += 1;
        if cuts.relays.contains(&key.source) || cuts.relays.contains(&key.destination) {
            body.ends_cut += 1;
        } else if links_of(key.source, in_use).any(|link| cuts.contains(link)) {
            body.changed += 1;
            keys.push(*key);
        }
    }
    keys
}

/// How many routes have a path in use that goes over what is drained, if any; of a large mesh those of the
/// first source that has one.
pub(super) async fn still_on(
    admin: &Admin,
    known: &Known,
    target: Drainable,
) -> Result<usize, Failure> {
    for source in known.relays() {
        let routes = routes_from(admin, source, None).await?;
        let on_it = routes.iter().filter(|route| is_on(route, target)).count();
        if on_it > 0 {
            return Ok(on_it);
        }
    }
    Ok(0)
}

fn is_on(route: &RouteStatus, target: Drainable) -> bool {
    let Some(in_use) = route.candidates.first() else { return false };
    match target {
        Drainable::Relay(relay) => in_use.path.intermediates().iter().any(|e| e.relay == relay),
        Drainable::Link(one, other) => links_of(route.key.source, in_use).any(|link| {
            (link.from, link.to) == (one, other) || (link.to, link.from) == (one, other)
        }),
    }
}

fn links_of(source: RelayId, candidate: &Candidate) -> impl Iterator<Item = LinkId> {
    let mut from = source;
    candidate.path.elements().iter().map(move |element| {
        let link = LinkId::new(from, element.relay, element.link);
        from = element.relay;
        link
    })
}

/// Counts what was worked out, and leaves the worst.
fn sum_up(body: &mut WhatIfBody) {
    let mut changes: Vec<i64> = body.changes.iter().filter_map(|c| c.delay_change_us).collect();
    changes.sort_unstable();
    body.unreachable = (body.changes.len() - changes.len()) as u64;
    body.delay_change_us_median = changes.get(changes.len() / 2).copied();
    body.delay_change_us_max = changes.last().copied();
    // No change of delay, having no path, is the worst; the sort keeps the order of keys among equals.
    body.changes.sort_by_key(|change| change.delay_change_us.map_or(i64::MIN, |slower| -slower));
    body.changes.truncate(CHANGES_MAX);
    body.omitted = body.changed - body.changes.len() as u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(source: u16, delay_change_us: Option<i64>) -> WhatIfRouteBody {
        WhatIfRouteBody { source, delay_change_us, ..WhatIfRouteBody::default() }
    }

    #[test]
    fn the_unreachable_come_first_and_then_what_gets_slowest() {
        let changes =
            vec![change(1, Some(-5)), change(2, Some(90)), change(3, None), change(4, Some(7))];
        let mut body = WhatIfBody { changed: 4, changes, ..WhatIfBody::default() };

        sum_up(&mut body);

        let sources: Vec<u16> = body.changes.iter().map(|change| change.source).collect();
        assert_eq!(sources, [3, 2, 4, 1]);
        assert_eq!((body.unreachable, body.omitted), (1, 0));
        assert_eq!((body.delay_change_us_median, body.delay_change_us_max), (Some(7), Some(90)));
    }

    #[test]
    fn more_changes_than_are_listed_are_counted() {
        let changes = vec![change(1, Some(1)); CHANGES_MAX + 5];
        let changed = CHANGES_MAX as u64 + 7;
        let mut body = WhatIfBody { changed, changes, ..WhatIfBody::default() };

        sum_up(&mut body);

        assert_eq!((body.changes.len(), body.omitted), (CHANGES_MAX, 7));
    }
}
