//! The table in the README: made by the same run that prints it, between two comments there.
//!
//! A run replaces the lines of the measurements that it made. The others stay if they are of
//! the same machine and of programs that were built alike; else only a run of everything writes.

use anyhow::Context;

use crate::table::{MARKDOWN_HEAD, Row, markdown, markdown_begin};

const BEGIN: &str = "<!-- what `cargo xtask bench` writes begins here -->";
const END: &str = "<!-- and ends here -->";

/// What was measured, and beside what.
pub struct Measured {
    pub machine: String,
    /// How each was built, in a sentence.
    pub programs: String,
    /// How busy the machine was before. None where that says nothing.
    pub load: Option<f64>,
}

/// The README after a run; nothing where the run may not write there. `all` names every
/// measurement in the table's order, `run` those that were made.
pub fn update(
    readme: &str,
    measured: &Measured,
    (all, run): (&[&str], &[&str]),
    rows: &[(&str, Row)],
) -> anyhow::Result<Option<String>> {
    let Measured { machine, programs, load } = measured;
    let (before, rest) = readme.split_once(BEGIN).context("the README has no place for it")?;
    let (table, after) = rest.split_once(END).context("the README's table has no end")?;
    let machine = format!("Measured by `cargo xtask bench` on {machine}. {programs}");
    let everything = all.iter().all(|name| run.contains(name));
    if !everything && !table.lines().any(|line| line == machine) {
        return Ok(None);
    }
    let mut lines = vec![machine, String::new()];
    lines.extend(MARKDOWN_HEAD.map(str::to_owned));
    for name in all {
        if run.contains(name) {
            let rows = rows.iter().filter(|(of, _)| of == name);
            lines.extend(rows.filter_map(|(name, row)| markdown(name, row, *load)));
        } else {
            let kept = table.lines().filter(|line| line.starts_with(&markdown_begin(name)));
            lines.extend(kept.map(str::to_owned));
        }
    }
    Ok(Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", lines.join("\n"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 2] = ["a", "b"];

    fn row(name: &'static str, measured: &str) -> (&'static str, Row) {
        (name, Row::stated("what", measured))
    }

    fn measured(machine: &str) -> Measured {
        Measured { machine: machine.to_owned(), programs: "Built.".to_owned(), load: None }
    }

    fn run(readme: &str, machine: &str, rows: &[(&'static str, Row)]) -> Option<String> {
        let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
        update(readme, &measured(machine), (&ALL, &names), rows).unwrap()
    }

    #[test]
    fn a_run_replaces_its_own_lines() {
        let empty = format!("before\n{BEGIN}{END}\nafter\n");
        assert_eq!(run(&empty, "M", &[row("b", "1")]), None);

        let whole = run(&empty, "M", &[row("a", "1"), row("b", "2")]).unwrap();
        let expected = "before\n\
            <!-- what `cargo xtask bench` writes begins here -->\n\n\
            Measured by `cargo xtask bench` on M. Built.\n\n\
            | | what | measured | to reach |\n\
            | --- | --- | --- | --- |\n\
            | `a` | what | 1 |  |\n\
            | `b` | what | 2 |  |\n\n\
            <!-- and ends here -->\nafter\n";
        assert_eq!(whole, expected);

        let part = run(&whole, "M", &[row("b", "3")]).unwrap();
        assert_eq!(part, whole.replace("2 |  |", "3 |  |"));
    }

    #[test]
    fn figures_of_two_machines_are_not_mixed() {
        let whole = format!("{BEGIN}{END}");
        let whole = run(&whole, "M", &[row("a", "1"), row("b", "2")]).unwrap();
        assert_eq!(run(&whole, "N", &[row("b", "3")]), None);
        let other = run(&whole, "N", &[row("a", "3"), row("b", "4")]).unwrap();
        assert!(other.contains("on N.") && !other.contains("on M."), "{other}");
    }

    #[test]
    fn programs_that_were_built_otherwise_are_not_mixed_and_a_load_is_said() {
        let whole = run(&format!("{BEGIN}{END}"), "M", &[row("a", "1"), row("b", "2")]).unwrap();
        let otherwise = Measured { programs: "Otherwise.".to_owned(), ..measured("M") };
        assert_eq!(update(&whole, &otherwise, (&ALL, &["a"]), &[row("a", "3")]).unwrap(), None);
        let loaded = Measured { load: Some(2.5), ..measured("M") };
        let loaded = update(&whole, &loaded, (&ALL, &["a"]), &[row("a", "3")]).unwrap().unwrap();
        assert!(loaded.contains("| `a` | what | 3, at load 2.5 |  |"), "{loaded}");
        assert!(loaded.contains("| `b` | what | 2 |  |"), "{loaded}");
    }

    #[test]
    fn a_readme_without_a_place_is_an_error() {
        assert!(update("", &measured("M"), (&ALL, &ALL), &[]).is_err());
        assert!(update(BEGIN, &measured("M"), (&ALL, &ALL), &[]).is_err());
    }
}
