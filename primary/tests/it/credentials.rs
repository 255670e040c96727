//! Whom a token reaches: those who check it, and no function.

use std::fs;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::guests;
use crate::host::{ADMIN_TOKEN, Address, Host};
use crate::http::{Answer, Connection, Request};

/// Every way in which a token can be sent.
fn ways(token: &str) -> [String; 5] {
    [
        format!("Bearer {token}"),
        format!("bearer\t{token}"),
        format!("Token {token}"),
        format!("Basic {}", STANDARD.encode(format!("anybody:{token}"))),
        format!("Basic {}", STANDARD.encode(format!("{token}:"))),
    ]
}

fn with(address: &Address, authorization: &str) -> Request {
    address.request("POST", "/echo").header("authorization", authorization)
}

/// What the function was shown of it.
fn seen(answer: Answer) -> Value {
    answer.expect(200).json()["headers"]["authorization"].clone()
}

#[test]
fn a_token_of_the_platform_reaches_no_function() {
    let host = Host::start();
    let [tenant, other] = ["demo", "other"].map(|name| host.tenant(name));
    tenant.deploy("echo", guests::echo());
    let foreign = other.token("invoke");
    let own = tenant.token("invoke");
    let revoked = "hearth_of-which-nobody-knows-any-more";
    for address in tenant.addresses() {
        let is_front = address.name != "its own port";
        for token in [foreign.as_str(), own.as_str(), revoked, ADMIN_TOKEN] {
            for way in ways(token) {
                let answer = address.send(&with(&address, &way));
                let said = format!("{way:?} at {}", address.name);
                if token == ADMIN_TOKEN && is_front {
                    answer.expect_problem(403, "forbidden").expect_detail("an admin's token");
                } else {
                    assert_eq!(seen(answer), json!(null), "{said}");
                }
                // Nor does it pass beside something else, in either order.
                let both = with(&address, "Bearer other").header("authorization", &way);
                let both = address.send(&both);
                if !(token == ADMIN_TOKEN && is_front) {
                    assert_eq!(seen(both), json!(["Bearer other"]), "{said}");
                }
            }
        }
        // What is a function's own business is its own business.
        let basic = format!("Basic {}", STANDARD.encode("hearth_app:a password"));
        for other in ["Bearer eyJhbGciOiJIUzI1NiJ9.e30.x", "Digest username=\"a\"", &basic] {
            assert_eq!(
                seen(address.send(&with(&address, other))),
                json!([other]),
                "{}",
                address.name
            );
        }
    }
    // The API calls with the caller's name and nothing of the token.
    let invoke = tenant.api("POST", "/functions/echo/invoke");
    assert_eq!(seen(host.send(&invoke)), json!(null));
}

/// Where a connection is its worker's, what that cannot know is not shown to a function either.
#[test]
fn nor_does_it_on_a_connection_that_was_handed_over() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    let [_, by_name, _] = tenant.addresses();
    let mut kept = Connection::open(by_name.to).unwrap();
    assert_eq!(seen(kept.call(&with(&by_name, "Bearer other"))), json!(["Bearer other"]));
    host.has_handed_over(1);
    for way in ways(ADMIN_TOKEN) {
        assert_eq!(seen(kept.call(&with(&by_name, &way))), json!(null), "{way}");
    }
    // With one of the tenant's own it is handed over as well; with an admin's it is refused.
    let own = tenant.token("invoke");
    let mut kept = Connection::open(by_name.to).unwrap();
    assert_eq!(seen(kept.call(&with(&by_name, &format!("Bearer {own}")))), json!(null));
    host.has_handed_over(2);
    by_name.send(&with(&by_name, &ways(ADMIN_TOKEN)[0])).expect_problem(403, "forbidden");
    host.has_handed_over(2);
}

