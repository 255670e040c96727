//! From an upload to its being served, without its compilation: two modules of about 130 KB take
//! turns as the versions of one function, so that both are compiled after the first two.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use crate::Setup;
use crate::cores::Cores;
use crate::host::Host;
use crate::http::Client;
use crate::samples::Samples;
use crate::table::{Goal, Row};

const MODULES: [&str; 2] = ["answers", "echo"];
const UPLOADS: usize = 50;
const SERVED: Goal = Goal::at_most(20.0);

/// Nothing is kept on one core: caller and host take turns.
pub fn measure(setup: &Setup, _: Cores) -> anyhow::Result<Vec<Row>> {
    let host = Host::start(&setup.programs, &[])?;
    let home = &host.home;
    let modules = [setup.guest(MODULES[0])?, setup.guest(MODULES[1])?];
    let uploads = modules.each_ref().map(|module| home.upload(&[("swapped", module)], None));
    let mut client = Client::new(home.own);
    for upload in &uploads {
        client.call(upload)?;
    }
    let (mut served, mut swaps, mut synced) =
        (Samples::default(), Samples::default(), Samples::default());
    for (upload, module) in uploads.iter().zip(&modules).cycle().take(UPLOADS) {
        let begun = Instant::now();
        let answer = client.call(upload)?;
        let took = begun.elapsed();
        let answer: Value = serde_json::from_slice(&answer)?;
        let ms = |key: &str| {
            let ms = answer[key].as_u64().map(Duration::from_millis);
            ms.with_context(|| format!("no {key} in {answer}"))
        };
        served.push_milliseconds(took.saturating_sub(ms("compile_ms")?));
        swaps.push_milliseconds(ms("swap_ms")?);
        synced.push_milliseconds(sync(module)?);
    }
    let sizes = modules.each_ref().map(|module| format!("{} KB", module.len() / 1_000));
    let (swap, swap_most) = (swaps.median(), swaps.most());
    Ok(vec![
        Row::milliseconds("upload to serving, median", served.median(), SERVED),
        Row::milliseconds("upload to serving, 99 of 100", served.quantile(0.99), SERVED),
        Row::aside("swap_ms: median, worst", format!("{swap} ms, {swap_most} ms")),
        Row::aside("modules", format!("{} {}, {} {}", MODULES[0], sizes[0], MODULES[1], sizes[1])),
        Row::aside("one such file written and synced", format!("{:.1} ms", synced.median())),
    ])
}

/// What the disk alone takes: an upload is acknowledged once it is durable.
fn sync(module: &[u8]) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut file: File = tempfile::tempfile()?;
    file.write_all(module)?;
    file.sync_all()?;
    Ok(begun.elapsed())
}
