//! What came out, a row a figure: as the table at the end, and as the one in the README.

use crate::samples::Samples;

/// What a figure should reach, and what would be better still.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    bound: Bound,
    better: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Debug, PartialEq)]
pub struct Row {
    what: String,
    measured: String,
    verdict: Verdict,
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Reached {
        goal: String,
        better: bool,
    },
    Missed {
        goal: String,
    },
    /// Without a figure to reach, and said for its own sake.
    Stated,
    /// Explains another row; of no interest without it.
    Aside,
    /// Something that it needs is not on this machine.
    Unmeasured,
}

impl Goal {
    pub const fn at_least(least: f64) -> Self {
        Self { bound: Bound::AtLeast(least), better: None }
    }

    pub const fn at_most(most: f64) -> Self {
        Self { bound: Bound::AtMost(most), better: None }
    }

    pub const fn better(self, better: f64) -> Self {
        Self { better: Some(better), ..self }
    }

    fn judge(self, measured: f64, unit: &str) -> Verdict {
        let (word, reach) = match self.bound {
            Bound::AtLeast(least) => ("at least", least),
            Bound::AtMost(most) => ("at most", most),
        };
        let reaches = |reach: f64| match self.bound {
            Bound::AtLeast(_) => measured >= reach,
            Bound::AtMost(_) => measured <= reach,
        };
        let mut goal = format!("{word} {reach}{unit}");
        if let Some(better) = self.better {
            goal.push_str(&format!(", better {better}"));
        }
        if reaches(reach) {
            Verdict::Reached { goal, better: self.better.is_some_and(reaches) }
        } else {
            Verdict::Missed { goal }
        }
    }
}

impl Row {
    pub fn stated(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self { what: what.into(), measured: measured.into(), verdict: Verdict::Stated }
    }

    pub fn aside(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self { what: what.into(), measured: measured.into(), verdict: Verdict::Aside }
    }

    pub fn unmeasured(what: impl Into<String>, why: &str) -> Self {
        let measured = format!("not measured: {why}");
        Self { what: what.into(), measured, verdict: Verdict::Unmeasured }
    }

    /// How much of another one is reached: the median of the rounds' ratios, and their spread.
    pub fn ratio(what: impl Into<String>, ratios: &Samples, goal: Goal) -> Self {
        Self {
            what: what.into(),
            measured: ratios.with_spread(),
            verdict: goal.judge(ratios.median(), ""),
        }
    }

    /// The same without a figure to reach.
    pub fn compared(what: impl Into<String>, ratios: &Samples) -> Self {
        Self::stated(what, ratios.with_spread())
    }

    pub fn milliseconds(what: impl Into<String>, took: f64, goal: Goal) -> Self {
        Self::figure(what, took, " ms", goal)
    }

    pub fn milliseconds_stated(what: impl Into<String>, took: f64) -> Self {
        Self::stated(what, format!("{} ms", rounded(took)))
    }

    /// One number of a unit, which is written as it is to follow the number.
    pub fn figure(what: impl Into<String>, number: f64, unit: &str, goal: Goal) -> Self {
        Self {
            what: what.into(),
            measured: format!("{}{unit}", rounded(number)),
            verdict: goal.judge(number, unit),
        }
    }

    /// How many times longer something took beside a harm, which must not have made errors.
    pub fn beside(what: impl Into<String>, times: f64, errors: usize, goal: Goal) -> Self {
        let verdict = match goal.judge(times, "") {
            Verdict::Reached { goal, .. } if errors > 0 => Verdict::Missed { goal },
            verdict => verdict,
        };
        Self {
            what: what.into(),
            measured: format!("{}, {errors} errors", rounded(times)),
            verdict,
        }
    }
}

