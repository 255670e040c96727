//! `hearth install` and `hearth uninstall` below a root of their own. What they write is given to
//! systemd's own check, where that is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::host::run;

fn hearth(home: &Path, root: &Path, arguments: &[&str]) -> crate::host::Said {
    let mut all = arguments.to_vec();
    all.extend(["--root", root.to_str().unwrap()]);
    run(home, &all)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Files and directories below, by their path.
fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            if path.is_dir() {
                left.push(path);
            }
        }
    }
    found.sort();
    found
}

fn place() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap()
}

#[test]
fn a_service_of_the_system() {
    let place = place();
    let root = place.path().join("root");
    fs::create_dir(&root).unwrap();
    let said = hearth(place.path(), &root, &["install", "--dry-run"]).done();
    assert!(said.contains("systemctl daemon-reload") && said.contains("ExecStart="), "{said}");
    assert!(said.contains("a new token") && !said.contains("hearth_"), "{said}");
    assert_eq!(tree(&root), Vec::<String>::new());

    let said = hearth(place.path(), &root, &["install"]).done();
    assert!(said.contains("systemd is not asked"), "{said}");
    let (unit, settings, token) = (
        root.join("etc/systemd/system/hearth.service"),
        root.join("etc/hearth/hearth.toml"),
        root.join("etc/hearth/admin-token"),
    );
    let first = fs::read_to_string(&token).unwrap();
    assert!(first.starts_with("hearth_") && first.len() == 51, "{first}");
    assert_eq!([mode(&unit), mode(&settings), mode(&token)], [0o644, 0o600, 0o600]);
    assert_eq!(mode(&root.join("var/lib/hearth")), 0o700);
    let written = fs::read_to_string(&unit).unwrap();
    assert!(written.contains(&format!("ExecStart={} up", env!("CARGO_BIN_EXE_hearth"))));

    // Again: what the operator changed stays, what is the program's is as it should be.
    fs::write(&settings, "listen = \"127.0.0.1:1\"\n").unwrap();
    fs::write(&unit, written.replace("RestartSec=2", "RestartSec=9")).unwrap();
    hearth(place.path(), &root, &["install"]).done();
    assert_eq!(fs::read_to_string(&token).unwrap(), first);
    assert_eq!(fs::read_to_string(&settings).unwrap(), "listen = \"127.0.0.1:1\"\n");
    assert_eq!(fs::read_to_string(&unit).unwrap(), written);

    fs::write(root.join("var/lib/hearth/hearth.db"), "data").unwrap();
    hearth(place.path(), &root, &["uninstall"]).done();
    hearth(place.path(), &root, &["uninstall"]).done();
    assert!(!unit.exists() && root.join("var/lib/hearth/hearth.db").exists() && token.exists());
    let said = hearth(place.path(), &root, &["uninstall", "--purge"]).failed(2);
    assert!(said.contains("--yes"), "{said}");
    assert!(root.join("var/lib/hearth/hearth.db").exists());
    hearth(place.path(), &root, &["uninstall", "--purge", "--yes"]).done();
    assert_eq!(
        tree(&root),
        ["etc", "etc/hearth", "etc/systemd", "etc/systemd/system", "var", "var/lib"]
    );
}

#[test]
fn a_service_of_one_user() {
    let place = place();
    let root = place.path().join("root");
    hearth(place.path(), &root, &["install", "--user"]).done();
    let home = root.join(place.path().strip_prefix("/").unwrap());
    let unit = fs::read_to_string(home.join(".config/systemd/user/hearth.service")).unwrap();
    let settings = place.path().join(".config/hearth/hearth.toml");
    assert!(unit.contains(&format!("up --config {}\n", settings.display())), "{unit}");
    assert!(!unit.contains("\nCapabilityBoundingSet"), "{unit}");
    assert!(home.join(".local/share/hearth").is_dir());
    // The settings are ones that `hearth up` takes.
    let settings = home.join(".config/hearth/hearth.toml");
    let settings = ["doctor", "--json", "--config", settings.to_str().unwrap()];
    let checks = run(place.path(), &settings).text();
    assert!(checks.contains("listen=127.0.0.1:3400"), "{checks}");
    hearth(place.path(), &root, &["uninstall", "--user", "--purge", "--yes"]).done();
    assert!(!home.join(".local/share/hearth").exists());
}

#[test]
fn somebody_else_s_unit_is_left_alone() {
    let place = place();
    let root = place.path().join("root");
    let unit = root.join("etc/systemd/system/hearth.service");
    fs::create_dir_all(unit.parent().unwrap()).unwrap();
    fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    for command in ["install", "uninstall"] {
        let said = hearth(place.path(), &root, &[command]).failed(1);
        assert!(said.contains("was not written by hearth"), "{said}");
    }
    assert!(fs::read_to_string(&unit).unwrap().contains("/bin/true"));
    assert!(!root.join("etc/hearth").exists());
}

/// Where systemd's own check is installed, both units pass it.
#[test]
fn systemd_takes_both_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return eprintln!("skipped: systemd-analyze is not installed");
    }
    let place = place();
    for name in ["hearth.service", "hearth-user.service"] {
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/service").join(name);
        let unit = fs::read_to_string(unit).unwrap();
        let path = place.path().join(name);
        fs::write(&path, unit.replace("/usr/local/bin/hearth", env!("CARGO_BIN_EXE_hearth")))
            .unwrap();
        let checked = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stderr);
        // What an older systemd does not know it passes over.
        let wrong = said.lines().filter(|line| {
            line.contains(name)
                && !line.contains("RestartSteps")
                && !line.contains("RestartMaxDelaySec")
        });
        assert_eq!(wrong.collect::<Vec<_>>(), Vec::<&str>::new(), "{name}");
        assert!(checked.status.success(), "{name}: {said}");
    }
}

#[test]
fn without_systemd_it_says_so() {
    if Path::new("/run/systemd/system").exists() {
        return eprintln!("skipped: systemd runs here, and would start a service");
    }
    let place = place();
    let said = run(place.path(), &["install", "--user"]).failed(1);
    assert!(said.contains("the files are in place, but systemctl --user daemon-reload"), "{said}");
    assert!(place.path().join(".config/systemd/user/hearth.service").exists());
}
