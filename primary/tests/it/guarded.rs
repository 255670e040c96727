//! What decides whose a host and its data directory are, and what keeps others from it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::host::{Host, run};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_lock_that_is_removed_under_a_host_lets_no_second_one_in() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    let data = host.data();
    let data = data.to_str().unwrap();
    let up = ["up", "--data", data, "--listen", "127.0.0.1:0"];
    for _ in 0..2 {
        let said = run(host.scratch(), &up).failed(1);
        assert!(said.contains("another hearth runs on"), "{said}");
        let _ = fs::remove_file(host.data().join("lock"));
    }
    let said = run(host.scratch(), &["restore", "/dev/null", "--data", data]).failed(1);
    assert!(said.contains("another hearth runs on"), "{said}");
    tenant.post("/hello", "{}").expect(200);
    host.kill_and_start_again();
    tenant.post("/hello", "{}").expect(200);
}

#[test]
fn a_token_or_settings_that_everybody_may_change_are_refused_by_name() {
    let place = tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap();
    let (data, token) = (place.path().join("data"), place.path().join("token"));
    let settings = place.path().join("hearth.toml");
    fs::write(&token, "hearth_a-token-of-the-operators-choice\n").unwrap();
    let data = data.to_str().unwrap();
    fs::write(&settings, format!("data = {data:?}\nlisten = \"192.0.2.1:1\"\n")).unwrap();
    let with_token = ["up", "--data", data, "--listen", "192.0.2.1:1"];
    let with_token = [&with_token[..], &["--admin-token-file", token.to_str().unwrap()]].concat();
    let with_settings = vec!["up", "--config", settings.to_str().unwrap()];
    for (file, arguments) in [(&token, with_token), (&settings, with_settings)] {
        mode(file, 0o666);
        let said = run(place.path(), &arguments).failed(2);
        let advice = format!("chmod o-w {}", fs::canonicalize(file).unwrap().display());
        assert!(said.contains(&advice), "{said}");
        mode(file, 0o644);
        mode(place.path(), 0o777);
        let said = run(place.path(), &arguments).failed(2);
        assert!(said.contains("chmod o-w ") && !said.contains(&advice), "{said}");
        mode(place.path(), 0o700);
        // Nothing but the address, which cannot be had, is wrong now.
        let said = run(place.path(), &arguments).failed(1);
        assert!(said.contains("192.0.2.1:1 cannot be bound"), "{said}");
    }
}
