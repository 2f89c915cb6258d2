//! By which address others see this host, and what a NAT on the way does to it.
//!
//! A NAT *maps* an address and port of its inside to one outside. If the mapping is the same whatever the destination
//! (endpoint-independent, RFC 4787 section 4.1), a port once mapped can be reached by others; if it differs by destination,
//! only who was written to can answer, and no relay can be dialled there.

use std::net::{IpAddr, SocketAddr};

use super::{Finding, Verdict};

/// What one end told: who it is, this host's address on the way there, and the same as it sees it.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) who: String,
    pub(super) local: SocketAddr,
    pub(super) seen: Option<SocketAddr>,
}

impl View {
    /// What was seen, if it was another than is here.
    fn mapped(&self) -> Option<SocketAddr> {
        self.seen.filter(|&seen| seen != self.local)
    }
}

/// Judges the address, and how it is mapped; `advertised` are those that other relays are told.
pub(super) fn judge(views: &[View], advertised: &[SocketAddr]) -> Vec<Finding> {
    vec![address(views, advertised), mapping(views)]
}

/// Which address others have to use.
fn address(views: &[View], advertised: &[SocketAddr]) -> Finding {
    let check = "address";
    let Some(first) = views.first() else {
        return Finding::new(check, Verdict::Unknown, "no scheduler was reached to compare with")
            .hint("mend what keeps schedulers from answering first");
    };
    if let Some((view, outside)) = views.iter().find_map(|view| Some((view, view.mapped()?))) {
        return mapped(view, outside, advertised);
    }
    if let Some(View { who, local, .. }) = views.iter().find(|view| view.seen.is_some()) {
        let found = format!("{} here, and {who} sees it so: no NAT", local.ip());
        return Finding::new(check, Verdict::Ok, found);
    }
    unseen(first.local.ip(), advertised)
}

/// There is a NAT.
fn mapped(view: &View, outside: SocketAddr, advertised: &[SocketAddr]) -> Finding {
    let View { who, local, .. } = view;
    let found = format!("{local} here, {outside} as {who} sees it: behind NAT");
    let finding = |verdict| Finding::new("address", verdict, found.clone());
    if advertised.iter().any(|advertised| advertised.ip() == outside.ip()) {
        return finding(Verdict::Ok);
    }
    let hint = if advertised.is_empty() {
        format!(
            "have the NAT forward a UDP port to `mesh.listen`, and set mesh.advertise = [\"{}\"] with that port",
            SocketAddr::new(outside.ip(), 0).to_string().replace(":0", ":PORT")
        )
    } else {
        format!(
            "mesh.advertise does not have {}: right only if that is another line of this host, or forwarded to it",
            outside.ip()
        )
    };
    finding(Verdict::Warning).hint(hint)
}

/// Nobody says how this host is seen: what its own address tells.
fn unseen(local: IpAddr, advertised: &[SocketAddr]) -> Finding {
    let check = "address";
    if local.is_loopback() {
        return Finding::new(check, Verdict::Ok, format!("{local}: a mesh on this machine"));
    }
    match (is_private(local), advertised.is_empty()) {
        (true, true) => Finding::new(
            check,
            Verdict::Warning,
            format!("{local} is a private address; how others see it is unknown"),
        )
        .hint("upgrade the scheduler, which then tells; behind a NAT set mesh.advertise to the public address and port"),
        (_, _) => Finding::new(check, Verdict::Unknown, format!("{local} here; how others see it is unknown"))
            .hint("upgrade the scheduler, which then tells"),
    }
}

/// Whether what a NAT maps to differs by destination.
fn mapping(views: &[View]) -> Finding {
    let check = "NAT mapping";
    let seen: Vec<(&View, SocketAddr)> =
        views.iter().filter_map(|view| Some((view, view.seen?))).collect();
    if seen.is_empty() {
        return Finding::new(check, Verdict::Unknown, "nobody says how this host is seen")
            .hint("upgrade scheduler and relays, which then tell");
    }
    if seen.iter().all(|(view, _)| view.mapped().is_none()) {
        let found = format!("none: of {} that tell all see this host as it is", seen.len());
        return Finding::new(check, Verdict::Ok, found);
    }
    // What leaves by different addresses is mapped apart without any fault of a NAT.
    let pairs = seen
        .iter()
        .enumerate()
        .flat_map(|(at, one)| seen[at + 1..].iter().map(move |other| (one, other)));
    let mut comparable = pairs.filter(|((one, _), (other, _))| one.local == other.local).peekable();
    if comparable.peek().is_none() {
        return Finding::new(
            check,
            Verdict::Unknown,
            "one destination answered, two are needed to compare",
        )
        .hint("run it again when the relay has had neighbours, or give another scheduler in scheduler.addresses");
    }
    match comparable.find(|((_, one), (_, other))| one != other) {
        None => {
            let (_, outside) = seen[0];
            let found = format!("the same for {} destinations: {outside}", seen.len());
            Finding::new(check, Verdict::Ok, found)
        }
        Some(((one, seen_by_one), (other, seen_by_other))) => {
            let found = format!(
                "differs by destination: {seen_by_one} for {}, {seen_by_other} for {}",
                one.who, other.who
            );
            Finding::new(check, Verdict::Warning, found).hint(
                "other relays cannot dial through such a NAT: forward a UDP port to this host, or run the relay outside; edges only dial, and work",
            )
        }
    }
}

