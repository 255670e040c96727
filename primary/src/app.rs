//! Builds the host from its parts, in the order that privileges ask for, and runs it to its end.
//!
//! The zygote comes first: before there is a second thread, and before a secret is read. Each
//! part gets the one or two handles that it needs; there is no state that everybody shares.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use futures_util::future::join_all;
use hearth_connection::begin_calendar;
use hearth_wire::{Auth, Birth, TOKEN_PREFIX};
use jiff::Timestamp;
use nix::sys::resource::Resource;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::actor::Author;
use crate::api::{self, Api};
use crate::backup::{Backups, restore};
use crate::clock;
use crate::compile::Compiler;
use crate::config::{Config, Secrets, Written};
use crate::descriptors::{self, LEAST, Shares};
use crate::drain::{self, Running, Signals};
use crate::durable;
use crate::fail::{self, Point};
use crate::fleet::cgroups::{self, Cgroups};
use crate::fleet::sockets::{self, Sockets};
use crate::fleet::zygote::{self, Bundled, Keeper, Spawned, Zygote};
use crate::fleet::{Fleet, Shared};
use crate::front::{Bounds, Front};
use crate::gateway::{Gateway, Trusted};
use crate::generations::{Generations, Source};
use crate::invoke::Calls;
use crate::isolation::{Isolation, State, Wall};
use crate::keyfile::KeyFile;
use crate::leftovers::Notes;
use crate::lock::{self, Lock};
use crate::logs::Logs;
use crate::names::Names;
use crate::owner;
use crate::provision::{Addresses, Provision, ProvisionError};
use crate::quota;
use crate::settings::Settings;
use crate::store::{Store, Tenant, TenantId};
use crate::telemetry::{self, Telemetry};
use crate::terminal;
use crate::tree::Trees;
use crate::upkeep;
use crate::uplink::Services;
use crate::upload::Uploads;
use crate::upload::request::UploadRequests;

/// The tenant that a first start makes, so that there is something to call.
const FIRST_TENANT: &str = "home";
/// Of those that every tenant has.
const FIRST_FUNCTION: &str = "/hello";
/// Connections that the fleet opened or turned away and that wait to be answered, of either.
const UNANSWERED: usize = 1_024;

/// Runs the host until it is told to stop. To be called before there is a second thread.
pub fn up(written: Written) -> anyhow::Result<()> {
    let config = written.resolve()?;
    let ready = config.host.ready_fd.map(take_ready_fd).transpose()?;
    clock::check(Timestamp::now())?;
    umask(Mode::RWXG | Mode::RWXO);
    #[cfg(debug_assertions)]
    config.fail_points.as_deref().map(fail::arm).transpose()?;
    durable::create_dir(&config.host.data, Point::DataSync).with_context(|| {
        format!("the data directory {} cannot be made", config.host.data.display())
    })?;
    owner::check(&config.host.data)?;
    let Lock { notes, directory: _held } = lock::take(&config.host.data)?;
    let notes = Arc::new(Notes::new(notes));
    if restore::is_unfinished(&config.host.data) {
        let data = config.host.data.display();
        bail!(
            "a restore into {data} did not end; do it again (hearth restore FILE --data {data}), or give --data another directory"
        );
    }
    let descriptors = descriptors::raise();
    let Some(shares) = Shares::of(descriptors) else {
        bail!(
            "this process may have {descriptors} open files, and needs {LEAST} at least; raise the limit: ulimit -n, or LimitNOFILE= in the service's file"
        );
    };
    zygote::adopt_orphans()?;
    let programs = Programs::beside_this()?;
    // Before the zygote, so that it is born where this process goes.
    let cgroups = Cgroups::open(&config.host.data, config.spares > 0);
    last_to_go();
    never_dumped()?;
    let zygote = zygote::spawn(&programs.worker).context("hearth-worker cannot be started")?;

    let secrets = config.read_secrets()?;
    let telemetry = telemetry::init(&config.log)?;
    info!(%config, "starting");
    if shares.are_few() {
        let Shares { front, tenants, .. } = shares;
        warn!(
            descriptors,
            front,
            tenants,
            "few open files are allowed: there are as many places at the front door, and room for as many tenants"
        );
    }
    if config.front.names_headers_of_nobody() {
        warn!(
            "--trusted-header has no effect without --trusted-proxy: no peer is a trusted proxy then"
        );
    }
    end_leftovers(&config, &notes);
    begin_calendar();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().on_thread_start(begin_calendar).build()?;
    let spawned = (zygote, cgroups, notes.clone());
    let outcome =
        runtime.block_on(run(config, secrets, programs, shares, spawned, telemetry, ready));
    // Threads that wait for a slow disk do not keep the process.
    runtime.shutdown_background();
    outcome
}

