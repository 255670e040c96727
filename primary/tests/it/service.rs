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
    assert!(!said.contains("run systemctl") && said.contains("ExecStart="), "{said}");
    assert!(said.contains("systemd is not asked"), "{said}");
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
    for private in ["var/lib/hearth", "etc/hearth"] {
        assert_eq!(mode(&root.join(private)), 0o700, "{private}");
    }
    for open in ["etc", "etc/systemd", "etc/systemd/system", "var", "var/lib"] {
        assert_eq!(mode(&root.join(open)), 0o755, "{open}");
    }
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

/// A dry run says the commands as they are run.
#[test]
fn each_service_has_its_own_commands() {
    let place = place();
    for (user, commands) in [(false, "run systemctl "), (true, "run systemctl --user ")] {
        let user = if user { &["--user"][..] } else { &[] };
        for command in ["install", "uninstall"] {
            let said = run(place.path(), &[&[command, "--dry-run"], user].concat());
            // A system's service cannot run what is built below somebody's home.
            if said.error().contains("cannot run what is below") {
                continue;
            }
            let said = said.done();
            let asked: Vec<&str> =
                said.lines().filter(|line| line.contains("systemctl ")).collect();
            let asked = asked.iter().filter(|line| line.starts_with("run "));
            assert!(asked.clone().count() >= 2, "{said}");
            for line in asked {
                let rest = line.strip_prefix(commands).unwrap_or_else(|| panic!("{line}"));
                assert!(!rest.starts_with("--user"), "{line}");
            }
        }
    }
}

#[test]
fn what_is_purged_is_the_data_that_the_settings_name() {
    let place = place();
    let root = place.path().join("root");
    let purge = ["uninstall", "--purge", "--yes"];
    let settings = root.join("etc/hearth/hearth.toml");
    let (data, usual) = (root.join("srv/hearth"), root.join("var/lib/hearth"));
    hearth(place.path(), &root, &["install"]).done();
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("hearth.db"), "data").unwrap();
    fs::write(&settings, "data = \"/srv/hearth\"\n").unwrap();
    let said = hearth(place.path(), &root, &["uninstall"]).done();
    assert!(said.contains("stays in /srv/hearth"), "{said}");
    let said = hearth(place.path(), &root, &[&purge[..], &["--dry-run"]].concat()).done();
    assert!(said.contains("remove /srv/hearth with everything in it"), "{said}");
    let said = hearth(place.path(), &root, &purge).done();
    assert!(said.contains("all data in /srv/hearth"), "{said}");
    assert!(!data.exists() && !usual.exists() && !settings.exists());

    // What is not a host's stays, and so does everything else.
    hearth(place.path(), &root, &["install"]).done();
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("pictures"), "somebody's").unwrap();
    for (named, why) in [
        ("data = \"/srv/hearth\"", "is not a data directory of Hearth"),
        ("data = \"srv/hearth\"", "is not an absolute path"),
        ("data = 3", "is not an absolute path"),
        ("data = ", "is not TOML"),
    ] {
        fs::write(&settings, named).unwrap();
        let said = hearth(place.path(), &root, &purge).failed(1);
        assert!(said.contains(why), "{named}: {said}");
        assert!(data.join("pictures").exists() && settings.exists() && usual.exists(), "{named}");
    }
}

#[test]
fn who_is_not_root_is_told_how_to_be_or_how_not_to_need_to() {
    let place = place();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = crate::host::install(place.path());
    let user = format!("--reuid={}", crate::host::USER);
    for command in ["install", "uninstall"] {
        let mut asked = Command::new("setpriv");
        asked.args([&user, "--clear-groups"]).arg(&program).arg(command).env_clear();
        let said = asked.env("HOME", "/nowhere").output().unwrap();
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(1), "{error}");
        let (sudo, own) = ("sudo \"$(command -v hearth)\"", format!("hearth {command} --user"));
        assert!(error.contains(sudo) && error.contains(&own), "{error}");
    }
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
    assert!(
        said.contains("nothing was written, since systemd does not run this machine"),
        "{said}"
    );
    assert_eq!(tree(place.path()), Vec::<String>::new());

    // What is there from a time when there was one goes all the same.
    let unit = place.path().join(".config/systemd/user/hearth.service");
    hearth(place.path(), Path::new("/"), &["install", "--user"]).done();
    assert!(unit.exists());
    let said = run(place.path(), &["uninstall", "--user", "--purge", "--yes"]).done();
    assert!(said.contains("Nothing is asked of systemd") && said.contains("Uninstalled"), "{said}");
    assert!(!unit.exists() && !place.path().join(".local/share/hearth").exists());
}
