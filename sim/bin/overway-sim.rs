//! Runs seeds of the simulation.
//!
//! ```text
//! overway-sim [--seeds COUNT] [--from SEED] [--seed SEED] [--trace]
//!             [--bounded | --narrow | --lossy | --attached-twice | --cells] [--json FILE]
//! ```

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use overway_sim::{Figures, Scenario, run};

const USAGE: &str = "usage: overway-sim [--seeds COUNT] [--from SEED] [--seed SEED] [--trace]
                   [--bounded | --narrow | --lossy | --attached-twice | --cells] [--json FILE]

  --seeds COUNT  how many seeds to run, one after the other (default 20)
  --from SEED    the first of them (default 1)
  --seed SEED    this one alone
  --trace        print what happens; with --seed
  --bounded      forty relays of which each has a bounded set of neighbours
  --narrow       the same on lines that a few flows fill, without drills
  --lossy        every link loses one packet in a hundred, and nothing else is amiss
  --attached-twice  ends are attached to two relays, and access relays fail
  --cells        tenants in cells, one of which is cut off and one falls apart
  --json FILE    write the figures";

struct Arguments {
    from: u64,
    seeds: u64,
    trace: bool,
    scenario: Scenario,
    /// What chose it, with a blank after it.
    scenario_words: &'static str,
    json: Option<String>,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run_seeds(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("overway-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments {
        from: 1,
        seeds: 20,
        trace: false,
        scenario: Scenario::default(),
        scenario_words: "",
        json: None,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{text} is no number"));
        match word.as_str() {
            "--seeds" => arguments.seeds = number(value()?)?,
            "--from" => arguments.from = number(value()?)?,
            "--seed" => (arguments.from, arguments.seeds) = (number(value()?)?, 1),
            "--trace" => arguments.trace = true,
            "--bounded" => {
                (arguments.scenario, arguments.scenario_words) =
                    (Scenario::bounded(), "--bounded ");
            }
            "--narrow" => {
                (arguments.scenario, arguments.scenario_words) = (Scenario::narrow(), "--narrow ");
            }
            "--lossy" => {
                (arguments.scenario, arguments.scenario_words) = (Scenario::lossy(), "--lossy ");
            }
            "--attached-twice" => {
                (arguments.scenario, arguments.scenario_words) =
                    (Scenario::attached_twice(), "--attached-twice ");
            }
            "--cells" => {
                (arguments.scenario, arguments.scenario_words) = (Scenario::in_cells(), "--cells ");
            }
            "--json" => arguments.json = Some(value()?),
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    Ok(Some(arguments))
}

/// Runs them; returns how many failed.
fn run_seeds(arguments: &Arguments) -> std::io::Result<u64> {
    #[expect(clippy::disallowed_methods, reason = "where virtual time starts")]
    let base = Instant::now();
    let scenario = &arguments.scenario;
    let mut total = Figures::default();
    let mut failed = 0;
    let seeds = arguments.from..arguments.from.saturating_add(arguments.seeds);
    for seed in seeds.clone() {
        let started = base.elapsed();
        let mut out = std::io::stdout().lock();
        let mut print = |line: &str| {
            // A reader that has gone away ends the run by itself soon enough.
            let _ = writeln!(out, "{line}");
        };
        let lines: Option<&mut dyn FnMut(&str)> =
            if arguments.trace { Some(&mut print) } else { None };
        let outcome = run(scenario, seed, base, lines);
        total.add(&outcome.figures);
        let took = base.elapsed().saturating_sub(started);
        let verdict = if outcome.violations.is_empty() { "ok" } else { "FAILED" };
        let figures = &outcome.figures;
        writeln!(
            out,
            "seed {seed}: {verdict}, {:.1} s, trace {:016x}, {} events, excess {:.1} ms, longest {:.1} ms, \
             whole after {:.0} s, settled after {:.0} s",
            took.as_secs_f64(),
            outcome.hash,
            figures.events,
            thousandth(figures.drill_excess_us_max),
            thousandth(figures.drill_longest_us_max),
            thousandth(figures.reach_ms_max),
            thousandth(figures.settle_ms_max),
        )?;
        if !outcome.violations.is_empty() {
            failed += 1;
            for violation in &outcome.violations {
                writeln!(out, "  {:>11.6} {}", violation.at.as_secs_f64(), violation.what)?;
            }
            let scenario = arguments.scenario_words;
            writeln!(
                out,
                "  again: cargo run --release -p overway-sim -- {scenario}--seed {seed} --trace"
            )?;
        }
    }
    let mut entries = total.entries();
    entries.push(("seeds", seeds.end - seeds.start));
    entries.push(("seeds_failed", failed));
    for (name, value) in &entries {
        println!("{name:>22} {value}");
    }
    if let Some(file) = &arguments.json {
        let figures = entries.iter().map(|(name, value)| format!("    \"{name}\": {value}"));
        let figures: Vec<String> = figures.collect();
        std::fs::write(
            file,
            format!("{{\n  \"figures\": {{\n{}\n  }}\n}}\n", figures.join(",\n")),
        )?;
    }
    Ok(failed)
}

fn thousandth(value: u64) -> f64 {
    std::time::Duration::from_millis(value).as_secs_f64()
}
