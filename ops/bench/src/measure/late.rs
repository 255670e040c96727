//! How late a guest that never waits for anything is stopped: from the end of the time that its
//! calls may take until its caller has the first byte of the 504.

use std::time::Duration;

use anyhow::ensure;

use crate::Setup;
use crate::cores::Cores;
use crate::host::Host;
use crate::http::{Client, Timed};
use crate::samples::Samples;
use crate::table::{Goal, Row};

const LIMIT: Duration = Duration::from_millis(100);
const CALLS: usize = 100;

const MEDIAN: Goal = Goal::at_most(5.0).better(2.0);
const WORST: Goal = Goal::at_most(12.0).better(5.0);

/// Nothing is kept on one core: the guest has one, and whoever stops it may have the other.
pub fn measure(setup: &Setup, _: Cores) -> anyhow::Result<Vec<Row>> {
    let host = Host::start(&setup.programs, &[])?;
    let home = &host.home;
    let options = format!(r#"{{"timeout_ms":{}}}"#, LIMIT.as_millis());
    let mut client = Client::new(home.own);
    client.call(&home.upload(&[("loops", &setup.guest("loops")?)], Some(&options)))?;
    let call = home.call("loops", b"");
    let mut late = Samples::default();
    for _ in 0..CALLS {
        let Timed { status, body, first_byte } = client.time(&call)?;
        ensure!(status == 504, "answered {status}: {}", String::from_utf8_lossy(&body));
        ensure!(first_byte >= LIMIT, "stopped after {first_byte:?}, before its limit");
        late.push_milliseconds(first_byte - LIMIT);
    }
    Ok(vec![
        Row::milliseconds("a spinning guest's 504 after its limit, median", late.median(), MEDIAN),
        Row::milliseconds(format!("worst of {CALLS}"), late.most(), WORST),
    ])
}