/// Three digits that say something, and no fraction of what has three before it.
pub fn rounded(number: f64) -> String {
    let decimals = match number.abs() {
        size if size < 1.0 => 3,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

/// The rows, each with the name of its measurement, in columns. Why something was not measured is
/// longer than a figure, and has the rest of its line.
pub fn render(rows: &[(&str, Row)]) -> String {
    let mut lines = vec![["", "what", "measured", "to reach", "reached"].map(str::to_owned)];
    let mut rests = vec![""];
    for (name, Row { what, measured, verdict }) in rows {
        let (indent, measured, rest, goal, reached) = match verdict {
            Verdict::Reached { goal, better: true } => {
                ("", &**measured, "", &**goal, "yes, better")
            }
            Verdict::Reached { goal, better: false } => ("", &**measured, "", &**goal, "yes"),
            Verdict::Missed { goal } => ("", &**measured, "", &**goal, "NO"),
            Verdict::Stated => ("", &**measured, "", "", ""),
            Verdict::Aside => ("  ", &**measured, "", "", ""),
            Verdict::Unmeasured => ("", "", &**measured, "", ""),
        };
        let what = format!("{indent}{what}");
        lines.push([name, what.as_str(), measured, goal, reached].map(str::to_owned));
        rests.push(rest);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut table = String::new();
    for (line, rest) in lines.iter().zip(rests) {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let mut cells: Vec<String> = cells.collect();
        if !rest.is_empty() {
            cells.truncate(2);
            cells.push(rest.to_owned());
        }
        table.push_str(cells.join("  ").trim_end());
        table.push('\n');
    }
    table
}

/// The first two lines of a table in Markdown.
pub const MARKDOWN_HEAD: [&str; 2] =
    ["| | what | measured | to reach |", "| --- | --- | --- | --- |"];

/// How the lines of a measurement begin there.
pub fn markdown_begin(name: &str) -> String {
    format!("| `{name}` |")
}

/// The row in Markdown, with the load that it was measured beside; nothing where it says nothing by
/// itself.
pub fn markdown(name: &str, row: &Row, load: Option<f64>) -> Option<String> {
    let Row { what, measured, verdict } = row;
    let beside = load.map(|load| format!(", at load {load}")).unwrap_or_default();
    let goal = match verdict {
        Verdict::Reached { goal, .. } => goal.clone(),
        Verdict::Missed { goal } => format!("{goal}: **missed**"),
        Verdict::Stated => String::new(),
        Verdict::Aside | Verdict::Unmeasured => return None,
    };
    Some(format!("{} {what} | {measured}{beside} | {goal} |", markdown_begin(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> [(&'static str, Row); 5] {
        let mut ratios = Samples::default();
        ratios.extend([0.9, 0.96, 1.0]);
        [
            ("a", Row::ratio("of b", &ratios, Goal::at_least(0.95))),
            ("a", Row::aside("size", "3 KB")),
            ("swap", Row::milliseconds("median", 20.4, Goal::at_most(20.0))),
            ("swap", Row::figure("better", 1.0, " us", Goal::at_most(3.0).better(2.0))),
            ("swap", Row::unmeasured("other", "there is no other one to be found")),
        ]
    }

    #[test]
    fn a_table_says_what_was_missed() {
        let expected = [
            "      what    measured                 to reach                reached",
            "a     of b    0.960  (0.900 to 1.000)  at least 0.95           yes",
            "a       size  3 KB",
            "swap  median  20.4 ms                  at most 20 ms           NO",
            "swap  better  1.00 us                  at most 3 us, better 2  yes, better",
            "swap  other   not measured: there is no other one to be found",
        ];
        assert_eq!(render(&rows()).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn in_markdown_only_what_stands_by_itself_is_said() {
        let lines: Vec<_> =
            rows().iter().filter_map(|(name, row)| markdown(name, row, None)).collect();
        let expected = [
            "| `a` | of b | 0.960  (0.900 to 1.000) | at least 0.95 |",
            "| `swap` | median | 20.4 ms | at most 20 ms: **missed** |",
            "| `swap` | better | 1.00 us | at most 3 us, better 2 |",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn numbers_have_three_digits() {
        let said = [0.01234, 1.234, 12.34, 123.4, 12_340.0].map(rounded);
        assert_eq!(said, ["0.012", "1.23", "12.3", "123", "12340"]);
    }
}
