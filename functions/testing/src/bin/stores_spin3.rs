//! `spin:key-value@3.0.0`, which functions for Spin have today: asynchronous, so on WASI 0.3.

use bindings::spin::key_value::key_value::{Error, Store};
use testing::stores::{commands, some, value};
use wasip3::http::types::{ErrorCode, Request, Response};
use wasip3::http_compat::{self, http_into_wasi_response};

mod bindings {
    wit_bindgen::generate!({
        path: "../../sdk/wit/spin-key-value/key-value.wit",
        inline: "
            package example:stores;
            world uses { import spin:key-value/key-value@3.0.0; }
        ",
        world: "example:stores/uses",
        generate_all,
    });
}

wasip3::http::service::export!(Guest);

struct Guest;

impl wasip3::exports::http::handler::Guest for Guest {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let mut lines = Vec::new();
        for command in commands(&target) {
            lines
                .push(run(command).await.unwrap_or_else(|error| format!("error: {}", said(error))));
        }
        http_into_wasi_response(http_compat::Response::new(lines.join("\n")))
    }
}

fn said(error: Error) -> String {
    match error {
        Error::StoreTableFull => "store table full".to_owned(),
        Error::NoSuchStore => "no such store".to_owned(),
        Error::AccessDenied => "access denied".to_owned(),
        Error::Other(said) => said,
    }
}

async fn run(command: Vec<String>) -> Result<String, Error> {
    let mut words = command.into_iter();
    let mut next = || words.next().unwrap_or_default();
    let store = Store::open(next()).await?;
    match &*next() {
        "" => Ok("open".to_owned()),
        "get" => store.get(next()).await.map(some),
        "length" => {
            store.get(next()).await.map(|value| value.unwrap_or_default().len().to_string())
        }
        "set" => {
            let (key, given) = (next(), next());
            store.set(key, value(&given)).await.map(|()| "set".to_owned())
        }
        "delete" => store.delete(next()).await.map(|()| "deleted".to_owned()),
        "exists" => store.exists(next()).await.map(|exists| exists.to_string()),
        "keys" => {
            let (keys, end) = store.get_keys().await;
            let mut keys = keys.collect().await;
            end.await?;
            keys.sort();
            Ok(keys.join(" "))
        }
        other => Err(Error::Other(format!("{other} is not of this text"))),
    }
}

fn main() {}