#[test]
fn an_admins_token_that_was_chosen_without_the_form_is_warned_of_and_refused_at_the_front_door() {
    const CHOSEN: &str = "correct-horse-battery-staple";
    const WARNED: &str = "an admin's token was chosen that does not begin with";
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), ADMIN_TOKEN).unwrap();
    let mut host = Host::with(&["--admin-token-file", file.path().to_str().unwrap()]);
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    assert!(!host.log().contains(WARNED));
    fs::write(file.path(), CHOSEN).unwrap();
    host.kill_and_start_again();
    assert!(host.log().contains(WARNED));
    let [port, by_name, by_path] = tenant.addresses();
    for address in [by_name, by_path] {
        // Not on the connection's first request alone, on which it could be a worker's.
        let mut kept = Connection::open(address.to).unwrap();
        kept.call(&address.request("POST", "/echo")).expect(200);
        for way in ways(CHOSEN) {
            kept.call(&with(&address, &way)).expect_problem(403, "forbidden");
        }
        assert_eq!(seen(kept.call(&with(&address, "Bearer other"))), json!(["Bearer other"]));
    }
    assert_eq!(host.handed_over(), 0);
    // Nobody knows it here, which is what is warned of.
    assert_eq!(
        seen(port.send(&with(&port, &format!("Bearer {CHOSEN}")))).as_array().unwrap().len(),
        1
    );
    // The store remembers, whatever is set later; and a better one ends it.
    host.kill_and_start_again();
    assert_eq!(host.log().matches(WARNED).count(), 2);
    fs::write(file.path(), ADMIN_TOKEN).unwrap();
    host.kill_and_start_again();
    assert_eq!(host.log().matches(WARNED).count(), 2);
}

/// No answer tells how near a guess came, and nothing on the disk is a token.
#[test]
fn row_27_a_guess_that_is_near_is_as_wrong_as_any() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("echo", guests::echo(), &json!({ "auth": "invoke" }));
    let tokens = [tenant.token.clone(), tenant.token("invoke"), tenant.token("invoke")];
    for token in &tokens {
        let random = token.strip_prefix("hearth_").unwrap();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(random).unwrap();
        assert_eq!(bytes.len(), 32, "256 bits");
        assert_eq!(tokens.iter().filter(|other| *other == token).count(), 1);
    }
    let token = &tokens[1];
    let digest = {
        use sha2::Digest;
        sha2::Sha256::digest(token.as_bytes())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
    };
    let flipped = token.chars().rev().collect::<String>();
    let guesses = [
        String::new(),
        "hearth_".to_owned(),
        token[..token.len() - 1].to_owned(),
        format!("{token}A"),
        format!("{}A", &token[..token.len() - 1]).replace("AA", "BB"),
        token.to_uppercase(),
        token.replace("hearth_", ""),
        token.replace("hearth_", "hearth_ "),
        flipped,
        digest,
        format!("{token}\u{ff}"),
        "x".repeat(513),
    ];
    for guess in guesses.iter().filter(|guess| *guess != token) {
        for address in tenant.addresses() {
            address
                .send(&with(&address, &format!("Bearer {guess}")))
                .expect_problem(401, "unauthenticated");
        }
        let asked = Request::new("GET", "/api/v1/whoami").bearer(guess);
        host.send(&asked).expect_problem(401, "unauthenticated");
    }
    let address = tenant.address();
    address.send(&with(&address, &format!("Bearer {token}"))).expect(200);
    for entry in fs::read_dir(host.data()).unwrap().flatten() {
        if let Ok(bytes) = fs::read(entry.path()) {
            for token in &tokens {
                let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
                assert!(!found, "{}", entry.path().display());
            }
        }
    }
}

/// Guesses that share all but their last character with a token, and guesses that share nothing:
/// their medians are told apart by nothing but chance.
#[test]
fn row_27_how_long_a_guess_takes_tells_nothing() {
    const EACH: usize = 400;
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("echo", guests::echo(), &json!({ "auth": "invoke" }));
    let token = tenant.token("invoke");
    let last = if token.ends_with('A') { 'B' } else { 'A' };
    let near = format!("{}{last}", &token[..token.len() - 1]);
    let far = format!("hearth_{}", "0".repeat(token.len() - 7));
    let address = tenant.address();
    let api = |guess: &str| Request::new("GET", "/api/v1/whoami").bearer(guess);
    let mut connections = [address.to, host.front].map(|to| Connection::open(to).unwrap());
    for (place, connection) in connections.iter_mut().enumerate() {
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..EACH {
            for (guess, took) in [&near, &far].into_iter().zip(&mut took) {
                let request = match place {
                    0 => with(&address, &format!("Bearer {guess}")),
                    _ => api(guess),
                };
                let begun = Instant::now();
                assert_eq!(connection.call(&request).status, 401);
                took.push(begun.elapsed());
            }
        }
        let [near, far] = took.map(median);
        // A comparison that ends at the first difference is nanoseconds; what is looked for is a
        // step more for those that are near, such as a look into the store.
        let apart = near.abs_diff(far);
        assert!(apart < near.max(far) / 3 + Duration::from_micros(50), "{near:?} {far:?}");
    }
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}
