//! `fermyon:spin/key-value@2.0.0`, which functions for earlier versions of Spin have.

use bindings::fermyon::spin::key_value::{Error, Store};
use testing::stores::Text;

mod bindings {
    wit_bindgen::generate!({
        path: "../../sdk/wit/fermyon-spin/key-value.wit",
        inline: "
            package example:stores;
            world uses { import fermyon:spin/key-value@2.0.0; }
        ",
        world: "example:stores/uses",
        generate_all,
    });
}

struct Spin2;

fn said(error: Error) -> String {
    match error {
        Error::StoreTableFull => "store table full".to_owned(),
        Error::NoSuchStore => "no such store".to_owned(),
        Error::AccessDenied => "access denied".to_owned(),
        Error::Other(said) => said,
    }
}

impl Text for Spin2 {
    type Store = Store;

    fn open(name: &str) -> Result<Store, String> {
        Store::open(name).map_err(said)
    }

    fn get(store: &Store, key: &str) -> Result<Option<Vec<u8>>, String> {
        store.get(key).map_err(said)
    }

    fn set(store: &Store, key: &str, value: &[u8]) -> Result<(), String> {
        store.set(key, value).map_err(said)
    }

    fn delete(store: &Store, key: &str) -> Result<(), String> {
        store.delete(key).map_err(said)
    }

    fn exists(store: &Store, key: &str) -> Result<bool, String> {
        store.exists(key).map_err(said)
    }

    fn keys(store: &Store) -> Result<Vec<String>, String> {
        store.get_keys().map_err(said)
    }

    fn more(_: &Store, what: &[&str]) -> Result<String, String> {
        match what {
            ["hold", most] => {
                let mut held = Vec::new();
                for _ in 0..most.parse().unwrap() {
                    held.push(Self::open("default")?);
                }
                Ok(held.len().to_string())
            }
            other => Err(format!("{other:?} is not of this text")),
        }
    }
}

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    testing::stores::answer::<Spin2>(&request, out);
}
