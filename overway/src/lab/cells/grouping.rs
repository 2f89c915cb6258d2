//! How the cells of a profile are taken for a lab: which relays each has, and where its tenant's edges attach.

use std::collections::BTreeSet;

use anyhow::bail;

use crate::lab::profile::Profile;

/// The fewest relays of a cell: two edges, each attached twice, and one relay at least that is not both's.
const RELAYS_MIN: usize = 3;
/// The fewest cells: one that is alone cannot be left.
const CELLS_MIN: usize = 2;
/// Relays of partners that an edge knows.
const PARTNERS_KNOWN: usize = 2;

/// A cell's relays, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Its name, its tenant's too.
    pub(super) name: String,
    /// Its own.
    pub(super) relays: Vec<usize>,
    /// Those of its partners.
    pub(super) partners: Vec<usize>,
    /// All others.
    pub(super) outside: Vec<usize>,
    /// Where the consumer and the provider are to attach first: the pair whose best path leaves the cell, if it may, and
    /// gains most; else any.
    pub(super) ends: (usize, usize),
}

/// The cells of a profile.
///
/// # Errors
/// It has no two that are large enough, or none has a partner; the error says what to add.
pub(super) fn groups(profile: &Profile) -> anyhow::Result<Vec<Group>> {
    let (name, cells) = (profile.name(), profile.cells());
    if cells.len() < CELLS_MIN {
        let count = cells.len();
        bail!(
            "the profile {name:?} groups its relays into {count} cells, and {CELLS_MIN} are needed; add \
             `cell = [{{ name = \"...\", regions = [\"...\"], partners = [\"...\"] }}, ...]`, as `overway lab profile` has it"
        );
    }
    if cells.iter().all(|cell| cell.partners.is_empty()) {
        bail!("no cell of the profile {name:?} has partners; give one of them some");
    }
    let mut groups = Vec::new();
    for cell in cells {
        let relays = profile.relays_of(cell);
        if relays.len() < RELAYS_MIN {
            let (cell, count) = (&cell.name, relays.len());
            bail!(
                "cell {cell:?} of the profile {name:?} has {count} relays, and {RELAYS_MIN} are needed; give it more regions"
            );
        }
        let is_partner =
            |other: &&crate::lab::profile::CellProfile| cell.partners.contains(&other.name);
        let partners: Vec<usize> =
            cells.iter().filter(is_partner).flat_map(|other| profile.relays_of(other)).collect();
        let allowed: BTreeSet<usize> = relays.iter().chain(&partners).copied().collect();
        let outside = (0..profile.relays().len()).filter(|it| !allowed.contains(it)).collect();
        let ends = ends(profile, &relays);
        groups.push(Group { name: cell.name.clone(), relays, partners, outside, ends });
    }
    Ok(groups)
}

/// The ordered pair of a cell whose best path gains most by leaving it.
fn ends(profile: &Profile, relays: &[usize]) -> (usize, usize) {
    let exact = profile.exact();
    let pairs = relays.iter().flat_map(|&a| relays.iter().map(move |&b| (a, b)));
    let leaves = |&(a, b): &(usize, usize)| {
        let via = &exact[&(a, b)].via;
        via.iter().any(|relay| !relays.contains(relay))
    };
    let gain = |&(a, b): &(usize, usize)| {
        let within = relays.iter().map(|&via| profile.path_delay(&[a, via, b]).0);
        let within = within.chain([profile.mean_delay(a, b).0]).min().unwrap_or(0);
        within.saturating_sub(exact[&(a, b)].best.0)
    };
    let pairs = pairs.filter(|(a, b)| a != b);
    let best = pairs.max_by_key(|pair| (leaves(pair), gain(pair), std::cmp::Reverse(*pair)));
    best.unwrap_or((relays[0], relays[0]))
}

impl Group {
    /// The relays whose access the consumer knows, and those that the provider knows, in the order in which they are
    /// tried: one that must refuse them, those of the cell, and of partners.
    pub(super) fn access(&self) -> [Vec<usize>; 2] {
        let (consumer, provider) = self.ends;
        let others = self.relays.iter().filter(|&&relay| relay != consumer && relay != provider);
        let others: Vec<usize> = others.copied().collect();
        let partners: Vec<usize> = self.partners.iter().take(PARTNERS_KNOWN).copied().collect();
        let of = |first: usize, last: usize, others: Vec<usize>| {
            let own = [vec![first], others, vec![last]].concat();
            let stranger = self.outside.first().copied();
            stranger.into_iter().chain(own).chain(partners.clone()).collect()
        };
        let back: Vec<usize> = others.iter().rev().copied().collect();
        [of(consumer, provider, others), of(provider, consumer, back)]
    }
}

#[cfg(test)]
mod tests {
    use overway_config::Document;

    use super::*;
    use crate::lab::profile::WORLD;

    fn error_of(text: &str) -> String {
        let profile = Profile::parse(&Document::new("my.toml", text)).unwrap();
        groups(&profile).unwrap_err().to_string()
    }

    #[test]
    fn edges_attach_where_the_best_path_would_leave_the_cell() {
        let world = Profile::world();
        let groups = groups(&world).unwrap();
        let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names, ["asia", "north", "south"]);
        let south = &groups[2];

        let (from, to) = south.ends;

        assert_eq!((world.relay_name(from), world.relay_name(to)), ("cape-town", "sydney"));
        let via = &world.exact()[&south.ends].via;
        assert!(via.iter().any(|relay| !south.relays.contains(relay)), "{via:?}");
        assert_eq!(south.partners, groups[1].relays);
    }

    #[test]
    fn an_edge_tries_a_relay_that_must_refuse_it_then_the_cells_then_the_partners() {
        let group = Group {
            name: "a".to_owned(),
            relays: vec![0, 1, 2, 3],
            partners: vec![4, 5, 6],
            outside: vec![7, 8],
            ends: (2, 0),
        };

        assert_eq!(group.access(), [vec![7, 2, 1, 3, 0, 4, 5], vec![7, 0, 3, 1, 2, 4, 5]]);
    }

    #[test]
    fn a_profile_that_cannot_be_grouped_is_told_what_it_lacks() {
        let without = WORLD.split("cell = [").next().unwrap();
        let own = |cells: &str| error_of(&format!("{without}cell = [{cells}]\n"));
        let tokyo = r#"{ name = "t", regions = ["asia-northeast1-a"], partners = ["z"] }"#;
        let zurich = r#"{ name = "z", regions = ["europe-west6-a"] }"#;
        let alone = r#"{ name = "t", regions = ["asia-northeast1-a"] }"#;

        assert!(error_of(without).contains("into 0 cells, and 2 are needed; add `cell = ["));
        assert!(own(zurich).contains("into 1 cells"));
        assert!(own(&format!("{alone}, {zurich}")).contains("has partners; give one"));
        let few = own(&format!("{tokyo}, {zurich}"));
        assert!(few.contains("\"t\"") && few.contains("has 1 relays, and 3 are needed"), "{few}");
    }
}