/// What kept a port, memory or a name is gone before anything is bound or made.
fn end_leftovers(config: &Config, notes: &Notes) {
    match notes.end_leftovers(&config.tenants.uids) {
        Ok(0) => {}
        Ok(processes) => warn!(processes, "an earlier host left processes, which were ended"),
        Err(error) => error!(error = &error as &dyn std::error::Error, "leftovers"),
    }
    match cgroups::end_leftovers(&config.host.data) {
        Ok(0) => {}
        Ok(groups) => info!(groups, "an earlier host left cgroups, which were removed"),
        Err(reason) => error!(reason, "leftovers"),
    }
}

/// Where memory is short the kernel ends others first: everything that this process starts offers
/// itself. To be lower than usual is for who may, and an operator's word stands.
fn last_to_go() {
    const OWN: &str = "/proc/self/oom_score_adj";
    const LAST: &str = "-500";
    if std::fs::read_to_string(OWN).is_ok_and(|own| own.trim() == "0") {
        let _ = std::fs::write(OWN, LAST);
    }
}

/// It has every secret, and a core of it would have them as well. Below the least core of a file, and
/// the one bound at which the kernel asks no collector of cores either.
fn never_dumped() -> anyhow::Result<()> {
    const LEAST: u64 = 1;
    nix::sys::resource::setrlimit(Resource::RLIMIT_CORE, LEAST, LEAST)
        .context("cores of this process cannot be forbidden")
}

pub struct Programs {
    pub worker: PathBuf,
    compile: PathBuf,
}

impl Programs {
    pub fn beside_this() -> anyhow::Result<Self> {
        let this = std::env::current_exe()?;
        let beside = |name: &str| -> anyhow::Result<PathBuf> {
            let program = this.with_file_name(name);
            if !program.is_file() {
                bail!("{name} must lie beside hearth, and does not");
            }
            Ok(program)
        };
        Ok(Self { worker: beside("hearth-worker")?, compile: beside("hearth-compile")? })
    }
}

/// The descriptor under a handle of our own, closed on exec, so that no child holds it open.
fn take_ready_fd(fd: i32) -> anyhow::Result<File> {
    let file = File::options().write(true).open(format!("/proc/self/fd/{fd}"));
    let file = file.with_context(|| format!("--ready-fd {fd} is not an open descriptor"))?;
    nix::unistd::close(fd)?;
    Ok(file)
}

/// From the first signal that is heard to the last. A stop that comes while the host starts ends it
/// there: what a start has made by then, the next one takes up.
async fn run(
    config: Config,
    secrets: Secrets,
    programs: Programs,
    shares: Shares,
    spawned: Born,
    telemetry: Telemetry,
    ready: Option<File>,
) -> anyhow::Result<()> {
    let mut signals = Signals::listen(config.notify_socket.is_none())?;
    let (shows, mut is_asked) = (AtomicBool::new(false), false);
    let parts = (programs, shares, spawned, telemetry);
    let mut starting = pin!(start(&config, secrets, parts, ready, &shows));
    let started = loop {
        tokio::select! {
            biased;
            started = &mut starting => break started?,
            () = signals.stop(), if !is_asked => is_asked = true,
        }
        if !shows.load(Ordering::Relaxed) {
            info!("stopped before it served");
            tell_systemd(&config, "STOPPING=1");
            return Ok(());
        }
    };
    let Started { running, watching, keeper } = started;
    if !is_asked {
        signals.stop().await;
    }
    tell_systemd(&config, "STOPPING=1");
    drain::drain(running, &mut signals).await;
    watching.abort();
    keeper.abort();
    Ok(())
}

