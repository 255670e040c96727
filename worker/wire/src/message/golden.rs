//! The bytes of one of each variant of every message, beside this in `golden.txt` under the version
//! that they are of: whoever changes one raises [`VERSION`].

use std::fmt::{Debug, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;
use crate::setting::SettingKind;
use crate::token::{Scope, TokenDigest};
use crate::tree::{Databases, TreeDone, TreeJob, TreeReply, TreeRequest, Unsound};

/// Writes one of each variant, and does not compile where one is missing.
macro_rules! each {
    ($golden:ident, $type:ident { $($variant:pat => $example:expr,)+ }) => {
        let named = |message: &$type| match message {
            $($variant => stringify!($variant),)+
        };
        $(
            let example: $type = $example;
            assert_eq!(named(&example), stringify!($variant));
            $golden.row(stringify!($type), &example);
        )+
    };
}

struct Golden(String);

impl Golden {
    fn row<T: Serialize + DeserializeOwned + Debug + PartialEq>(&mut self, of: &str, message: &T) {
        let bytes = postcard::to_allocvec(message).unwrap();
        assert_eq!(&postcard::from_bytes::<T>(&bytes).unwrap(), message);
        let said = format!("{message:?}");
        let variant: String = said.chars().take_while(char::is_ascii_alphanumeric).collect();
        write!(self.0, "{of} {variant} ").unwrap();
        for byte in bytes {
            write!(self.0, "{byte:02x}").unwrap();
        }
        self.0.push('\n');
    }
}

fn moment(nanoseconds: u8) -> Moment {
    postcard::from_bytes(&[nanoseconds]).unwrap()
}

fn zygote(golden: &mut Golden) {
    let sha256 = ModuleDigest::new([7; 32]);
    let engine = Fingerprint::new([9; 8]);
    let cell = Cell { uid: Some(7), data_bytes: Some(300) };
    let given = vec![Given::Control, Given::Cgroup];
    each!(golden, Given {
        Given::Control => Given::Control,
        Given::Listener => Given::Listener,
        Given::Release => Given::Release,
        Given::Errors => Given::Errors,
        Given::State => Given::State,
        Given::Cgroup => Given::Cgroup,
    });
    each!(golden, ToZygote {
        ToZygote::Hello { .. } => ToZygote::Hello { version: VERSION },
        ToZygote::Bundle { .. } => ToZygote::Bundle { modules: vec![(sha256, engine)], spares: 4 },
        ToZygote::Fork { .. } => ToZygote::Fork { ticket: 300, cell, given: given.clone() },
        ToZygote::Try { .. } => ToZygote::Try { uid: Some(7), birth: Birth::Spare },
        ToZygote::AreYouAlive => ToZygote::AreYouAlive,
    });
    let namespaces = Err("why".to_owned());
    let walls = Walls { namespaces, uids: true, landlock: Some(6) };
    let engines = vec![engine];
    let status = ExitStatus::Code(3);
    each!(golden, FromZygote {
        FromZygote::Hello { .. } =>
            FromZygote::Hello { version: VERSION, engines, pagemap_scan: true, walls },
        FromZygote::Tried { .. } =>
            FromZygote::Tried { attempts: 2, escapes: vec!["one".to_owned()] },
        FromZygote::Bundled { .. } =>
            FromZygote::Bundled { failed: vec![(sha256, "why".to_owned())] },
        FromZygote::Forked { .. } => FromZygote::Forked { ticket: 300, pid: 301 },
        FromZygote::ForkFailed { .. } =>
            FromZygote::ForkFailed { ticket: 300, reason: "why".to_owned() },
        FromZygote::Exited { .. } => FromZygote::Exited { pid: 301, status },
        FromZygote::Alive => FromZygote::Alive,
    });
    each!(golden, Birth {
        Birth::Forked => Birth::Forked,
        Birth::Spare => Birth::Spare,
    });
    each!(golden, ToSpare {
        ToSpare::Serve { .. } => ToSpare::Serve { cell, given },
        ToSpare::Try { .. } => ToSpare::Try { attempt: 3, cell },
    });
    each!(golden, FromSpare {
        FromSpare::Warm => FromSpare::Warm,
        FromSpare::Unfit { .. } => FromSpare::Unfit { reason: "why".to_owned() },
        FromSpare::Taken => FromSpare::Taken,
    });
    each!(golden, ExitStatus {
        ExitStatus::Code(_) => ExitStatus::Code(3),
        ExitStatus::Signal(_) => ExitStatus::Signal(9),
    });
}

fn worker(golden: &mut Golden) {
    let passing = Passing { unread: b"GET".to_vec(), since: moment(9), entry: Entry::Front };
    let grant = TokenGrant {
        digest: TokenDigest::new([7; 32]),
        scope: Scope::Invoke,
        name: "ci".to_owned(),
        expires_at: Some(300),
    };
    let start = Start {
        version: VERSION,
        tenant: "demo".parse().unwrap(),
        generation: GenerationNumber(300),
        serves: Serves::State,
        idle: Duration::new(60, 5),
        woken_at: Some(moment(9)),
        trusted_proxies: vec!["10.0.0.0/8".to_owned()],
        trusted_headers: vec!["x-forwarded-for".to_owned()],
        domain: Some("a.example".to_owned()),
        settings: 2,
        state_bytes: 301,
    };
    let setting =
        |kind| Setting { name: "key".parse().unwrap(), value: "value".to_owned().into(), kind };
    let settings = [SettingKind::Config, SettingKind::Secret].map(setting).to_vec();
    let respite = Respite { since: moment(9), within: Duration::new(30, 5) };
    each!(golden, ToWorker {
        ToWorker::Start(_) => ToWorker::Start(start),
        ToWorker::Settings(_) => ToWorker::Settings(settings),
        ToWorker::Told { .. } => ToWorker::Told { serial: 300, what: What::Tokens(vec![grant]) },
        ToWorker::Accept => ToWorker::Accept,
        ToWorker::Quiesce => ToWorker::Quiesce,
        ToWorker::Close => ToWorker::Close,
        ToWorker::Leave => ToWorker::Leave,
        ToWorker::Pass(_) => ToWorker::Pass(vec![passing.clone()]),
        ToWorker::Passed => ToWorker::Passed,
        ToWorker::Link(_) => ToWorker::Link(Origin::Api),
        ToWorker::Uplink { .. } => ToWorker::Uplink { kind: Kind::Upload },
        ToWorker::AreYouAlive => ToWorker::AreYouAlive,
        ToWorker::Finish(_) => ToWorker::Finish(respite),
        ToWorker::Report { .. } => ToWorker::Report { serial: 300 },
    });
    each!(golden, What {
        What::Tokens(_) => What::Tokens(vec![]),
    });
    let function: FunctionPath = "/a".parse().unwrap();
    let line = LogLine {
        time_ms: -1,
        function: function.clone(),
        version: 2.into(),
        request_id: "r".to_owned(),
        stream: LogStream::Stderr,
        level: Some(LogLevel::Warn),
        text: "text".to_owned(),
    };
    let call = CallRecord {
        time_ms: -1,
        function,
        version: FunctionVersion::Bundled("0.1.0".to_owned().try_into().unwrap()),
        origin: Origin::Trigger,
        request_id: "r".to_owned(),
        method: "GET".to_owned(),
        status: 499,
        outcome: Outcome::Abandoned,
        duration_us: 300,
        request_bytes: 1,
        response_bytes: 2,
        cold_us: Some(3),
    };
    let report =
        Report { lines: vec![line], calls: vec![call], lines_dropped: 300, calls_dropped: 301 };
    each!(golden, FromWorker {
        FromWorker::Ready { .. } =>
            FromWorker::Ready { version: VERSION, load_us: 300, walls_us: 301 },
        FromWorker::Refused { .. } => FromWorker::Refused { reason: "why".to_owned() },
        FromWorker::Accepting => FromWorker::Accepting,
        FromWorker::Quiesced => FromWorker::Quiesced,
        FromWorker::Leaving => FromWorker::Leaving,
        FromWorker::Applied { .. } =>
            FromWorker::Applied { serial: 300, what: Subject::Tokens },
        FromWorker::WantUplink { .. } => FromWorker::WantUplink { kind: Kind::Upload },
        FromWorker::Pass(_) => FromWorker::Pass(vec![passing]),
        FromWorker::Passed => FromWorker::Passed,
        FromWorker::Report(_) => FromWorker::Report(report),
        FromWorker::Alive => FromWorker::Alive,
        FromWorker::Forbidden { .. } => FromWorker::Forbidden { call: 300 },
        FromWorker::CallsDone => FromWorker::CallsDone,
        FromWorker::Reported { .. } => FromWorker::Reported { serial: 300 },
    });
}

/// What stands in messages and is a word of its own.
fn words(golden: &mut Golden) {
    each!(golden, Serves {
        Serves::Functions => Serves::Functions,
        Serves::State => Serves::State,
    });
    each!(golden, LogLevel {
        LogLevel::Trace => LogLevel::Trace,
        LogLevel::Debug => LogLevel::Debug,
        LogLevel::Info => LogLevel::Info,
        LogLevel::Warn => LogLevel::Warn,
        LogLevel::Error => LogLevel::Error,
        LogLevel::Critical => LogLevel::Critical,
    });
    each!(golden, Entry {
        Entry::Port => Entry::Port,
        Entry::Front => Entry::Front,
    });
    each!(golden, LogStream {
        LogStream::Stdout => LogStream::Stdout,
        LogStream::Stderr => LogStream::Stderr,
        LogStream::Host => LogStream::Host,
    });
    each!(golden, HandlerKind {
        HandlerKind::IncomingHandler => HandlerKind::IncomingHandler,
        HandlerKind::Handler => HandlerKind::Handler,
    });
    each!(golden, SettingKind {
        SettingKind::Config => SettingKind::Config,
        SettingKind::Secret => SettingKind::Secret,
    });
    Origin::ALL.iter().for_each(|origin| golden.row("Origin", origin));
    Outcome::ALL.iter().for_each(|outcome| golden.row("Outcome", outcome));
    Subject::ALL.iter().for_each(|subject| golden.row("Subject", subject));
    Kind::ALL.iter().for_each(|kind| golden.row("Kind", kind));
    Scope::ALL.iter().for_each(|scope| golden.row("Scope", scope));
}

fn compiler(golden: &mut Golden) {
    let engine = Fingerprint::new([9; 8]);
    let job = CompileJob::Check { engine };
    each!(golden, CompileJob {
        CompileJob::Compile => CompileJob::Compile,
        CompileJob::Check { .. } => job,
    });
    let engines = vec![engine];
    golden.row("CompileRequest", &CompileRequest { version: VERSION, engines, job, uid: Some(7) });
    let diagnosis = Diagnosis { detail: "why".to_owned(), imports: vec!["a:b/c".to_owned()] };
    let kind = HandlerKind::Handler;
    let imports = vec!["a:b/c".to_owned(), "a:b/d".to_owned()];
    let unavailable = vec!["a:b/d".to_owned()];
    each!(golden, CompileReply {
        CompileReply::Compiled { .. } =>
            CompileReply::Compiled { engine, kind, imports, unavailable, artifact_bytes: 300 },
        CompileReply::Checked => CompileReply::Checked,
        CompileReply::Refused(_) => CompileReply::Refused(diagnosis),
        CompileReply::Failed { .. } => CompileReply::Failed { reason: "why".to_owned() },
        CompileReply::Forbidden { .. } => CompileReply::Forbidden { call: 300 },
        CompileReply::Full => CompileReply::Full,
    });
}

fn tree(golden: &mut Golden) {
    let name = Some("logs/a".parse().unwrap());
    each!(golden, TreeJob {
        TreeJob::Pack { .. } => TreeJob::Pack { name, databases: Databases::Files },
        TreeJob::Unpack => TreeJob::Unpack,
        TreeJob::Remove => TreeJob::Remove,
        TreeJob::Measure => TreeJob::Measure,
    });
    each!(golden, Databases {
        Databases::Files => Databases::Files,
        Databases::Copied { .. } => Databases::Copied { most_bytes: 300 },
    });
    let databases = Databases::Files;
    let job = TreeJob::Pack { name: None, databases };
    golden.row("TreeRequest", &TreeRequest { version: VERSION, uid: Some(7), job });
    let unsound = Unsound { name: "kv.db".to_owned(), reason: "why".to_owned() };
    let done = TreeDone { files: 300, bytes: 301, left_out: 302, unsound: vec![unsound] };
    each!(golden, TreeReply {
        TreeReply::Done(_) => TreeReply::Done(done),
        TreeReply::Failed { .. } => TreeReply::Failed { reason: "why".to_owned() },
    });
}

#[test]
fn a_message_changes_with_the_version_alone() {
    let mut golden = Golden(format!("version {VERSION}\n"));
    zygote(&mut golden);
    worker(&mut golden);
    words(&mut golden);
    compiler(&mut golden);
    tree(&mut golden);
    let kept = include_str!("golden.txt");
    if golden.0 == kept {
        return;
    }
    let changed: Vec<_> =
        golden.0.lines().filter(|line| !kept.lines().any(|it| it == *line)).collect();
    let changed = changed.join("\n");
    assert!(
        kept.lines().next() != Some(&format!("version {VERSION}")),
        "messages are not what they were; raise VERSION:\n{changed}"
    );
    // Where it can be compared, and taken from.
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/golden.txt");
    std::fs::write(&beside, golden.0).unwrap();
    panic!("golden.txt is of another version; take {}:\n{changed}", beside.display());
}
