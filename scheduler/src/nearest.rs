//! What may have been meant by a name that is not there.

/// `; did you mean "frankfurt"?` for the known name that is nearest to `given`, or nothing if none is near:
/// further than a third of its length, unless it begins with what was given.
pub(crate) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = |name: &str| {
        let distance = strsim::osa_distance(given, name);
        let begins = given.len() > 1 && name.starts_with(given);
        let is_near = begins || distance <= (name.chars().count() / 3).max(1);
        is_near.then_some((!begins, distance))
    };
    let nearest = known.filter_map(|name| Some((near(name)?, name))).min();
    nearest.map_or_else(String::new, |(_, name)| format!("; did you mean {name:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_distant_one_is_not() {
        let known = ["frankfurt", "london", "los-angeles"];
        let offered = |given| nearest(given, known.into_iter());

        assert_eq!(offered("frankfort"), "; did you mean \"frankfurt\"?");
        assert_eq!(offered("fra"), "; did you mean \"frankfurt\"?");
        assert_eq!(offered("lodnon"), "; did you mean \"london\"?");
        assert_eq!(offered("tokyo"), "");
        assert_eq!(offered("l"), "");
    }
}