type Parts = (Programs, Shares, Born, Telemetry);
/// What was started before there was a second thread.
type Born = (Spawned, Result<Cgroups, String>, Arc<Notes>);

/// A host that serves.
struct Started {
    running: Running,
    watching: JoinHandle<io::Result<()>>,
    keeper: JoinHandle<()>,
}

/// Tells how many attempts there were.
async fn try_walls(keeper: &Keeper, uid: Option<u32>, birth: Birth) -> anyhow::Result<u32> {
    let (attempts, escapes) = keeper.try_walls(uid, birth).await?;
    if !escapes.is_empty() {
        bail!("the walls around workers do not hold: {}", escapes.join(", "));
    }
    Ok(attempts)
}

/// From when on it `shows` what is shown once, it comes to its end.
async fn start(
    config: &Config,
    secrets: Secrets,
    (programs, shares, spawned, telemetry): Parts,
    ready: Option<File>,
    shows: &AtomicBool,
) -> anyhow::Result<Started> {
    let (zygote, cgroups, notes) = spawned;
    // Before anything is made.
    let listener = TcpListener::bind(config.front.listen)
        .await
        .with_context(|| format!("--listen {} cannot be bound", config.front.listen))?;
    sockets::bound_unread(&listener)?;
    let listen = listener.local_addr()?;
    let store = Store::open(&config.host.data)?;
    let (zygote, mut keeper, greeting) = Zygote::greet(&programs.worker, zygote, notes).await?;
    let found = cgroups.as_ref().map(|cgroups| cgroups.kind().as_str()).map_err(Clone::clone);
    let isolation = Isolation::new(greeting.walls, found, &config.tenants.uids);
    let uids = isolation.uids.is_ok().then(|| config.tenants.uids.clone());
    let compilers = uids.as_ref().map(|uids| *uids.start());
    isolation.refuse_below(config.host.isolation)?;
    let attempts = try_walls(&keeper, compilers, Birth::Forked).await?;
    info!(level = %isolation.level(), attempts, "the walls around workers hold");
    // Where they cannot be had, each makes its own, which costs the machine more.
    let namespaces = keeper.namespaces().unwrap_or_default();
    metrics::gauge!("hearth_isolation", "level" => isolation.level().as_str()).set(1);
    if !greeting.pagemap_scan {
        warn!("the kernel has no PAGEMAP_SCAN (Linux 6.7): a call costs about 30 µs more");
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let compiler = Compiler::new(
        programs.compile,
        greeting.engines,
        compilers,
        namespaces,
        cores,
        isolation.level(),
    );
    let trees = Trees::new(&programs.worker);
    let (data, has_uids) = (&config.host.data, uids.is_some());
    let reserve = config.uploads.disk_reserve_mb << 20;
    let generations =
        Generations::open(data, store.clone(), compiler, trees.clone(), has_uids, reserve).await?;
    fail::moment(Point::StartBundle);
    #[cfg(debug_assertions)]
    let source = config.bundle.clone().map_or(Source::Embedded, Source::Directory);
    #[cfg(not(debug_assertions))]
    let source = Source::Embedded;
    let bundled = generations.assemble(source).await?;
    keeper.bundle(Bundled { spares: config.spares, ..bundled }).await?;
    // Those that were forked before they are needed have what comes with this build.
    let attempts = try_walls(&keeper, compilers, Birth::Spare).await?;
    info!(attempts, "the walls around spare children hold");
    let keeper = tokio::spawn(keeper.run());

    let logs = Logs::open(&config.host.data, shares.journals)?;
    let sockets = Arc::new(Sockets::new()?);
    let (to_turn, turned) = mpsc::channel(UNANSWERED);
    let (to_open, opened) = mpsc::channel(UNANSWERED);
    let names = Arc::new(Names::new(config.front.domain.clone(), config.front.names.clone()));
    let key = KeyFile::new(&config.host.data, config.host.secrets_key.as_deref());
    let settings = Settings::open(store.clone(), key).await?;
    let fleet = Fleet::new(Shared {
        sockets: sockets.clone(),
        zygote,
        generations: generations.clone(),
        settings: settings.clone(),
        logs: logs.clone(),
        turned: to_turn,
        uplinks: to_open,
        starts: Arc::new(Semaphore::new((2 * cores).max(4))),
        tenant_bind: config.tenants.bind,
        front: listen,
        names: names.clone(),
        parking_room: Arc::new(Semaphore::new(shares.parked)),
        links: shares.links,
        idle_links: Arc::new(Semaphore::new(shares.idle_links)),
        idle: config.tenants.idle,
        trusted_proxies: config.front.trusted_proxies.iter().map(ToString::to_string).collect(),
        trusted_headers: config.front.trusted_headers.iter().map(ToString::to_string).collect(),
        isolation: isolation.level(),
        has_uids,
        cgroups: cgroups.ok(),
    });
    let watching = tokio::spawn(async move { sockets.run().await });
    let intake = config.uploads.intake();
    let uploads =
        Uploads::new(store.clone(), fleet.clone(), generations.clone(), settings.clone(), intake);
    let tenants_at = Addresses {
        bind: config.tenants.bind,
        ports: config.tenants.ports.clone(),
        rest: config.tenants.rest,
    };
    let provision = Provision::new(
        store.clone(),
        fleet.clone(),
        generations.clone(),
        settings.clone(),
        logs.clone(),
        tenants_at,
        uids.map(|uids| uids.start() + 1..=*uids.end()),
    );

    // Before anybody can be given what an old one's files belong to.
    generations.forget_strangers(&provision.tenants().await?).await?;
    provision.settle_ports().await?;
    match provision.settle().await {
        // Those that have one are served, and the others told.
        Err(error @ ProvisionError::NoUid(_)) => {
            error!(error = &error as &dyn std::error::Error, "tenants without a uid");
        }
        settled => settled?,
    }
    let mut tenants = provision.tenants().await?;
    fail::moment(Point::StartAdopt);
    for (tenant, error) in generations.settle_all(&tenants).await {
        error!(%tenant, error = &error as &dyn std::error::Error, "this tenant is not served");
    }
    let mut adopted = Vec::new();
    for tenant in &tenants {
        let grants = store.grants(tenant.id).await?;
        let had = fleet.adopt(tenant.clone(), grants);
        adopted.push(async move { (tenant.id, had.await) });
    }
    let had: HashMap<TenantId, bool> = join_all(adopted).await.into_iter().collect();
    fail::moment(Point::StartFirst);
    if tenants.is_empty() && !store.has_admin_token().await? {
        let name = FIRST_TENANT.parse().expect("it is a tenant's name");
        let (first, _) = provision.create(name, &Author::host()).await?;
        tenants.push(first);
    }
    fail::moment(Point::StartAdmin);
    // Last, since one that is made is shown once: a start that ends before that makes none.
    shows.store(true, Ordering::Relaxed);
    let admin_token = admin_token(&store, secrets).await?;
    if store.has_unmarked_admin_token() {
        warn!(
            "an admin's token was chosen that does not begin with `{TOKEN_PREFIX}`: at a tenant's \
             own port nobody can tell it from a credential of the caller's own, so a public function \
             sees it where somebody sends it there; and the front door gives no connection to a \
             worker, but proxies them all. Choose one that begins so"
        );
    }

    let stop = CancellationToken::new();
    let (networks, headers) =
        (config.front.trusted_proxies.clone(), config.front.trusted_headers.clone());
    let trusted = Trusted { networks, headers };
    let calls = Calls::new(fleet.clone(), stop.clone());
    let gateway = Gateway::new(
        fleet.clone(),
        calls.clone(),
        store.clone(),
        names,
        trusted,
        config.front.handover,
    );
    let platform = api::router(Api {
        store: store.clone(),
        fleet: fleet.clone(),
        uploads: uploads.clone(),
        calls,
        generations: generations.clone(),
        provision: provision.clone(),
        settings,
        logs: logs.clone(),
        telemetry: telemetry.clone(),
        backups: Backups::new(
            store.clone(),
            generations.clone(),
            trees,
            isolation.level(),
            stop.clone(),
        ),
        stop: stop.clone(),
    });
    let requests = UploadRequests { store: store.clone(), uploads: uploads.clone() };
    let services = Services { uploads: requests.clone() };
    let front =
        Front { platform, gateway, uploads: requests, store: store.clone(), stop: stop.clone() };
    let bounds = Bounds::new(&shares, config.front.connections_per_address);
    let (close_front, close_rest) = (CancellationToken::new(), CancellationToken::new());
    let turned = tokio::spawn(front.clone().receive(turned, bounds, close_rest.clone()));
    let uplinks = tokio::spawn(services.run(opened, close_rest.clone()));
    let upkeep = upkeep::run(
        store.clone(),
        uploads,
        provision.clone(),
        generations.clone(),
        fleet.clone(),
        telemetry,
        stop.clone(),
    );
    let quota = quota::run(store.clone(), generations.clone(), fleet.clone(), stop.clone());
    let upkeep = tokio::spawn(async {
        tokio::join!(upkeep, quota);
    });
    let front = tokio::spawn(front.run(listener, bounds, close_front.clone()));

    fail::moment(Point::StartReady);
    // Those whose ports are their own first: what is at another's is somebody else's to answer.
    tenants.sort_by_key(|tenant| had.get(&tenant.id) == Some(&false));
    let without_port = had.values().filter(|had| !**had).count();
    let first = tenants.first().filter(|_| tenants.len() > without_port);
    let trial = trial(&store, &generations, &provision, first).await;
    tell_ready(ready, config, listen)?;
    let here = Here { count: tenants.len(), without_port, first, trial };
    greet(&provision, &here, listen, &admin_token, &isolation);
    let running = Running {
        stop,
        close_front,
        front,
        upkeep,
        close_rest,
        turned,
        uplinks,
        fleet,
        logs,
        store,
    };
    Ok(Started { running, watching, keeper })
}

/// The tenants that a start found or made.
struct Here<'a> {
    count: usize,
    /// Whose ports other programs have.
    without_port: usize,
    /// Of those that have theirs.
    first: Option<&'a Tenant>,
    trial: String,
}

