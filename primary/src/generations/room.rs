//! Room on the disk for what is on its way: reserved from its first byte on and against its
//! tenant's `disk_bytes`, so that many at once find no more room than one. What goes gives it
//! back, and what stays becomes the tenant's. Below a reserve, nothing more is taken for anybody:
//! that is for the store, which has to commit others' changes.
//!
//! What a tenant has on the disk, others count; here is added up.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hearth_wire::{Code, limits};
use rustix::fs::statvfs;

use crate::fault::{Disk, Fault, Verdict};
use crate::store::TenantId;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    #[error("the tenant may have {} on disk and would have {needed} bytes", limits::size(*limit))]
    Quota { needed: u64, limit: u64 },
    #[error("{}", Disk::Full)]
    Host,
}

impl Fault for NoRoom {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Quota { .. } => Verdict::limit(Code::StorageFull, self)
                .and(": remove functions, or have the host's admin raise `disk_bytes`"),
            Self::Host => Disk::Full.into(),
        }
    }
}

/// Of one tenant, while something of it is on its way.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    /// As it was counted last, and what became its own since.
    used: u64,
    reserved: u64,
    /// Of that, what lies where it is counted, too.
    placed: u64,
    rooms: usize,
    /// How often something became its own.
    settled: u64,
}

impl Account {
    fn reserve(&mut self, bytes: u64, limit: u64) -> Result<(), NoRoom> {
        let needed = self.used.saturating_add(self.reserved).saturating_add(bytes);
        if needed > limit {
            return Err(NoRoom::Quota { needed, limit });
        }
        self.reserved += bytes;
        Ok(())
    }

    /// Whether nothing became its own while it was counted.
    fn counted(&mut self, begun: Count, bytes: u64) -> bool {
        let is_true = self.settled == begun.settled;
        if is_true {
            self.used = bytes.saturating_sub(self.placed.min(begun.placed));
        }
        is_true
    }
}

pub struct Rooms {
    /// On the disk that all of it is about.
    data: PathBuf,
    reserve: u64,
    accounts: Mutex<HashMap<TenantId, Account>>,
}

impl Rooms {
    pub fn new(data: PathBuf, reserve: u64) -> Arc<Self> {
        Arc::new(Self { data, reserve, accounts: Mutex::default() })
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<TenantId, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the disk has room for so much, and the reserve besides.
    pub fn has(&self, bytes: u64) -> bool {
        // A disk that does not say is not full for that.
        statvfs(&self.data).map_or(true, |disk| {
            disk.f_bavail.saturating_mul(disk.f_frsize) >= self.reserve.saturating_add(bytes)
        })
    }

    /// For one upload.
    pub fn enter(self: &Arc<Self>, tenant: TenantId, limit: u64) -> Arc<Room> {
        self.accounts().entry(tenant).or_default().rooms += 1;
        Arc::new(Room { rooms: self.clone(), tenant, limit })
    }
}

/// What one upload has its room from.
pub struct Room {
    rooms: Arc<Rooms>,
    tenant: TenantId,
    limit: u64,
}

/// Before something is counted.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    settled: u64,
    placed: u64,
}

impl Room {
    fn with<T>(&self, act: impl FnOnce(&mut Account) -> T) -> T {
        act(self.rooms.accounts().entry(self.tenant).or_default())
    }

    pub fn begin_count(&self) -> Count {
        self.with(|account| Count { settled: account.settled, placed: account.placed })
    }

    /// What is on the disk, as it was found since then; `false` where it has to be counted again.
    pub fn counted(&self, begun: Count, bytes: u64) -> bool {
        self.with(|account| account.counted(begun, bytes))
    }

    pub fn reservation(self: &Arc<Self>) -> Reservation {
        Reservation { room: self.clone(), bytes: 0, is_placed: false }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut accounts = self.rooms.accounts();
        if let Some(account) = accounts.get_mut(&self.tenant) {
            account.rooms -= 1;
            if account.rooms == 0 {
                accounts.remove(&self.tenant);
            }
        }
    }
}

