use super::*;
use crate::generations::pins::Pins;
use crate::generations::room::Rooms;
use crate::store::TenantId;

const MOST: u64 = limits::MODULE_MAX_BYTES;

fn modules() -> (tempfile::TempDir, Modules) {
    let dir = tempfile::tempdir().unwrap();
    let (kept, tmp) = (dir.path().join("modules"), dir.path().join("tmp"));
    fs::create_dir(&kept).unwrap();
    fs::create_dir(&tmp).unwrap();
    (dir, Modules::new(kept, tmp))
}

/// As the host takes its own in.
fn packed(modules: &Modules, bytes: &[u8]) -> Arrived {
    modules.ingest(&zstd::encode_all(bytes, 3).unwrap()[..], MOST).unwrap()
}

/// As it comes with an upload, of a tenant that may have so many bytes.
fn uploaded(
    modules: &Modules,
    packing: Packing,
    bytes: &[u8],
    quota: u64,
) -> Result<Arrived, IngestError> {
    let room = Rooms::new(modules.tmp.clone(), 0).enter(TenantId(1), quota);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let spooled = runtime.block_on(async {
        let mut spool = modules.spool(&room)?;
        for chunk in bytes.chunks(10_000) {
            spool.write(chunk).await?;
        }
        spool.finish().await
    });
    modules.take_in(packing, spooled?, MOST, &room)
}

fn files(modules: &Modules) -> usize {
    let count = |dir: &Path| fs::read_dir(dir).unwrap().count();
    count(&modules.dir) + count(&modules.tmp)
}

#[test]
fn plain_and_packed_are_one_module() {
    let (_dir, modules) = modules();
    let bytes = b"some module".repeat(10_000);
    let plain = uploaded(&modules, Packing::Plain, &bytes, MOST).unwrap();
    let packed = zstd::encode_all(&bytes[..], 19).unwrap();
    let packed = uploaded(&modules, Packing::Zstd, &packed, MOST).unwrap();
    assert_eq!((plain.sha256, plain.size), (packed.sha256, packed.size));
    assert_eq!(plain.size, bytes.len() as u64);
    let sha256 = plain.sha256;
    modules.keep(plain).unwrap();
    modules.keep(packed).unwrap();
    assert_eq!(files(&modules), 1);
    let mut unpacked = Vec::new();
    modules.unpack(sha256).unwrap().read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, bytes);
}

#[test]
fn what_is_refused_leaves_nothing() {
    let (_dir, modules) = modules();
    let bomb = zstd::encode_all(io::repeat(0).take(limits::MODULE_MAX_BYTES + 1), 1).unwrap();
    assert!(matches!(
        uploaded(&modules, Packing::Zstd, &bomb, u64::MAX),
        Err(IngestError::TooDense)
    ));
    assert!(matches!(modules.ingest(&bomb[..], MOST), Err(IngestError::TooLarge(MOST))));
    for packing in [Packing::Plain, Packing::Zstd] {
        let bytes = b"plain".repeat(100);
        let refused = uploaded(&modules, packing, &bytes, bytes.len() as u64 - 1);
        assert!(matches!(refused, Err(IngestError::NoRoom(NoRoom::Quota { .. }))));
    }
    assert!(matches!(uploaded(&modules, Packing::Zstd, b"plain", MOST), Err(IngestError::NotZstd)));
    assert!(matches!(uploaded(&modules, Packing::Plain, b"", MOST), Err(IngestError::Empty)));
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    assert!(matches!(modules.ingest(Broken, MOST), Err(IngestError::Disk(_))));
    assert_eq!(files(&modules), 0);
}

/// Raw, packed and as it was sent: each counts while it is there.
#[test]
fn what_a_file_unpacks_into_needs_room() {
    let (_dir, modules) = modules();
    let module = b"some module, and another one".repeat(10_000);
    let sent = zstd::encode_all(&module[..], 19).unwrap();
    assert!(sent.len() * 50 < module.len(), "it is small as it is sent");
    let quota = (module.len() + sent.len()) as u64;
    let refused = uploaded(&modules, Packing::Zstd, &sent, quota);
    assert!(matches!(refused, Err(IngestError::NoRoom(NoRoom::Quota { .. }))));
    assert_eq!(files(&modules), 0);
    uploaded(&modules, Packing::Zstd, &sent, quota + (64 << 10)).unwrap();
}

#[test]
fn a_window_above_the_bound_is_refused() {
    let (_dir, modules) = modules();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(limits::ZSTD_WINDOW_LOG_MAX + 1).unwrap();
    encoder.write_all(&vec![7; 20 << 20]).unwrap();
    let frame = encoder.finish().unwrap();
    let refused = uploaded(&modules, Packing::Zstd, &frame, MOST);
    assert!(matches!(refused, Err(IngestError::NotZstd)));
}

#[test]
fn damage_is_noticed() {
    let (_dir, modules) = modules();
    let kept = packed(&modules, b"one");
    let other = zstd::encode_all(&b"two"[..], 1).unwrap();
    let (sha256, path) = (kept.sha256, modules.path(kept.sha256));
    modules.keep(kept).unwrap();
    for damage in [&other[..], &b"rubbish"[..], &b""[..]] {
        fs::write(&path, damage).unwrap();
        assert_eq!(modules.unpack(sha256).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

#[test]
fn row_15_what_is_no_file_is_a_damaged_module_which_an_upload_mends() {
    let (_dir, modules) = modules();
    let ingest = || packed(&modules, b"one");
    let (sha256, elsewhere) = (ingest().sha256, modules.tmp.join("elsewhere"));
    let path = modules.path(sha256);
    fs::write(&elsewhere, "precious").unwrap();
    let plant: [fn(&Path, &Path); 4] = [
        |path, _| fs::create_dir_all(path.join("deep")).unwrap(),
        |path, _| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        |path, to| std::os::unix::fs::symlink(to, path).unwrap(),
        |path, to| fs::hard_link(to, path).unwrap(),
    ];
    for plant in plant {
        let _ = fs::remove_file(&path);
        plant(&path, &elsewhere);
        assert_eq!(modules.look(sha256).unwrap(), Condition::Damaged);
        assert!(modules.unpack(sha256).is_err());
        assert_eq!(modules.keep(ingest()).unwrap(), Kept::Mended);
        assert_eq!(modules.look(sha256).unwrap(), Condition::Whole);
        assert_eq!(fs::read(&elsewhere).unwrap(), b"precious");
    }
    fs::remove_file(&path).unwrap();
    plant[0](&path, &elsewhere);
    plant[1](&modules.dir.join("pipe"), &elsewhere);
    let pins = Pins::default();
    assert_eq!(modules.sweep(&HashSet::new(), &pins.sweep()).unwrap(), 2);
}

#[test]
fn a_sweep_takes_what_nothing_names() {
    let (_dir, modules) = modules();
    let one = packed(&modules, b"one");
    let two = packed(&modules, b"two");
    let (named, unnamed) = (HashSet::from([one.sha256]), two.sha256);
    modules.keep(one).unwrap();
    modules.keep(two).unwrap();
    let pins = Pins::default();
    let pin = pins.pin(unnamed);
    assert_eq!(modules.sweep(&named, &pins.sweep()).unwrap(), 0, "it is on its way");
    drop(pin);
    assert_eq!(modules.sweep(&named, &pins.sweep()).unwrap(), 1);
    assert_eq!(modules.sweep(&named, &pins.sweep()).unwrap(), 0);
    assert_eq!(files(&modules), 1);
}