impl Here<'_> {
    fn told(&self, provision: &Provision) -> String {
        let Self { count, without_port, first, trial } = self;
        let mut told = match (count, first) {
            (0, _) => return "  next       hearth tenant add NAME".to_owned(),
            (count, None) => format!("  tenants    {count}"),
            (count, Some(first)) => {
                let (name, at) = (&first.name, provision.url(first));
                format!("  tenants    {count}; the first is {name}, at {at}{trial}")
            }
        };
        if *without_port > 0 {
            told += &format!(
                "\n  no port    {without_port} of them, which are not served: other programs have \
                 their ports, which hearth worker list shows"
            );
        }
        told
    }
}

/// How the operator signs in.
enum AdminToken {
    /// The first start: shown once, kept hashed.
    Made(String),
    /// The first start, and the operator brought it.
    Brought,
    /// There is one from before.
    Known,
}

async fn admin_token(store: &Store, secrets: Secrets) -> anyhow::Result<AdminToken> {
    let known = store.has_admin_token().await?;
    match secrets.admin_token {
        Some(token) => {
            store.adopt_admin_token(&token).await?;
            Ok(if known { AdminToken::Known } else { AdminToken::Brought })
        }
        None if known => Ok(AdminToken::Known),
        None => {
            let scope = hearth_wire::Scope::Admin;
            let (name, by) = ("admin".to_owned(), Author::host());
            let (_, token) = store.create_token(None, name, scope, None, by).await?;
            Ok(AdminToken::Made(token))
        }
    }
}

