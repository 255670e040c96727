//! `hearth doctor`: whether this machine, these settings and the host are as they should be.
//!
//! Looks, and changes nothing. Each check says what it found and, where that is not good, what to
//! do. What is judged is what `hearth up` would be with the same options: where the settings say,
//! the host is looked for there, and the walls must reach the level that is asked for. Judging is
//! kept apart from looking, so that both ends of every bound can be tested.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hearth_wire::Scope;
use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use super::build::{TARGET, Target, target};
use super::client::Host;
use super::error::{CliError, chain};
use super::print::{Print, Table, bytes};
use crate::api::tenants::TenantList;
use crate::backup::restore;
use crate::config::{Client, ClientArgs, Config, UpArgs, Written};
use crate::descriptors::{EACH_TENANT, Shares};
use crate::fleet::cgroups::{Kind, mounted};
use crate::generations::foreign_states;
use crate::isolation::{State, Wall, survey};
use crate::keyfile::KeyFile;
use crate::owner::{self, OwnerError};
use crate::sealing::KeyId;
use crate::store;

/// From which kernel on an instance's memory is reset page by page.
const PAGEMAP_SCAN: (u32, u32) = (6, 7);
/// Open files with which nobody meets a bound before the front door's own: what the service's file
/// asks for.
const ENOUGH: u64 = 524_288;
const DISK_FAIL_BYTES: u64 = 100 << 20;
const DISK_WARN_BYTES: u64 = 1 << 30;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Takes the options of `hearth up`, to check the machine for them.\n\nExample:\n  hearth doctor --data /var/lib/hearth"
)]
pub struct DoctorArgs {
    #[command(flatten)]
    up: UpArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    check: &'static str,
    level: Level,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

fn ok(check: &'static str, found: impl Into<String>) -> Check {
    Check { check, level: Level::Ok, found: found.into(), fix: None }
}

fn warn(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { check, level: Level::Warn, found: found.into(), fix: Some(fix.into()) }
}

fn fail(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { check, level: Level::Fail, found: found.into(), fix: Some(fix.into()) }
}

pub fn run(args: DoctorArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let mut checks = Vec::new();
    let written = Written::gather(args.up);
    let said = written.as_ref().is_ok_and(Written::says_listen);
    let config = written.and_then(Written::resolve);
    // Whoever asks about settings means the host that has them.
    let listen = config.as_ref().ok().map(|config| config.front.listen).filter(|_| said);
    let tenants = host(client, listen, &mut checks);
    programs(&mut checks);
    checks.push(wasm_target(&target()));
    checks.push(kernel(&rustix::system::uname().release().to_string_lossy()));
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    checks.push(descriptors(limit, tenants.unwrap_or(0)));
    match &config {
        Ok(config) => {
            checks.push(ok("settings", config.to_string()));
            of_settings(config, &mut checks);
            walls(config, &mut checks);
        }
        Err(error) => {
            checks.push(fail("settings", chain(error), "correct what is named there"));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    checks.extend(cgroup_moves(&mounts));
    write(&checks, print)?;
    let failed = checks.iter().any(|check| check.level == Level::Fail);
    if failed { Err(CliError::Told) } else { Ok(()) }
}

fn write(checks: &[Check], print: Print) -> Result<(), CliError> {
    if print.json() {
        let json = serde_json::json!({ "checks": checks });
        return print.raw(&json.to_string());
    }
    let mut out = print.out();
    let mut table = Table::new(["", "check", "found"]);
    for Check { check, level, found, fix } in checks {
        let level = match level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        table.row([&level, check, found]);
        if let Some(fix) = fix {
            table.row([&"", &"", &format_args!("→ {fix}")]);
        }
    }
    table.write(&mut out, "")?;
    out.flush()?;
    Ok(())
}

/// The host as its clients see it, and how many tenants it has, where that is told. It is looked
/// for where the client's options say, and else at `listen`.
fn host(args: &ClientArgs, listen: Option<SocketAddr>, checks: &mut Vec<Check>) -> Option<u64> {
    let url = args.url.clone().or_else(|| listen.map(reached_at));
    let client = Client::gather(&ClientArgs { url, ..args.clone() });
    let host = match client.map_err(CliError::from).and_then(Host::of) {
        Ok(host) => host,
        Err(error) => {
            checks.push(fail("host", chain(&error), "correct what is named there"));
            return None;
        }
    };
    let url = host.url().to_owned();
    let answers = || ok("host", format!("Hearth answers at {url}"));
    let who = match host.whoami() {
        Ok(who) => who,
        Err(CliError::Unreachable { source, .. } | CliError::Broken { source, .. }) => {
            let found = format!("nothing answers at {url}: {source}");
            // Before the first start there is nothing, and need not be.
            checks.push(match host.has_token() {
                true => fail("host", found, "run `hearth up` there, or hearth login elsewhere"),
                false => warn("host", found, "run `hearth up`, or say where it is: hearth login"),
            });
            return None;
        }
        Err(CliError::Problem(said)) => {
            checks.push(answers());
            let level = if host.has_token() { fail } else { warn };
            checks.push(level("token", said.to_string(), "hearth login, or set HEARTH_TOKEN"));
            return None;
        }
        Err(error) => {
            checks.push(fail("host", chain(&error), "check the address: hearth login"));
            return None;
        }
    };
    checks.push(answers());
    let of = who.tenant.map_or_else(|| "the host".to_owned(), |tenant| tenant.to_string());
    checks.push(ok("token", format!("{} ({} of {of})", who.name, who.scope)));
    let list = match who.scope {
        Scope::Admin => host.get("/tenants").and_then(|answer| answer.parse::<TenantList>()).ok(),
        _ => None,
    };
    list.map(|list| list.tenants.len() as u64)
}

/// Where a client on this machine finds what listens there.
fn reached_at(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, listen.port()))
}

fn programs(checks: &mut Vec<Check>) {
    let fix = "install hearth, hearth-worker and hearth-compile of one version into one directory";
    let Some(directory) =
        std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned))
    else {
        checks.push(fail("programs", "this program's own directory is not known", fix));
        return;
    };
    for program in ["hearth-worker", "hearth-compile"] {
        let path = directory.join(program);
        let is_program = path
            .metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
        checks.push(if is_program {
            ok("programs", path.display().to_string())
        } else {
            fail("programs", format!("{} is not a program", path.display()), fix)
        });
    }
}

