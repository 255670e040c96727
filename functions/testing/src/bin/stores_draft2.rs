//! `wasi:keyvalue@0.2.0-draft2` as Spin has it, and the entries that expire beside it.

use bindings::hearth::platform::keyvalue::{self, Expiry};
use bindings::wasi::keyvalue::atomics::{self, Cas, CasError};
use bindings::wasi::keyvalue::{batch, store};
use testing::stores::{Text, some};

mod bindings {
    wit_bindgen::generate!({
        path: ["../../sdk/wit/wasi-keyvalue-draft2", "../../sdk/wit/platform/keyvalue.wit"],
        inline: "
            package example:stores;
            world uses {
                include wasi:keyvalue/imports@0.2.0-draft2;
                import hearth:platform/keyvalue@0.1.0;
            }
        ",
        world: "example:stores/uses",
        generate_all,
    });
}

struct Draft2;

fn said(error: store::Error) -> String {
    match error {
        store::Error::NoSuchStore => "no such store".to_owned(),
        store::Error::AccessDenied => "access denied".to_owned(),
        store::Error::Other(said) => said,
    }
}

impl Text for Draft2 {
    type Store = store::Bucket;

    fn open(name: &str) -> Result<store::Bucket, String> {
        store::open(name).map_err(said)
    }

    fn get(store: &store::Bucket, key: &str) -> Result<Option<Vec<u8>>, String> {
        store.get(key).map_err(said)
    }

    fn set(store: &store::Bucket, key: &str, value: &[u8]) -> Result<(), String> {
        store.set(key, value).map_err(said)
    }

    fn delete(store: &store::Bucket, key: &str) -> Result<(), String> {
        store.delete(key).map_err(said)
    }

    fn exists(store: &store::Bucket, key: &str) -> Result<bool, String> {
        store.exists(key).map_err(said)
    }

    fn keys(store: &store::Bucket) -> Result<Vec<String>, String> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = store.list_keys(cursor.as_deref()).map_err(said)?;
            all.extend(page.keys);
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }

    fn more(store: &store::Bucket, what: &[&str]) -> Result<String, String> {
        match what {
            ["increment", key, delta] => {
                let number = atomics::increment(store, key, delta.parse().unwrap());
                number.map(|number| number.to_string()).map_err(said)
            }
            ["get-many", keys @ ..] => {
                let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
                let pairs = batch::get_many(store, &keys).map_err(said)?.into_iter();
                let pairs = pairs.map(|(key, value)| format!("{key}={}", some(value)));
                Ok(pairs.collect::<Vec<_>>().join(" "))
            }
            ["set-many", pairs @ ..] => {
                let pairs = pairs.iter().map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap();
                    (key.to_owned(), value.as_bytes().to_vec())
                });
                let pairs: Vec<_> = pairs.collect();
                batch::set_many(store, &pairs).map(|()| "set".to_owned()).map_err(said)
            }
            // Takes the place of what is there, unless somebody else does before.
            ["swap", key, between, value] => {
                let cas = Cas::new(store, key).map_err(said)?;
                if *between != "-" {
                    store.set(key, between.as_bytes()).map_err(said)?;
                }
                match atomics::swap(cas, value.as_bytes()) {
                    Ok(()) => Ok("swapped".to_owned()),
                    Err(CasError::CasFailed(now)) => {
                        Ok(format!("it was {}", some(now.current().map_err(said)?)))
                    }
                    Err(CasError::StoreError(error)) => Err(said(error)),
                }
            }
            ["set-expiring", key, value, ms] => {
                let ms = ms.parse().unwrap();
                let set = keyvalue::set_expiring(store, key, value.as_bytes(), ms);
                set.map(|()| "set".to_owned()).map_err(said)
            }
            ["expire", key, ms] => {
                let expire = keyvalue::expire(store, key, ms.parse().ok());
                expire.map(|was| was.to_string()).map_err(said)
            }
            ["expires-in", key] => Ok(match keyvalue::expires_in(store, key).map_err(said)? {
                Expiry::Missing => "missing".to_owned(),
                Expiry::Stays => "stays".to_owned(),
                Expiry::Expires(_) => "expires".to_owned(),
            }),
            other => Err(format!("{other:?} is not of this text")),
        }
    }
}

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    testing::stores::answer::<Draft2>(&request, out);
}
