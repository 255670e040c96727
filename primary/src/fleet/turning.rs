//! One tenant's connections that are told that no worker comes: few at a time, and whoever comes
//! beyond that is closed. What they are told is the front door's to say.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Semaphore, mpsc};

use super::error::{Cause, Unavailable};
use super::lifecycle::Reception;
use super::shared::Turned;
use crate::store::Tenant;

const PLACES: usize = 64;

pub struct Turning {
    to: mpsc::Sender<Turned>,
    places: Arc<Semaphore>,
}

impl Turning {
    pub fn new(to: mpsc::Sender<Turned>) -> Self {
        Self { to, places: Arc::new(Semaphore::new(PLACES)) }
    }

    /// `cause` is why no worker is started.
    pub fn turn(
        &self,
        tenant: &Tenant,
        (stream, unread): (TcpStream, Vec<u8>),
        reception: Reception,
        cause: Cause,
    ) {
        let retry_after = match reception {
            Reception::Refused(Some(until)) => until.saturating_duration_since(Instant::now()),
            Reception::Refused(None) | Reception::Held | Reception::Watched | Reception::Worker => {
                Unavailable::BARRED
            }
        };
        // Full: so many are being told already that this one is simply closed.
        let told = self.places.clone().try_acquire_owned().is_ok_and(|place| {
            let tenant = tenant.clone();
            let turned = Turned { tenant, stream, unread, retry_after, cause, place };
            self.to.try_send(turned).is_ok()
        });
        if !told {
            metrics::counter!("hearth_connections_dropped_total").increment(1);
        }
    }
}
