//! What callers notice of a swap: busy connections at the tenant's own port while the versions
//! of their function change.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::Setup;
use crate::cores::Cores;
use crate::host::{Host, Placed};
use crate::http::{Client, request};
use crate::load::{Answered, Load};
use crate::samples::Samples;
use crate::table::Row;

use super::BUSY;

const VERSIONS: [(&str, &[u8]); 2] =
    [("version_one", b"version one"), ("version_two", b"version two")];
const SWAPS: usize = 20;
/// Of load before an upload.
const CALM: Duration = Duration::from_millis(300);

pub fn measure(setup: &Setup, cores: Cores) -> anyhow::Result<Vec<Row>> {
    let host = Host::start(&setup.programs, &[])?;
    host.place(cores, Placed::Together)?;
    let home = &host.home;
    let mut uploads = Vec::new();
    for (guest, _) in VERSIONS {
        uploads.push(home.upload(&[("swapped", &setup.guest(guest)?)], None));
    }
    let mut client = Client::new(home.own);
    for upload in &uploads {
        client.call(upload)?;
    }
    let ask = request("POST", "/swapped", &home.own.to_string(), &[], b"");
    let mut load = Load::open(home.own, &ask, BUSY)?;
    let (mut everywhere, mut gaps, mut calm_gaps) =
        (Samples::default(), Samples::default(), Samples::default());
    let versions = uploads.iter().zip(VERSIONS).cycle();
    for (upload, (_, text)) in versions.take(SWAPS) {
        let seen = cores.on_the_loads(|| swap(&mut load, &mut client, upload, text))?;
        everywhere.push_milliseconds(seen.everywhere);
        gaps.push_milliseconds(seen.gap);
        calm_gaps.push_milliseconds(seen.calm_gap);
    }
    let said = |samples: &Samples| format!("{:.1} ms, {:.1} ms", samples.median(), samples.most());
    Ok(vec![
        Row::stated("upload to the last of 32 connections: median, worst", said(&everywhere)),
        Row::stated("longest wait of a client in it", said(&gaps)),
        Row::stated("longest wait before it", said(&calm_gaps)),
        Row::aside("connections not kept", format!("{} in {SWAPS} swaps", load.ended)),
    ])
}

struct Seen {
    /// From the upload's begin until every connection has an answer of the new version.
    everywhere: Duration,
    /// The longest that a connection was without an answer in that time, and just before it.
    gap: Duration,
    calm_gap: Duration,
}

fn swap(load: &mut Load, client: &mut Client, upload: &[u8], text: &[u8]) -> anyhow::Result<Seen> {
    let calm_until = Instant::now() + CALM;
    let calm_gap = longest_gap(load, |answered| Ok(answered.at < calm_until))?;

    let begun = Instant::now();
    let mut is_new = [false; BUSY];
    let mut everywhere = Duration::ZERO;
    let mut last_for_old = begun;
    let (gap, served) = std::thread::scope(|scope| {
        let uploading = scope.spawn(|| client.call(upload).map(|_| Instant::now()));
        let gap = longest_gap(load, |answered| {
            if *answered.answer.body != *text {
                last_for_old = last_for_old.max(answered.asked);
            } else if !is_new[answered.connection] {
                is_new[answered.connection] = true;
                everywhere = answered.at - begun;
            }
            Ok(is_new.contains(&false) || !uploading.is_finished())
        });
        let served = uploading.join().expect("a panic ends the process");
        anyhow::Ok((gap?, served?))
    })?;
    ensure!(last_for_old <= served, "the old version answered what was asked after the upload");
    Ok(Seen { everywhere, gap, calm_gap })
}

/// Keeps the load up for as long as it is told to go on. Returns the longest that any of its
/// connections was without an answer.
fn longest_gap(
    load: &mut Load,
    mut goes_on: impl FnMut(&Answered<'_>) -> anyhow::Result<bool>,
) -> anyhow::Result<Duration> {
    let mut last = [Instant::now(); BUSY];
    let mut longest = Duration::ZERO;
    load.run(|answered| {
        let (status, body) = (answered.answer.status, &*answered.answer.body);
        let known = status == 200 && VERSIONS.iter().any(|(_, text)| *text == body);
        ensure!(known, "answered {status}: {}", String::from_utf8_lossy(body));
        longest = longest.max(answered.at - last[answered.connection]);
        last[answered.connection] = answered.at;
        goes_on(&answered)
    })?;
    Ok(longest)
}
