//! The cells that a profile's relays are grouped into, by region.

use std::collections::BTreeMap;

use overway_config::{ConfigError, Document, Spanned};
use serde::Deserialize;

use super::RelayProfile;

/// The most cells of a profile: in a lab each has edges of its own.
const CELLS_MAX: usize = 8;
/// The most regions of a cell; a lab has no more relays.
const REGIONS_MAX: usize = super::RELAYS_MAX;

/// A set of regions that a tenant's traffic stays in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellProfile {
    /// Its name.
    pub name: String,
    /// Its regions, each of a relay of the profile, and of no other cell.
    pub regions: Vec<String>,
    /// The cells that stand in where it has nothing itself, by name.
    pub partners: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCell {
    name: Spanned<String>,
    regions: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    partners: Vec<Spanned<String>>,
}

/// Checks all cells; the first thing that is wrong is the error.
pub(super) fn check(
    document: &Document,
    raw: &Spanned<Vec<RawCell>>,
    relays: &[RelayProfile],
) -> Result<Vec<CellProfile>, ConfigError> {
    let raw = document.entries(raw, 1..=CELLS_MAX)?;
    document.unique(raw.iter().map(|cell| &cell.name))?;
    let mut owners = BTreeMap::new();
    let mut cells = Vec::new();
    for cell in raw {
        let name = document.name(&cell.name)?;
        let regions = document.entries(&cell.regions, 1..=REGIONS_MAX)?;
        for region in regions {
            check_region(document, region, relays)?;
            if let Some(owner) = owners.insert(region.get_ref().clone(), name.clone()) {
                let message = format!(
                    "{:?} is of cell {owner:?} already; a region is of one cell",
                    region.get_ref()
                );
                return Err(document.error(region.span(), message));
            }
        }
        document.unique(&cell.partners)?;
        for partner in &cell.partners {
            let known = raw.iter().any(|other| other.name.get_ref() == partner.get_ref());
            if !known || *partner.get_ref() == name {
                let message = format!("{:?} is no other cell of this profile", partner.get_ref());
                return Err(document.error(partner.span(), message));
            }
        }
        let texts = |texts: &[Spanned<String>]| {
            texts.iter().map(|text| text.get_ref().clone()).collect::<Vec<_>>()
        };
        cells.push(CellProfile { name, regions: texts(regions), partners: texts(&cell.partners) });
    }
    Ok(cells)
}

fn check_region(
    document: &Document,
    region: &Spanned<String>,
    relays: &[RelayProfile],
) -> Result<(), ConfigError> {
    if relays.iter().any(|relay| relay.region == *region.get_ref()) {
        return Ok(());
    }
    let message = format!("{:?} is the region of no relay of this profile", region.get_ref());
    Err(document.error(region.span(), message))
}
