//! The connections at the front door, by whose they are, and those of them that wait for their
//! clients: for a request, for the rest of one, or for an answer to be read. Where there is no room
//! left the one that has waited longest goes, so that whoever opens connections and says nothing,
//! sends nothing or reads nothing takes them from nobody else. One client has a bound of its own,
//! and makes room among its own. Who waits for us is in nobody's way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hearth_connection::Presence;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Whose connections count as one client's: an address, or an IPv6 network of 64 bits, which one
/// client can have all the addresses of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin(IpAddr);

impl Origin {
    pub fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
            v4 => v4,
        })
    }
}

pub struct Crowd {
    most_of_one: usize,
    state: Mutex<State>,
    gone: Notify,
}

#[derive(Default)]
struct State {
    /// By when they began to wait.
    waiting: BTreeMap<u64, Waits>,
    last: u64,
    clients: HashMap<Origin, Held>,
}

struct Waits {
    told: Arc<Told>,
    origin: Option<Origin>,
}

/// What one client has.
#[derive(Default)]
struct Held {
    connections: usize,
    /// Of these, the ones that were told to go and have not gone.
    leaving: usize,
    waiting: BTreeSet<u64>,
}

#[derive(Default)]
struct Told {
    to_go: Notify,
    is_leaving: AtomicBool,
}

/// One connection, until it ends.
pub struct Member {
    crowd: Arc<Crowd>,
    /// `None` for one that carries many clients, who are not counted.
    origin: Option<Origin>,
    told: Arc<Told>,
    /// Its place until it says for the first time what it is; zero from then on.
    first: AtomicU64,
    /// When it began to keep this exchange waiting; zero where it has not.
    stalled: AtomicU64,
}

/// One connection, while it waits for its client.
pub struct Place<'a> {
    member: &'a Member,
    number: u64,
}