fn tell_ready(ready: Option<File>, config: &Config, listen: SocketAddr) -> anyhow::Result<()> {
    if let Some(mut ready) = ready {
        let line = serde_json::json!({ "listen": listen.to_string(), "pid": std::process::id() });
        writeln!(ready, "{line}").context("--ready-fd cannot be written to")?;
    }
    tell_systemd(config, "READY=1");
    Ok(())
}

/// sd_notify(3): a datagram. Nobody listening is no error.
fn tell_systemd(config: &Config, state: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    let Some(path) = &config.notify_socket else { return };
    let address = match path.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => std::os::unix::net::SocketAddr::from_abstract_name(name),
        None => std::os::unix::net::SocketAddr::from_pathname(path),
    };
    let told = UnixDatagram::unbound().and_then(|s| s.send_to_addr(state.as_bytes(), &address?));
    if let Err(error) = told {
        warn!(error = &error as &dyn std::error::Error, "systemd could not be notified");
    }
}

/// A call to try, of the function that a new tenant has, where it is still that.
async fn trial(
    store: &Store,
    generations: &Generations,
    provision: &Provision,
    first: Option<&Tenant>,
) -> String {
    let Some(first) = first else { return String::new() };
    let own = store.own_functions(first.id).await.unwrap_or_default();
    let is_there = generations.bundle().beneath(&own).iter().any(|function| {
        let is_hello = function.path.as_str() == FIRST_FUNCTION && function.is_bundled();
        is_hello && function.options().resolve().auth == Auth::Public
    });
    if !is_there {
        return String::new();
    }
    let at = provision.url(first);
    format!("\n  try        curl -d '{{\"name\":\"Ada\"}}' {at}{FIRST_FUNCTION}")
}

