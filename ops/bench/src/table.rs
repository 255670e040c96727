//! The table at the end: what was measured, what came out, and which figure it should reach.

use crate::samples::Samples;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
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
    /// Said for its own sake.
    Stated,
    Reached(String),
    Missed(String),
}

impl Row {
    /// Without a figure to reach.
    pub fn stated(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self { what: what.into(), measured: measured.into(), verdict: Verdict::Stated }
    }

    /// How much of a baseline is reached: the median of the rounds' ratios, and their spread.
    pub fn ratio(what: impl Into<String>, ratios: &Samples, goal: Goal) -> Self {
        Self {
            what: what.into(),
            measured: ratios.with_spread(),
            verdict: goal.judge(ratios.median(), ""),
        }
    }

    pub fn milliseconds(what: impl Into<String>, took: f64, goal: Goal) -> Self {
        Self {
            what: what.into(),
            measured: format!("{took:.1} ms"),
            verdict: goal.judge(took, " ms"),
        }
    }
}

impl Goal {
    fn judge(self, measured: f64, unit: &str) -> Verdict {
        let (reached, said) = match self {
            Self::AtLeast(least) => (measured >= least, format!("at least {least}{unit}")),
            Self::AtMost(most) => (measured <= most, format!("at most {most}{unit}")),
        };
        if reached { Verdict::Reached(said) } else { Verdict::Missed(said) }
    }
}

/// The rows, each with the name of its measurement, in columns.
pub fn render(rows: &[(&str, Row)]) -> String {
    let mut lines = vec![["", "what", "measured", "to reach", "reached"].map(str::to_owned)];
    for (name, Row { what, measured, verdict }) in rows {
        let (goal, reached) = match verdict {
            Verdict::Stated => ("", ""),
            Verdict::Reached(goal) => (goal.as_str(), "yes"),
            Verdict::Missed(goal) => (goal.as_str(), "NO"),
        };
        lines.push([name, what.as_str(), measured, goal, reached].map(str::to_owned));
    }
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut table = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        table.push_str(cells.join("  ").trim_end());
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_was_missed() {
        let mut ratios = Samples::default();
        ratios.extend([0.9, 0.96, 1.0]);
        let rows = [
            ("a", Row::ratio("of b", &ratios, Goal::AtLeast(0.95))),
            ("a", Row::stated("size", "3 KB")),
            ("swap", Row::milliseconds("median", 20.4, Goal::AtMost(20.0))),
        ];
        let expected = [
            "      what    measured                 to reach       reached",
            "a     of b    0.960  (0.900 to 1.000)  at least 0.95  yes",
            "a     size    3 KB",
            "swap  median  20.4 ms                  at most 20 ms  NO",
        ];
        assert_eq!(render(&rows).lines().collect::<Vec<_>>(), expected);
    }
}
