//! A worker that is killed while it writes: what it had answered is there, and nothing by half.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;

/// How the process that is killed is told where to write.
const ARGUMENT: &str = "writes-in=";
const CHILD: &str = "state::tests::kills::writes_until_it_is_killed";
const KILLS: u64 = 20;
const WRITERS: u64 = 64;

/// What one writer has in the stores: the same number everywhere, each time one more.
fn batch(writer: u64, number: u64) -> Vec<Entry> {
    ["a", "b", "c"]
        .iter()
        .map(|part| entry(&format!("{writer:02}{part}"), &number.to_le_bytes()))
        .collect()
}

/// Does nothing unless it is asked to by the test below, in a process of its own.
#[tokio::test]
async fn writes_until_it_is_killed() {
    let Some(directory) =
        std::env::args().find_map(|it| Some(it.strip_prefix(ARGUMENT)?.to_owned()))
    else {
        return;
    };
    let state = state(Path::new(&directory));
    let store = opened(&state).await;
    let writers = (0..WRITERS).map(|writer| {
        let state = state.clone();
        async move {
            let stores = state.keyvalue();
            let was = get(&state, store, &format!("{writer:02}a")).await.unwrap();
            let mut number = was.map_or(0, |was| u64::from_le_bytes(was.try_into().unwrap()));
            loop {
                number += 1;
                stores.set(store, batch(writer, number), Sync::Full).await.unwrap();
                // In one piece, so that no line is half there.
                let line = format!("done {writer} {number}\n");
                if io::stdout().write_all(line.as_bytes()).is_err() {
                    return;
                }
            }
        }
    });
    all(writers).await;
}

#[tokio::test]
async fn no_answered_write_is_lost_and_no_batch_is_there_by_half() {
    let directory = tempfile::tempdir().unwrap();
    let mut answered: BTreeMap<u64, u64> = BTreeMap::new();
    let mut seed = 7_u64;
    for kill in 0..KILLS {
        // Numerical Recipes' generator: when it is killed is the same in each run of the test.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let after = 1 + (seed >> 33) % 400;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", CHILD, "--nocapture"])
            .arg(format!("{ARGUMENT}{}", directory.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut done = 0;
        let mut take = |line: String| {
            let mut words = line.split_whitespace().skip_while(|word| *word != "done").skip(1);
            let mut number = || words.next()?.parse::<u64>().ok();
            if let (Some(writer), Some(number)) = (number(), number()) {
                answered.insert(writer, number);
                done += 1;
            }
            done
        };
        while take(lines.next().expect("it goes on").unwrap()) < after {}
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it was killed.
        for line in lines.map_while(Result::ok) {
            take(line);
        }

        let state = state(directory.path());
        let store = opened(&state).await;
        for (writer, number) in &mut answered {
            let keys = ["a", "b", "c"].map(|part| format!("{writer:02}{part}")).to_vec();
            let found = state.keyvalue().get_many(store, keys).await.unwrap();
            let found =
                found.into_iter().map(|it| u64::from_le_bytes(it.unwrap().try_into().unwrap()));
            let found: Vec<_> = found.collect();
            assert!(
                found[0] == *number || found[0] == *number + 1,
                "kill {kill}: {number} was answered to {writer}, and there is {found:?}"
            );
            assert!(found.iter().all(|it| it == &found[0]), "kill {kill}: half of {found:?}");
            // What was seen once stays.
            *number = found[0];
        }
        let check = |db: &Connection| {
            Ok(db.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))?)
        };
        assert_eq!(state.read(DatabaseFile::Stores, check).await.unwrap(), "ok");
    }
    assert!(answered.len() as u64 > WRITERS / 2, "hardly anybody wrote");
}