fn wasm_target(target: &Target) -> Check {
    const CHECK: &str = "rust target";
    match target {
        Target::Installed => ok(CHECK, TARGET),
        Target::Missing => warn(
            CHECK,
            format!("{TARGET} is not installed"),
            format!("to build functions here: rustup target add {TARGET}"),
        ),
        Target::NoRust(_) => {
            warn(CHECK, "there is no Rust", "to build functions here: https://rustup.rs")
        }
    }
}

fn kernel(release: &str) -> Check {
    const CHECK: &str = "kernel";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    };
    let (major, minor) = PAGEMAP_SCAN;
    match version {
        Some(version) if version >= PAGEMAP_SCAN => {
            ok(CHECK, format!("Linux {release} resets memory page by page"))
        }
        Some(_) => warn(
            CHECK,
            format!(
                "Linux {release} resets an instance's memory as a whole, about 30 µs a call more"
            ),
            format!("for speed: Linux {major}.{minor} or later"),
        ),
        None => warn(
            CHECK,
            format!("Linux {release} is a version that is not understood"),
            format!("make sure that it is {major}.{minor} or later"),
        ),
    }
}

/// The hard limit: the host raises its own to that.
fn descriptors(limit: u64, tenants: u64) -> Check {
    const CHECK: &str = "open files";
    let fix =
        |needed: u64| format!("ulimit -Hn {needed}, or LimitNOFILE={needed} in the service's file");
    let Some(shares) = Shares::of(limit) else {
        return fail(CHECK, format!("up to {limit}, with which it does not start"), fix(ENOUGH));
    };
    let (front, room) = (shares.front, shares.tenants);
    let found = format!(
        "up to {limit}: {front} connections at the front door at once, and room for {room} tenants with workers, of which there are {tenants}"
    );
    if tenants > room * EACH_TENANT {
        fail(CHECK, found, fix(ENOUGH.max(limit.saturating_mul(4))))
    } else if tenants > room || shares.are_few() {
        warn(CHECK, found, fix(ENOUGH.max(limit.saturating_mul(4))))
    } else {
        ok(CHECK, found)
    }
}

