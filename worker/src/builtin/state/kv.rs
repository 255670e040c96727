//! `/$kv`: the tenant's key-value stores. A value goes in and out as its bytes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hearth_connection::{Answer, Received};
use hearth_wire::{Code, Expires, KeptName, KeyList, Page, StateNamed, StoreList, header as names};
use http::header::{CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http::{HeaderValue, Method, Response};

use super::exchange::{hold, json, no_content, only, page, page_of_names, paged};
use crate::refusal::{Refusal, full, header_value, method_refused};
use crate::serving::Serving;
use crate::state::{After, Entry, KeyValue, Stands, Store, Sync, VALUE_MAX_BYTES};

const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
const EXPIRES_MS: HeaderName = HeaderName::from_static(names::EXPIRES_MS);

pub async fn stores(serving: &Serving, head: &Parts) -> Result<Answer, Refusal> {
    only(head, &Method::GET)?;
    let (limit, after) = page_of_names(head)?;
    let found = serving.state.keyvalue().stores(after, limit + 1).await?;
    let (names, next) = paged(found, limit, KeptName::to_string);
    let stores = names.into_iter().map(|name| StateNamed { name: name.into() });
    Ok(json(&StoreList { stores: stores.collect(), next }))
}

pub async fn store(serving: &Serving, name: KeptName, head: &Parts) -> Result<Answer, Refusal> {
    let kv = serving.state.keyvalue();
    match head.method {
        Method::GET => {
            let Page { limit, after, prefix } = page(head)?;
            let store = find(&kv, &name).await?;
            let after = after.map_or(After::Start, After::Key);
            let found = kv.keys(store, prefix.unwrap_or_default(), after, limit).await?;
            let keys: Vec<_> = found.keys.into_iter().map(|(key, _)| key).collect();
            let next = keys.last().filter(|_| found.has_more).cloned();
            Ok(json(&KeyList { keys, next }))
        }
        Method::DELETE => match kv.remove(name.clone()).await? {
            true => Ok(no_content()),
            false => Err(no_store(&name)),
        },
        _ => Err(method_refused("GET, DELETE")),
    }
}

pub async fn entry(
    serving: &Serving,
    name: KeptName,
    key: String,
    head: &Parts,
    body: Received,
) -> Result<Answer, Refusal> {
    let kv = serving.state.keyvalue();
    match head.method {
        Method::GET => get(&kv, &name, key).await,
        Method::PUT => {
            let expires = Expires::parse(head.uri.query())?.map(time).transpose()?;
            let value = hold(serving, head, body, VALUE_MAX_BYTES).await?.bytes.to_vec();
            let store = kv.open(name).await?;
            kv.set(store, vec![Entry { key, value, expires }], Sync::Full).await?;
            Ok(no_content())
        }
        Method::DELETE => {
            if let Some(store) = kv.find(name).await? {
                kv.delete(store, vec![key], Sync::Full).await?;
            }
            Ok(no_content())
        }
        _ => Err(method_refused("GET, PUT, DELETE")),
    }
}

async fn get(kv: &KeyValue, name: &KeptName, key: String) -> Result<Answer, Refusal> {
    let store = find(kv, name).await?;
    let stands = kv.stands(store, key.clone()).await?;
    let Some(value) = kv.get(store, key).await? else {
        return Err(Refusal::new(Code::NotFound, format!("the store {name} has no such key")));
    };
    let mut answer = Response::new(full(value));
    answer.headers_mut().insert(CONTENT_TYPE, BYTES);
    if let Stands::Until(at) = stands {
        let ms = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        answer.headers_mut().insert(EXPIRES_MS, header_value(&ms.to_string()));
    }
    Ok(answer)
}

async fn find(kv: &KeyValue, name: &KeptName) -> Result<Store, Refusal> {
    let found = kv.find(name.clone()).await?;
    found.ok_or_else(|| no_store(name))
}

fn no_store(name: &KeptName) -> Refusal {
    Refusal::new(Code::NotFound, format!("there is no store {name}"))
}

fn time(Expires(ms): Expires) -> Result<SystemTime, Refusal> {
    let after = Duration::from_millis(u64::try_from(ms).unwrap_or_default());
    UNIX_EPOCH.checked_add(after).ok_or_else(|| hearth_wire::StateError::Expires.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_long_ago_or_far_away() {
        assert_eq!(time(Expires(1_500)).unwrap(), UNIX_EPOCH + Duration::from_millis(1_500));
        assert_eq!(time(Expires(-1)).unwrap(), UNIX_EPOCH);
        assert!(time(Expires(i64::MAX)).is_ok());
    }
}
