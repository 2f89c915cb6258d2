//! What was measured, and what was promised of it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use super::stage::{Ink, Stage};

/// A measured value.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A number, in the unit that the figure's name ends with.
    Number(f64),
    /// Whether something held.
    Flag(bool),
}

/// What a figure is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Promise {
    /// Nothing is promised.
    Reported,
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// Not further from this than that.
    Near(f64, f64),
    /// It holds, whatever the machine does.
    True,
    /// There is none of it, whatever the machine does.
    Zero,
}

/// What is to be said of all figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every promise is kept.
    Kept,
    /// A promise is broken.
    Broken,
    /// Only bounds were missed, and the machine did not run well enough to blame the mesh.
    NotJudged,
}

/// A figure: its name, its value if it could be measured, and its promise.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name, the unit last.
    pub name: String,
    /// Its value.
    pub value: Option<Value>,
    /// Its promise.
    pub promise: Promise,
}

/// Figures in the order in which they were measured.
#[derive(Clone, Debug, Default)]
pub struct Figures(Vec<Figure>);

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl Figure {
    /// Whether the promise is kept. What could not be measured keeps none.
    pub fn is_kept(&self) -> bool {
        match (self.promise, self.value) {
            (Promise::Reported, _) | (Promise::True, Some(Value::Flag(true))) => true,
            (Promise::Zero, Some(Value::Number(number))) => number == 0.0,
            (Promise::AtMost(bound), Some(Value::Number(number))) => number <= bound,
            (Promise::AtLeast(bound), Some(Value::Number(number))) => number >= bound,
            (Promise::Near(centre, by), Some(Value::Number(number))) => {
                (number - centre).abs() <= by
            }
            (
                Promise::AtMost(_)
                | Promise::AtLeast(_)
                | Promise::Near(..)
                | Promise::True
                | Promise::Zero,
                Some(_) | None,
            ) => false,
        }
    }

    /// Whether no machine is an excuse: streams lose and repeat nothing, however long it stands still.
    fn is_absolute(&self) -> bool {
        matches!(self.promise, Promise::True | Promise::Zero)
    }

    fn promise_text(&self) -> String {
        match self.promise {
            Promise::Reported => String::new(),
            Promise::AtMost(bound) => format!("at most {bound}"),
            Promise::AtLeast(bound) => format!("at least {bound}"),
            Promise::Near(centre, by) => format!("{centre:.3} +- {by}"),
            Promise::True => "true".to_owned(),
            Promise::Zero => "none".to_owned(),
        }
    }

    fn value_text(&self) -> String {
        match self.value {
            Some(Value::Number(number)) if number.fract() == 0.0 => format!("{number:.0}"),
            Some(Value::Number(number)) if number.abs() < 1.0 => format!("{number:.4}"),
            Some(Value::Number(number)) => format!("{number:.2}"),
            Some(Value::Flag(flag)) => flag.to_string(),
            None => "not measured".to_owned(),
        }
    }
}

impl Figures {
    /// Adds a figure. A number that is not finite was not measured.
    pub fn add(&mut self, name: &str, value: impl Into<Value>, promise: Promise) {
        let value = Some(value.into()).filter(|value| match value {
            Value::Number(number) => number.is_finite(),
            Value::Flag(_) => true,
        });
        self.0.push(Figure { name: name.to_owned(), value, promise });
    }

    /// Adds a figure that may not have been measured.
    pub fn add_measured(&mut self, name: &str, value: Option<f64>, promise: Promise) {
        self.add(name, value.unwrap_or(f64::NAN), promise);
    }

    /// All figures.
    pub fn iter(&self) -> impl Iterator<Item = &Figure> {
        self.0.iter()
    }

    /// Whether every promise is kept.
    pub fn are_kept(&self) -> bool {
        self.0.iter().all(Figure::is_kept)
    }

    /// The verdict on a machine that ran well enough (`fit`), or did not.
    pub fn verdict(&self, fit: bool) -> Verdict {
        let mut broken = self.0.iter().filter(|figure| !figure.is_kept());
        match broken.next() {
            None => Verdict::Kept,
            Some(first) if fit || first.is_absolute() || broken.any(Figure::is_absolute) => {
                Verdict::Broken
            }
            Some(_) => Verdict::NotJudged,
        }
    }

    /// Prints a table.
    pub fn print(&self, stage: &Stage) {
        let name = self.0.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        let head = format!("{:name$}  {:>12}  {:>18}", "figure", "measured", "promised");
        stage.say(stage.ink(Ink::Bold, head));
        for figure in &self.0 {
            let verdict = match (figure.promise, figure.is_kept()) {
                (Promise::Reported, _) => String::new(),
                (_, true) => stage.ink(Ink::Green, "ok"),
                (_, false) => stage.ink(Ink::Red, "MISSED"),
            };
            let (value, promise) = (figure.value_text(), figure.promise_text());
            let line = format!("{:name$}  {value:>12}  {promise:>18}  {verdict}", figure.name);
            stage.say(line.trim_end());
        }
    }

    /// Writes `{"figures": {NAME: VALUE}}`. What was not measured is left out.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.json())?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn json(&self) -> serde_json::Value {
        let measured: BTreeMap<&str, Value> = self
            .0
            .iter()
            .filter_map(|figure| Some((figure.name.as_str(), figure.value?)))
            .collect();
        serde_json::json!({ "figures": measured })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(value: impl Into<Value>, promise: Promise) -> bool {
        let mut figures = Figures::default();
        figures.add("x", value, promise);
        figures.are_kept()
    }

    #[test]
    fn a_promise_is_kept_up_to_its_bound() {
        assert!(kept(60.0, Promise::AtMost(60.0)) && !kept(60.1, Promise::AtMost(60.0)));
        assert!(kept(20.0, Promise::AtLeast(20.0)) && !kept(19.9, Promise::AtLeast(20.0)));
        assert!(kept(0.71, Promise::Near(0.73, 0.0201)) && !kept(0.70, Promise::Near(0.73, 0.02)));
        assert!(kept(true, Promise::True) && !kept(false, Promise::True));
        assert!(kept(-5.0, Promise::Reported) && !kept(1.0, Promise::True));
    }

    #[test]
    fn an_unfit_machine_excuses_bounds_and_nothing_else() {
        let with = |late: f64, repeated: f64, whole: bool| {
            let mut figures = Figures::default();
            figures.add("gap_ms", late, Promise::AtMost(60.0));
            figures.add("duplicates", repeated, Promise::Zero);
            figures.add("ok", whole, Promise::True);
            [figures.verdict(true), figures.verdict(false)]
        };
        assert_eq!(with(60.0, 0.0, true), [Verdict::Kept; 2]);
        assert_eq!(with(61.0, 0.0, true), [Verdict::Broken, Verdict::NotJudged]);
        assert_eq!(with(61.0, 1.0, true), [Verdict::Broken; 2]);
        assert_eq!(with(60.0, 0.0, false), [Verdict::Broken; 2]);
    }

    #[test]
    fn what_was_not_measured_keeps_no_promise() {
        let mut figures = Figures::default();
        figures.add_measured("x_ms", None, Promise::AtMost(1.0));

        assert!(!figures.are_kept());
        assert_eq!(figures.json(), serde_json::json!({ "figures": {} }));
    }

    #[test]
    fn figures_are_numbers_and_flags_by_name() {
        let mut figures = Figures::default();
        figures.add("a_ms", 1.5, Promise::Reported);
        figures.add("b_ok", true, Promise::True);

        assert_eq!(figures.json(), serde_json::json!({ "figures": { "a_ms": 1.5, "b_ok": true } }));
    }
}