/// Room for one file. Dropped, it is given back.
pub struct Reservation {
    room: Arc<Room>,
    bytes: u64,
    is_placed: bool,
}

impl Reservation {
    /// For a file that has or will have so many bytes.
    pub fn reach(&mut self, bytes: u64) -> Result<(), NoRoom> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        if !self.room.rooms.has(more) {
            return Err(NoRoom::Host);
        }
        let limit = self.room.limit;
        self.room.with(|account| account.reserve(more, limit))?;
        self.bytes += more;
        Ok(())
    }

    /// From now on its file is counted with all that the tenant has.
    pub fn place(&mut self) {
        if !std::mem::replace(&mut self.is_placed, true) {
            self.room.with(|account| account.placed += self.bytes);
        }
    }

    /// Its file is the tenant's own.
    pub fn settle(self) {
        self.room.with(|account| {
            account.used += self.bytes;
            account.settled += 1;
        });
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.room.with(|account| {
            account.reserved -= self.bytes;
            if self.is_placed {
                account.placed -= self.bytes;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(7);

    fn rooms() -> Arc<Rooms> {
        Rooms::new(std::env::temp_dir(), 0)
    }

    fn counted(room: &Arc<Room>, bytes: u64) {
        let begun = room.begin_count();
        assert!(room.counted(begun, bytes));
    }

    #[test]
    fn many_at_once_find_no_more_room_than_one() {
        let rooms = rooms();
        let uploads = [(); 16].map(|()| rooms.enter(TENANT, 1_000));
        let mut reserved = Vec::new();
        for room in &uploads {
            counted(room, 100);
            let mut one = room.reservation();
            if one.reach(200).is_ok() {
                reserved.push(one);
            }
        }
        assert_eq!(reserved.len(), 4, "(1000 - 100) / 200");
        let mut another = uploads[0].reservation();
        assert_eq!(another.reach(101), Err(NoRoom::Quota { needed: 1_001, limit: 1_000 }));
        assert_eq!(another.reach(100), Ok(()));
        drop(another);
        // What is dropped gives back, and what stays does not.
        drop(reserved.pop());
        let mut again = uploads[1].reservation();
        assert_eq!(again.reach(300), Ok(()));
        drop(again);
        reserved.into_iter().for_each(Reservation::settle);
        let mut last = uploads[2].reservation();
        assert_eq!(last.reach(301), Err(NoRoom::Quota { needed: 1_001, limit: 1_000 }));
        assert_eq!(last.reach(300), Ok(()));
        // Another tenant's is its own.
        let other = rooms.enter(TenantId(8), 1_000);
        counted(&other, 0);
        assert_eq!(other.reservation().reach(1_000), Ok(()));
    }

    #[test]
    fn nothing_is_counted_twice_and_nothing_is_missed() {
        let rooms = rooms();
        let (one, two) = (rooms.enter(TENANT, 1_000), rooms.enter(TENANT, 1_000));
        counted(&one, 0);
        let mut placed = one.reservation();
        placed.reach(400).unwrap();
        placed.place();
        // It lies where it is counted, and is reserved, too.
        counted(&two, 400);
        let mut reserved = two.reservation();
        assert_eq!(reserved.reach(600), Ok(()));
        drop(reserved);
        // It becomes the tenant's while another counts, who may have missed it.
        let begun = two.begin_count();
        placed.settle();
        assert!(!two.counted(begun, 0));
        assert!(two.reservation().reach(601).is_err());
        assert!(two.reservation().reach(600).is_ok());
        drop((one, two));
        assert!(rooms.accounts().is_empty(), "nobody is left");
    }

    #[test]
    fn below_the_reserve_nobody_has_any() {
        let rooms = Rooms::new(std::env::temp_dir(), u64::MAX);
        let room = rooms.enter(TENANT, 1_000);
        assert_eq!(room.reservation().reach(1), Err(NoRoom::Host));
        assert!(!rooms.has(0));
    }
}