/// Addresses that the internet does not route (RFC 1918, RFC 6598, RFC 3927, RFC 4193) and loopback.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let shared = first == 100 && (64..128).contains(&second);
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(end: u8, local: &str, seen: Option<&str>) -> View {
        View {
            who: format!("scheduler 192.0.2.{end}:4400"),
            local: local.parse().unwrap(),
            seen: seen.map(|seen| seen.parse().unwrap()),
        }
    }

    fn verdicts(views: &[View], advertised: &[&str]) -> [Verdict; 2] {
        let advertised: Vec<SocketAddr> =
            advertised.iter().map(|text| text.parse().unwrap()).collect();
        judge(views, &advertised)
            .iter()
            .map(|found| found.verdict)
            .collect::<Vec<_>>()
            .try_into()
            .unwrap()
    }

    const INSIDE: &str = "10.0.0.5:5000";
    const OUTSIDE: &str = "203.0.113.9:6000";

    #[test]
    fn who_is_seen_as_it_is_has_no_nat() {
        let views = [view(1, OUTSIDE, Some(OUTSIDE))];

        assert_eq!(verdicts(&views, &[]), [Verdict::Ok; 2]);
        assert!(judge(&views, &[])[0].found.contains("no NAT"));
        assert!(judge(&views, &[])[1].found.contains("of 1 that tell"));
        // Private networks are seen as they are too.
        assert_eq!(verdicts(&[view(1, INSIDE, Some(INSIDE))], &[]), [Verdict::Ok; 2]);
    }

    #[test]
    fn behind_a_nat_the_outside_has_to_be_advertised() {
        let views = [view(1, INSIDE, Some(OUTSIDE))];
        let findings = judge(&views, &[]);

        assert_eq!(verdicts(&views, &[]), [Verdict::Warning, Verdict::Unknown]);
        for part in [INSIDE, OUTSIDE, "192.0.2.1:4400", "behind NAT"] {
            assert!(findings[0].found.contains(part), "{part}: {findings:?}");
        }
        let hint = findings[0].hint.as_ref().unwrap();
        assert!(hint.contains("mesh.advertise = [\"203.0.113.9:PORT\"]"), "{hint}");
        assert!(findings[1].hint.as_ref().unwrap().contains("scheduler.addresses"));
        assert_eq!(verdicts(&views, &["203.0.113.9:4401"])[0], Verdict::Ok);
        assert_eq!(verdicts(&views, &["198.51.100.1:4401"])[0], Verdict::Warning);
        // A port that is mapped is a NAT as well.
        let port = [view(1, OUTSIDE, Some("203.0.113.9:7000"))];
        assert_eq!(verdicts(&port, &[])[0], Verdict::Warning);
    }

    #[test]
    fn two_destinations_tell_how_a_nat_maps() {
        let same = [view(1, INSIDE, Some(OUTSIDE)), view(2, INSIDE, Some(OUTSIDE))];
        let other = [view(1, INSIDE, Some(OUTSIDE)), view(2, INSIDE, Some("203.0.113.9:6001"))];
        let silent = [view(1, INSIDE, Some(OUTSIDE)), view(2, INSIDE, None)];
        // Another address of this host, mapped by itself.
        let apart =
            [view(1, INSIDE, Some(OUTSIDE)), view(2, "10.1.0.5:5000", Some("198.51.100.7:1"))];

        assert_eq!(verdicts(&same, &[])[1], Verdict::Ok);
        assert_eq!(verdicts(&other, &[])[1], Verdict::Warning);
        let found = &judge(&other, &[])[1];
        assert!(
            found.found.contains("differs") && found.hint.as_ref().unwrap().contains("forward")
        );
        assert_eq!([verdicts(&silent, &[])[1], verdicts(&apart, &[])[1]], [Verdict::Unknown; 2]);
    }

    #[test]
    fn what_no_scheduler_tells_is_unknown_or_guessed_from_a_private_address() {
        let of = |local: &str, advertised: &[&str]| verdicts(&[view(1, local, None)], advertised);

        for private in ["10.1.2.3:1", "192.168.0.2:1", "100.64.0.1:1", "[fd00::1]:1", "[fe80::1]:1"]
        {
            assert_eq!(of(private, &[]), [Verdict::Warning, Verdict::Unknown], "{private}");
            assert_eq!(of(private, &["203.0.113.9:1"])[0], Verdict::Unknown, "{private}");
        }
        for public in ["203.0.113.5:1", "[2001:db8::1]:1", "100.128.0.1:1"] {
            assert_eq!(of(public, &[])[0], Verdict::Unknown, "{public}");
        }
        assert_eq!(of("127.0.0.1:1", &[])[0], Verdict::Ok);
        assert_eq!(verdicts(&[], &[]), [Verdict::Unknown; 2]);
    }
}