/// What a person sees on standard output once the host serves.
fn greet(
    provision: &Provision,
    here: &Here<'_>,
    listen: SocketAddr,
    token: &AdminToken,
    isolation: &Isolation,
) {
    let url = format!("http://{listen}");
    let sign_in = match token {
        AdminToken::Made(token) => format!(
            "with the admin's token, shown this once and kept as a digest:\n    \
             export HEARTH_URL={url}\n    \
             export HEARTH_TOKEN={token}"
        ),
        AdminToken::Brought | AdminToken::Known => {
            format!("hearth login --url {url}   (with the admin's token)")
        }
    };
    let next = here.told(provision);
    let level = isolation.level();
    let mut walls = format!("  isolation  {level}: {}", level.meaning());
    for Wall { name, state } in isolation.table() {
        if let State::Missing { why, fix, .. } = state {
            walls += &format!("\n             no {name}: {why}\n               → {fix}");
        }
    }
    if let Some(width) = terminal::output_width() {
        walls = terminal::help(&walls, Some(width));
    }
    let told = format!(
        "Hearth {} serves at {url}\n  \
         API        {url}/api/docs\n\
         {walls}\n  \
         sign in    {sign_in}\n{next}\n",
        env!("CARGO_PKG_VERSION"),
    );
    // Nobody may be reading, and the host serves all the same.
    let _ = io::stdout().write_all(told.as_bytes());
}
