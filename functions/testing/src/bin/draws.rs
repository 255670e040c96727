//! Answers with what it draws, one to a line: sixteen random bytes, a number of the insecure source, the
//! seed of hash tables, and the order in which a table of its own has sixteen keys.

use std::collections::HashMap;

use wasip2::random::{insecure, insecure_seed, random};

testing::guest!(handle);

fn handle(_: testing::Request, out: testing::Out) {
    let bytes = random::get_random_bytes(16);
    let (seed, rest) = insecure_seed::insecure_seed();
    let table: HashMap<u32, ()> = (0..16).map(|key| (key, ())).collect();
    let order: Vec<u32> = table.into_keys().collect();
    let drawn = insecure::get_insecure_random_u64();
    let said = format!("{bytes:x?}\n{drawn:x}\n{seed:x} {rest:x}\n{order:x?}\n");
    testing::respond(out, 200, &[], said.as_bytes());
}