fn of_settings(config: &Config, checks: &mut Vec<Check>) {
    checks.push(address("listen", config.front.listen, || is_hearth(config.front.listen)));
    let tenants = SocketAddr::new(config.tenants.bind, 0);
    checks.push(address("tenant-bind", tenants, || false));
    if let Some(from) = config.admin_token() {
        checks.push(match config.read_secrets() {
            Ok(_) => ok("admin token", format!("from {from}")),
            Err(error) => fail("admin token", chain(&error), "correct what is named there"),
        });
    }

    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    let range = range.as_deref().and_then(|text| {
        let mut numbers = text.split_whitespace().map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    checks.push(ports((*config.tenants.ports.start(), *config.tenants.ports.end()), range));
    checks.push(disk(&config.host.data, config.uploads.disk_reserve_mb << 20));
    checks.push(data(config));
    checks.push(secrets_key(config));
    if config.front.names_headers_of_nobody() {
        checks.push(warn(
            "trusted header",
            "trusted-header has no effect without trusted-proxy: no peer is a trusted proxy then",
            "name the proxy: --trusted-proxy, or leave --trusted-header out",
        ));
    }
}

/// Whether the host would start on it, and could serve all tenants that it finds there.
fn data(config: &Config) -> Check {
    const CHECK: &str = "data";
    let data = &config.host.data;
    match owner::check(data) {
        Err(error @ (OwnerError::NotEmpty { .. } | OwnerError::NotADirectory(_))) => {
            return fail(CHECK, error.to_string(), "choose another --data");
        }
        Err(error @ (OwnerError::Foreign { .. } | OwnerError::Closed { .. })) => {
            return fail(
                CHECK,
                error.to_string(),
                "run Hearth as the user that its data belongs to",
            );
        }
        Ok(()) => {}
    }
    if restore::is_unfinished(data) {
        let found = format!("a restore into {} did not end", data.display());
        return fail(CHECK, found, "do it again: hearth restore FILE --data DIR");
    }
    let foreign = match owner::can_give(&config.tenants.uids) {
        Ok(()) => Vec::new(),
        Err(_) => foreign_states(data),
    };
    match foreign.as_slice() {
        [] => ok(CHECK, data.display().to_string()),
        [first, ..] => fail(
            CHECK,
            format!("tenants that cannot be served here: {}; the first: {first}", foreign.len()),
            "start Hearth as it was started before, or do what is said there for each",
        ),
    }
}

/// Whether the key is there that sealed the secrets of this data directory.
fn secrets_key(config: &Config) -> Check {
    const CHECK: &str = "secrets key";
    let data = &config.host.data;
    let file = KeyFile::new(data, config.host.secrets_key.as_deref());
    let sealed_by = store::sealed_by_at_rest(data);
    let path = file.path().display().to_string();
    match file.read() {
        Err(error) => fail(CHECK, chain(&error), "put the right file there"),
        Ok(key) => judge_key(&path, key.map(|key| key.id()), &sealed_by, file.is_open_to_others()),
    }
}

fn judge_key(path: &str, key: Option<KeyId>, sealed_by: &[KeyId], is_open: bool) -> Check {
    const CHECK: &str = "secrets key";
    let put_back =
        "put the key back that sealed them, or forget them: hearth secret rekey --forget";
    match key {
        None if sealed_by.is_empty() => ok(CHECK, "none yet: it is made with the first secret"),
        None => fail(CHECK, format!("{path} is missing, and secrets are sealed with it"), put_back),
        Some(key) if sealed_by.iter().any(|by| *by != key) => fail(
            CHECK,
            format!("{path} is not the key that sealed all secrets of this data directory"),
            put_back,
        ),
        Some(_) if is_open => warn(
            CHECK,
            format!("others than its owner can read {path}"),
            format!("chmod 600 {path}"),
        ),
        Some(_) => ok(CHECK, format!("{path}; no backup has it, so keep a copy elsewhere")),
    }
}

fn is_hearth(at: SocketAddr) -> bool {
    let (token, tenant, ca_file, proxy) = (None, None, None, None);
    let host = Host::of(Client { url: reached_at(at), token, tenant, ca_file, proxy });
    // Whoever has no token is told so, as by nothing else.
    matches!(host.and_then(|host| host.whoami()), Ok(_) | Err(CliError::Problem(_)))
}

/// Whether the host could listen there, or does.
fn address(setting: &'static str, at: SocketAddr, is_hearth: impl FnOnce() -> bool) -> Check {
    match TcpListener::bind(at) {
        Ok(_) => ok(setting, format!("{at} can be had")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_hearth() => {
            ok(setting, format!("a Hearth has {at}"))
        }
        Err(error) => {
            let fix = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "end what has it (ss -ltnp says what), or choose another"
                }
                io::ErrorKind::AddrNotAvailable => "choose an address that this machine has",
                _ => "choose another, or give Hearth the right to it",
            };
            fail(setting, format!("{at} cannot be bound: {error}"), fix)
        }
    }
}

fn ports(tenants: (u16, u16), outgoing: Option<(u16, u16)>) -> Check {
    const CHECK: &str = "tenant ports";
    let (first, last) = tenants;
    let Some((from, to)) = outgoing else {
        return warn(
            CHECK,
            "the range that the kernel takes for outgoing connections is not known",
            format!("make sure that {first}-{last} is not in it"),
        );
    };
    if last < from || first > to {
        return ok(
            CHECK,
            format!("{first}-{last}, apart from {from}-{to} of outgoing connections"),
        );
    }
    warn(
        CHECK,
        format!("{first}-{last} overlaps {from}-{to} of outgoing connections, which may take them"),
        format!(
            "choose other --tenant-ports, or: sysctl net.ipv4.ip_local_reserved_ports={}-{}",
            first.max(from),
            last.min(to)
        ),
    )
}

fn disk(data: &Path, reserve: u64) -> Check {
    const CHECK: &str = "disk";
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let existing = absolute.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(_) if access(existing, Access::WRITE_OK | Access::EXEC_OK).is_err() => fail(
            CHECK,
            format!("{} cannot be written by this user", existing.display()),
            "run this as the user that Hearth runs as, or choose another --data",
        ),
        Ok(stat) => space(&absolute.display().to_string(), stat.f_bavail * stat.f_frsize, reserve),
        Err(error) => fail(
            CHECK,
            format!("{}: {error}", absolute.display()),
            "choose a --data that can be written",
        ),
    }
}

