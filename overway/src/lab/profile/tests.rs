use super::*;

fn error_of(text: &str) -> String {
    Profile::parse(&Document::new("my.toml", text)).unwrap_err().to_string()
}

fn line_with(text: &str) -> &str {
    WORLD.lines().find(|line| line.contains(text)).unwrap()
}

#[test]
fn the_default_profile_is_a_world_of_twelve_cities_at_three_providers() {
    let world = Profile::world();

    assert!(world.relays().len() >= 12);
    let providers: std::collections::BTreeSet<&str> =
        world.relays().iter().map(|relay| relay.provider.as_str()).collect();
    assert!(providers.len() >= 3);
    for (from, to) in pairs(world.relays().len()) {
        let line = world.line(from, to);
        assert!(line.delay > Duration::ZERO && line.jitter >= Duration::from_micros(500));
        assert!(line.jitter <= Duration::from_millis(2));
    }
    let lossy = pairs(world.relays().len()).filter(|&(a, b)| world.line(a, b).loss > 0.0).count();
    assert!((4..=6).contains(&lossy));
}

#[test]
fn lines_are_split_by_no_more_than_a_tenth_of_the_round_trip() {
    let world = Profile::world();
    let mut uneven = 0;
    for (a, b) in pairs(world.relays().len()) {
        let (there, back) =
            (world.line(a, b).delay.as_secs_f64(), world.line(b, a).delay.as_secs_f64());
        let share = there / (there + back);
        assert!((0.395..=0.605).contains(&share), "{a} {b} {share}");
        uneven += u32::from((share - 0.5).abs() > 0.01);
    }
    assert!(uneven > 60);
}

#[test]
fn seven_in_ten_pairs_of_the_default_profile_gain_from_a_detour() {
    let exact = Profile::world().improvement_exact();

    assert_eq!(exact.pairs, 132);
    assert!((0.70..0.76).contains(&exact.share()), "{exact:?}");
    assert!((12.0..25.0).contains(&exact.median_gain_ms), "{exact:?}");
}

#[test]
fn drilled_pairs_have_transits_that_are_nobodys_ends() {
    let world = Profile::world();
    let exact = world.exact();

    let chosen = world.transit_pairs(6);

    assert_eq!(chosen.len(), 6);
    for pair in &chosen {
        assert!(!exact[pair].via.is_empty());
        for relay in &exact[pair].via {
            assert!(chosen.iter().all(|&(entry, exit)| entry != *relay && exit != *relay));
        }
    }
}

#[test]
fn a_path_takes_the_sum_of_its_lines() {
    let world = Profile::world();
    let sum = world.mean_delay(0, 1).0 + world.mean_delay(1, 2).0;

    assert_eq!(world.path_delay(&[0, 1, 2]), Micros(sum));
    assert_eq!(world.round_trip(0, 1), world.round_trip(1, 0));
}

#[test]
fn improvement_is_a_share_and_a_median_of_gains() {
    let delays = [(90, 50), (70, 60), (10, 10), (10, 20)].map(|(a, b)| (Micros(a), Micros(b)));

    let found = improvement(delays);

    assert_eq!((found.pairs, found.improved), (4, 2));
    assert!((found.share() - 0.5).abs() < 1e-9);
    assert!((found.median_gain_ms - 0.025).abs() < 1e-9);
    assert_eq!(improvement([]).share(), 0.0);
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_what_would_be_right() {
    let relay = line_with("name = \"tokyo\"");
    let pair = line_with("\"tokyo\", \"zurich\"");
    let cases = [
        (WORLD.replace("capacity_mbps = 200", "capacity_mbps = 0"), "capacity_mbps"),
        (WORLD.replace("price_per_gb", "price_per_tb"), "price_per_tb"),
        (WORLD.replace(relay, &format!("{relay}\n{relay}")), "given twice"),
        (WORLD.replace(pair, &format!("{pair}\n{pair}")), "tokyo and zurich are given twice"),
        (WORLD.replace(pair, ""), "between = [\"tokyo\", \"zurich\"]"),
        (WORLD.replace("[\"tokyo\", \"zurich\"]", "[\"tokyo\", \"tokyo\"]"), "given twice"),
        (WORLD.replace("[\"tokyo\", \"zurich\"]", "[\"tokyo\", \"ulm\"]"), "\"ulm\" is no relay"),
        (WORLD.replace("jitter_ms = ", "jitter_ms = -"), "out of range"),
        (WORLD.replace("loss = 0.01", "loss = 1.5"), "out of range"),
        (WORLD.replace("relay = [", "relay = []\nx = ["), "relay"),
    ];
    for (text, expected) in cases {
        let error = error_of(&text);
        assert!(error.starts_with("my.toml:") && error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn every_relay_of_the_default_profile_is_of_one_cell() {
    let world = Profile::world();
    let mut relays: Vec<usize> =
        world.cells().iter().flat_map(|cell| world.relays_of(cell)).collect();
    relays.sort_unstable();

    assert_eq!(relays, (0..world.relays().len()).collect::<Vec<_>>());
    let partners: Vec<&[String]> =
        world.cells().iter().map(|cell| cell.partners.as_slice()).collect();
    assert_eq!(partners, [&[][..], &[], &["north".to_owned()]]);
}

#[test]
fn what_is_wrong_with_a_cell_is_told_with_what_would_be_right() {
    let south = line_with("name = \"south\"");
    let change = |from: &str, to: &str| WORLD.replace(south, &south.replace(from, to));
    let cases = [
        (change("af-south-1", "af-south-2"), "\"af-south-2\" is the region of no relay"),
        (change("af-south-1", "me-south-1"), "\"me-south-1\" is of cell \"asia\" already"),
        (change("\"north\"]", "\"south\"]"), "\"south\" is no other cell"),
        (change("\"north\"]", "\"west\"]"), "\"west\" is no other cell"),
        (change("name = \"south\"", "name = \"north\""), "given twice"),
    ];
    for (text, expected) in cases {
        let error = error_of(&text);
        assert!(error.starts_with("my.toml:") && error.contains(expected), "{error}");
    }
}
