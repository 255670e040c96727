//! Stores for tests.

use super::handle::Store;
use super::tenants::Tenant;
use crate::actor::{Actor, Author};

/// A store in a directory of its own, and that directory.
pub fn scratch() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, store)
}

pub fn author(name: &str) -> Author {
    let actor = Actor::Token { id: 1, name: name.to_owned() };
    Author { actor, request_id: None }
}

pub async fn tenant(store: &Store, name: &str, port: u16) -> Tenant {
    store.create_tenant(name.parse().unwrap(), port).await.unwrap()
}