/// Uploads leave the reserve as it is.
fn space(data: &str, free: u64, reserve: u64) -> Check {
    const CHECK: &str = "disk";
    let found = format!("{} free for {data}", bytes(free));
    match free.saturating_sub(reserve) {
        ..DISK_FAIL_BYTES => fail(CHECK, found, "make room there, or choose another --data"),
        DISK_FAIL_BYTES..DISK_WARN_BYTES => warn(CHECK, found, "make room there"),
        DISK_WARN_BYTES.. => ok(CHECK, found),
    }
}

/// What stands around workers here: a zygote is started and has its walls tried.
fn walls(config: &Config, checks: &mut Vec<Check>) {
    const CHECK: &str = "isolation";
    let worker = std::env::current_exe().map(|path| path.with_file_name("hearth-worker"));
    let surveyed = worker
        .map_err(anyhow::Error::from)
        .and_then(|worker| survey(&worker, &config.tenants.uids));
    let (isolation, escapes) = match surveyed {
        Ok(surveyed) => surveyed,
        Err(error) => {
            let found = format!("no worker can be started: {error:#}");
            checks.push(fail(CHECK, found, "a kernel with CONFIG_SECCOMP_FILTER, from 5.13 on"));
            return;
        }
    };
    checks.extend(isolation.table().into_iter().map(of_wall));
    let level = isolation.level();
    if level < config.host.isolation {
        let found =
            format!("level {level} is reached here, and {} is asked for", config.host.isolation);
        checks.push(fail(CHECK, found, "mend what is missing above, or ask for less: --isolation"));
    }
    checks.push(match escapes.as_slice() {
        [] => ok(CHECK, format!("level {level}: {}; the walls hold", level.meaning())),
        escapes => fail(
            CHECK,
            format!("level {level}, but the walls do not hold: {}", escapes.join(", ")),
            "do not serve strangers here; a kernel without patches of its own may help",
        ),
    });
}