impl Crowd {
    pub fn new(most_of_one: usize) -> Arc<Self> {
        Arc::new(Self { most_of_one, state: Mutex::default(), gone: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one more, which waits from now on. `None` where its client has as many as it may, and all
    /// of them are served.
    pub fn arrive(self: &Arc<Self>, origin: Option<Origin>) -> Option<Member> {
        let mut state = self.state();
        if let Some(origin) = origin {
            let held = state.clients.entry(origin).or_default();
            if held.connections - held.leaving >= self.most_of_one {
                let longest = held.waiting.first().copied()?;
                state.tell(longest);
            }
            state.clients.entry(origin).or_default().connections += 1;
        }
        let told = Arc::<Told>::default();
        let first = AtomicU64::new(state.take_in(None, &told, origin));
        Some(Member { crowd: self.clone(), origin, told, first, stalled: AtomicU64::new(0) })
    }

    /// Tells the one that has waited longest to go, if any waits.
    pub fn make_room(&self) -> bool {
        let mut state = self.state();
        let longest = state.waiting.keys().next().copied();
        longest.inspect(|longest| state.tell(*longest)).is_some()
    }

    /// Resolves when one has ended, from when this is enabled on.
    pub fn gone(&self) -> Notified<'_> {
        self.gone.notified()
    }
}

impl State {
    fn tell(&mut self, number: u64) {
        let Some(Waits { told, origin }) = self.take_out(number) else { return };
        if let Some(held) = origin.and_then(|origin| self.clients.get_mut(&origin))
            && !told.is_leaving.swap(true, Ordering::Relaxed)
        {
            held.leaving += 1;
        }
        told.to_go.notify_one();
    }

    /// With this number, or as the newest of all.
    fn take_in(&mut self, number: Option<u64>, told: &Arc<Told>, origin: Option<Origin>) -> u64 {
        let number = number.unwrap_or(self.last + 1);
        self.last = self.last.max(number);
        if let Some(held) = origin.and_then(|origin| self.clients.get_mut(&origin)) {
            held.waiting.insert(number);
        }
        self.waiting.insert(number, Waits { told: told.clone(), origin });
        number
    }

    fn take_out(&mut self, number: u64) -> Option<Waits> {
        let waits = self.waiting.remove(&number)?;
        if let Some(held) = waits.origin.and_then(|origin| self.clients.get_mut(&origin)) {
            held.waiting.remove(&number);
        }
        Some(waits)
    }
}

impl Member {
    /// Resolves when it is to go. Cancel-safe.
    pub async fn told(&self) {
        self.told.to_go.notified().await;
    }

    /// A place while it waits for its client. Who moves a byte now and then in one exchange has
    /// waited since it first did in that one.
    pub fn is(&self, presence: Presence) -> Option<Place<'_>> {
        let mut state = self.crowd.state();
        state.take_out(self.first.swap(0, Ordering::Relaxed));
        let stalled = self.stalled.load(Ordering::Relaxed);
        let kept = match presence {
            Presence::Served => return None,
            Presence::Silent | Presence::Asking => None,
            Presence::Stalling => Some(stalled).filter(|number| *number > 0),
        };
        let number = state.take_in(kept, &self.told, self.origin);
        let stalled = if presence == Presence::Stalling { number } else { 0 };
        self.stalled.store(stalled, Ordering::Relaxed);
        Some(Place { member: self, number })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.member.crowd.state().take_out(self.number);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.crowd.state();
        state.take_out(self.first.load(Ordering::Relaxed));
        if let Some(origin) = self.origin
            && let Some(held) = state.clients.get_mut(&origin)
        {
            held.connections -= 1;
            held.leaving -= usize::from(self.told.is_leaving.load(Ordering::Relaxed));
            if held.connections == 0 {
                state.clients.remove(&origin);
            }
        }
        drop(state);
        self.crowd.gone.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Presence::{Asking, Served, Silent, Stalling};
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    async fn is_told(member: &Member) -> bool {
        let mut told = pin!(member.told());
        poll_fn(|cx| Poll::Ready(told.as_mut().poll(cx).is_ready())).await
    }

    fn origin(ip: &str) -> Option<Origin> {
        Some(Origin::of(ip.parse().unwrap()))
    }

    #[tokio::test]
    async fn the_longest_waiting_goes_first() {
        let crowd = Crowd::new(10);
        let [one, two, three] = [(); 3].map(|()| crowd.arrive(origin("1.2.3.4")).unwrap());
        let first = one.is(Silent);
        let _second = two.is(Asking);
        let _third = three.is(Stalling);
        // It is answered, and waits anew.
        drop(first);
        assert!(one.is(Served).is_none());
        let _first = one.is(Silent);
        assert!(crowd.make_room());
        assert_eq!([is_told(&one).await, is_told(&two).await], [false, true]);
        assert!(crowd.make_room() && crowd.make_room());
        assert!(!crowd.make_room());
        assert_eq!([is_told(&one).await, is_told(&three).await], [true, true]);
    }

    #[tokio::test]
    async fn who_moves_a_byte_now_and_then_has_not_begun_anew() {
        let crowd = Crowd::new(10);
        let [slow, idle] = [(); 2].map(|()| crowd.arrive(None).unwrap());
        drop(slow.is(Stalling));
        let _waits = idle.is(Silent);
        // It moved in between.
        assert!(slow.is(Served).is_none());
        let stalls = slow.is(Stalling);
        crowd.make_room();
        assert_eq!([is_told(&slow).await, is_told(&idle).await], [true, false]);
        // In the next exchange it is as new as anybody.
        drop(stalls);
        drop(slow.is(Silent));
        let _again = slow.is(Stalling);
        crowd.make_room();
        assert_eq!([is_told(&slow).await, is_told(&idle).await], [false, true]);
    }

    #[tokio::test]
    async fn one_client_makes_room_among_its_own() {
        let crowd = Crowd::new(2);
        let other = crowd.arrive(origin("5.6.7.8")).unwrap();
        let waits_longest = other.is(Silent);
        let [one, two] = [(); 2].map(|()| crowd.arrive(origin("1.2.3.4")).unwrap());
        let waits = one.is(Silent);
        assert!(two.is(Served).is_none());
        let third = crowd.arrive(origin("1.2.3.4")).unwrap();
        assert_eq!([is_told(&other).await, is_told(&one).await], [false, true]);
        assert!(third.is(Served).is_none());
        assert!(crowd.arrive(origin("1.2.3.4")).is_none(), "two of its are served");
        drop(waits);
        drop(one);
        assert!(crowd.arrive(origin("1.2.3.4")).is_none(), "they still are");
        drop(two);
        let fourth = crowd.arrive(origin("1.2.3.4")).unwrap();
        // It has said nothing yet, and goes for the next one.
        let fifth = crowd.arrive(origin("1.2.3.4")).unwrap();
        assert!(is_told(&fourth).await);
        // Who carries many clients is not counted.
        let many: Vec<_> = (0..5).map(|_| crowd.arrive(None)).collect();
        assert!(many.iter().all(Option::is_some));
        drop(waits_longest);
        drop((other, third, fourth, fifth, many));
        assert!(crowd.state().clients.is_empty() && crowd.state().waiting.is_empty());
    }

    #[test]
    fn a_client_is_an_address_or_a_network_of_64_bits() {
        assert_ne!(origin("10.0.0.1"), origin("10.0.0.2"));
        assert_eq!(origin("::ffff:10.0.0.1"), origin("10.0.0.1"));
        assert_ne!(origin("::ffff:10.0.0.1"), origin("::ffff:10.0.0.2"));
        assert_eq!(origin("2001:db8:0:1::1"), origin("2001:db8:0:1:ffff::2"));
        assert_ne!(origin("2001:db8:0:1::1"), origin("2001:db8:0:2::1"));
    }
}
