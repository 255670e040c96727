//! A function that is asked with GET: its input is the query string.

use hearth_sdk::{Query, function};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
struct Search {
    /// What the words begin with.
    q: String,
    limit: Option<u8>,
    #[serde(default)]
    order: Order,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Order {
    #[default]
    Up,
    Down,
}

#[derive(Serialize, JsonSchema)]
struct Found {
    words: Vec<&'static str>,
}

const WORDS: [&str; 5] = ["ember", "ash", "flame", "flint", "flare"];

/// Finds words by their beginning, `?q=fl&limit=2&order=down`.
#[function(methods = ["GET"])]
fn query(Query(search): Query<Search>) -> Found {
    let mut words: Vec<_> = WORDS.into_iter().filter(|word| word.starts_with(&search.q)).collect();
    match search.order {
        Order::Up => words.sort_unstable(),
        Order::Down => words.sort_unstable_by(|a, b| b.cmp(a)),
    }
    words.truncate(search.limit.unwrap_or(10).into());
    Found { words }
}
