//! `wasi:keyvalue@0.2.0-draft`, whose cursors and counters are numbers without a sign.

use bindings::wasi::keyvalue::{atomics, batch, store};
use testing::stores::{Text, shown};

mod bindings {
    wit_bindgen::generate!({
        path: "../../sdk/wit/wasi-keyvalue-draft",
        world: "wasi:keyvalue/imports",
        generate_all,
    });
}

struct Draft;

fn said(error: store::Error) -> String {
    format!("{error:?}")
}

impl Text for Draft {
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
            let page = store.list_keys(cursor).map_err(said)?;
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
                let found = batch::get_many(store, &keys).map_err(said)?.into_iter();
                let found = found.map(|pair| match pair {
                    Some((key, value)) => format!("{key}={}", shown(&value)),
                    None => "none".to_owned(),
                });
                Ok(found.collect::<Vec<_>>().join(" "))
            }
            other => Err(format!("{other:?} is not of this text")),
        }
    }
}

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    testing::stores::answer::<Draft>(&request, out);
}