/// In version 2 a process that goes into its group waits until all processors have been somewhere
/// else, unless the mount favours who moves: see `favordynmods` in the kernel's cgroup-v2.rst.
fn cgroup_moves(mounts: &str) -> Option<Check> {
    const CHECK: &str = "cgroup moves";
    let mut v2 = None;
    for mount in mounted(mounts) {
        match mount.kind {
            Kind::V2 => v2 = Some((mount.at, mount.options)),
            // What version 1 has, version 2 has not.
            Kind::V1 => return None,
        }
    }
    let (at, options) = v2?;
    Some(if options.split(',').any(|option| option == "favordynmods") {
        ok(CHECK, "a worker that starts is in its cgroup at once")
    } else {
        warn(
            CHECK,
            "a worker that starts waits for its cgroup, some milliseconds of each wake",
            format!("for speed, after each boot: mount -o remount,favordynmods {at} (Linux 6.0)"),
        )
    })
}

fn of_wall(wall: Wall) -> Check {
    match wall.state {
        State::Stands(what) => ok(wall.name, what),
        State::Missing { why, lost, fix } => warn(wall.name, format!("{why}: {lost}"), fix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_secrets() {
        let [one, other] = [1, 2].map(|number| KeyId::new([number; 8]));
        for (key, sealed_by, is_open, level) in [
            (None, &[][..], false, Level::Ok),
            (None, &[one], false, Level::Fail),
            (Some(one), &[], false, Level::Ok),
            (Some(one), &[one], false, Level::Ok),
            (Some(one), &[one], true, Level::Warn),
            (Some(one), &[other], false, Level::Fail),
            (Some(one), &[one, other], true, Level::Fail),
        ] {
            let check = judge_key("/data/secrets.key", key, sealed_by, is_open);
            assert_eq!(check.level, level, "{check:?}");
        }
    }

    #[test]
    fn kernels() {
        for (release, level) in [
            ("6.18.44-fc", Level::Ok),
            ("6.7", Level::Ok),
            ("7.0.0", Level::Ok),
            ("6.6.99", Level::Warn),
            ("5.15.0-91-generic", Level::Warn),
            ("unknown", Level::Warn),
        ] {
            assert_eq!(kernel(release).level, level, "{release}");
        }
    }

    #[test]
    fn what_the_mount_of_cgroups_favours() {
        const V1: &str = "31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu";
        const V2: &str = "29 23 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        const ELSE: &str = "22 1 254:0 / / rw - ext4 /dev/vda rw";
        let quick = format!("{V2},favordynmods,memory_recursiveprot");
        for (mounts, level) in [
            (vec![ELSE, V2], Some(Level::Warn)),
            (vec![ELSE, &quick], Some(Level::Ok)),
            (vec![V2, V1], None),
            (vec![V1], None),
            (vec![ELSE], None),
            (vec![], None),
        ] {
            let check = cgroup_moves(&mounts.join("\n"));
            assert_eq!(check.map(|check| check.level), level, "{mounts:?}");
        }
        let fix = cgroup_moves(V2).unwrap().fix.unwrap();
        assert!(fix.contains("mount -o remount,favordynmods /sys/fs/cgroup "), "{fix}");
    }

    #[test]
    fn open_files() {
        for (limit, tenants, level) in [
            (255, 0, Level::Fail),
            (256, 0, Level::Warn),
            (1_024, 10, Level::Warn),
            (20_000, 1_000, Level::Ok),
            (20_000, 5_000, Level::Warn),
            (20_000, 10_000, Level::Fail),
            (524_288, 10_000, Level::Ok),
            (u64::MAX, 10_000, Level::Ok),
        ] {
            assert_eq!(descriptors(limit, tenants).level, level, "{limit} {tenants}");
        }
    }

    #[test]
    fn port_ranges() {
        let tenants = (3411, 13410);
        for (outgoing, level) in [
            (Some((32768, 60999)), Level::Ok),
            (Some((13411, 60999)), Level::Ok),
            (Some((13410, 60999)), Level::Warn),
            (Some((1024, 3411)), Level::Warn),
            (Some((1024, 3410)), Level::Ok),
            (Some((1024, 65535)), Level::Warn),
            (None, Level::Warn),
        ] {
            assert_eq!(ports(tenants, outgoing).level, level, "{outgoing:?}");
        }
        let fix = ports(tenants, Some((10_000, 60_999))).fix.unwrap();
        assert!(fix.ends_with("=10000-13410"), "{fix}");
    }

    #[test]
    fn free_disk() {
        for (free, level) in [
            (0, Level::Fail),
            (DISK_FAIL_BYTES, Level::Warn),
            (DISK_WARN_BYTES - 1, Level::Warn),
            (DISK_WARN_BYTES, Level::Ok),
        ] {
            assert_eq!(space("/d", free, 0).level, level, "{free}");
            assert_eq!(space("/d", free + 1_000, 1_000).level, level, "{free}");
        }
        assert_eq!(space("/d", 0, 1).level, Level::Fail);
        assert!(disk(Path::new("/no/such/directory/yet"), 0).found.contains("/no/such"));
    }

    #[test]
    fn addresses() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap();
        assert_eq!(address("listen", at, || true).level, Level::Ok);
        assert_eq!(address("listen", at, || false).level, Level::Fail);
        drop(taken);
        assert_eq!(address("listen", "127.0.0.1:0".parse().unwrap(), || false).level, Level::Ok);
        let elsewhere = address("listen", "192.0.2.1:0".parse().unwrap(), || true);
        assert_eq!(elsewhere.level, Level::Fail);
        for (listen, url) in [
            ("0.0.0.0:1", "http://127.0.0.1:1"),
            ("[::]:1", "http://[::1]:1"),
            ("10.0.0.1:1", "http://10.0.0.1:1"),
        ] {
            assert_eq!(reached_at(listen.parse().unwrap()), url);
        }
    }

    #[test]
    fn a_missing_wall_says_what_is_lost_and_what_helps() {
        let why = "off".to_owned();
        let missing = State::Missing { why, lost: "files are open", fix: "turn it on" };
        let check = of_wall(Wall { name: "landlock", state: missing });
        assert_eq!(check, warn("landlock", "off: files are open", "turn it on"));
    }
}
