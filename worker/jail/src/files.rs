//! The files of a worker's state: everything is opened, looked at and removed by a plain name beneath
//! one directory, whose descriptor has a number of its own. There is no other way to a file behind the
//! seal, and none by a path at all: in a worker's empty root no path leads anywhere.
//!
//! SQLite keeps its own VFS for that. [`confine`] replaces the calls by which that one comes to files;
//! what it does with an open one is as it always was. Which databases there are, and who may do what
//! to them, is the worker's to say.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Mutex;

use nix::libc::{self, c_char, c_int, c_void};
use rusqlite::ffi;

/// The number of a worker's state directory after its birth, for the process's life: a place, which
/// was not opened for reading. Of a worker that has none it leads nowhere.
pub const STATE: RawFd = 3;

/// How every file of the state is opened, whatever else is asked for.
const ALWAYS: c_int = libc::O_NOFOLLOW | libc::O_CLOEXEC;
/// What may be asked for besides.
const ASKED: c_int = libc::O_ACCMODE | libc::O_CREAT | libc::O_EXCL;
const PRIVATE: libc::mode_t = 0o600;
/// SQLite's own, which these files keep under another name and with other randomness.
const ORIGINAL: &CStr = c"unix";
const CONFINED: &CStr = c"hearth";

#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    #[error("SQLite could not be started (code {0})")]
    Start(c_int),
    #[error("SQLite has no VFS for files of this system")]
    NoVfs,
    #[error("SQLite does not let its call `{0}` be replaced")]
    Call(&'static str),
}

/// Has SQLite open, look at and remove everything beneath [`STATE`] by plain names, never through a
/// link, and draw its randomness from the kernel. Whatever it opens afterwards in this process is
/// there: never in a process that forks others, whose random numbers would be theirs too. Asked again
/// it changes nothing.
pub fn confine() -> Result<(), ConfineError> {
    static CONFINED_ALREADY: Mutex<bool> = Mutex::new(false);
    let mut confined = CONFINED_ALREADY.lock().unwrap_or_else(|poison| poison.into_inner());
    if *confined {
        return Ok(());
    }
    // SAFETY: initializing may be asked for at any time; the VFS that is found is static.
    let original = unsafe {
        match ffi::sqlite3_initialize() {
            ffi::SQLITE_OK => ffi::sqlite3_vfs_find(ORIGINAL.as_ptr()),
            code => return Err(ConfineError::Start(code)),
        }
    };
    if original.is_null() {
        return Err(ConfineError::NoVfs);
    }
    // SAFETY: it is not null, and SQLite's for ever.
    let mut own = unsafe { *original };
    let replace = own.xSetSystemCall.ok_or(ConfineError::NoVfs)?;
    for (name, call) in replacements() {
        let asked = CString::new(name).expect("a name has no zero");
        // SAFETY: each function has the signature that SQLite calls the one of that name by (its table
        // `aSyscall`), and nothing of SQLite's has opened a file yet: whoever does calls this first.
        if unsafe { replace(original, asked.as_ptr(), Some(call)) } != ffi::SQLITE_OK {
            return Err(ConfineError::Call(name));
        }
    }
    own.zName = CONFINED.as_ptr();
    own.xRandomness = Some(randomness);
    own.pNext = std::ptr::null_mut();
    // SAFETY: a copy of SQLite's own, which from here on lives for ever as that one does.
    let registered = unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(own)), 1) };
    if registered != ffi::SQLITE_OK {
        return Err(ConfineError::Start(registered));
    }
    *confined = true;
    Ok(())
}

/// Opens or makes a file of the state directory by its plain name.
pub fn open(name: &str) -> io::Result<File> {
    let name = CString::new(name)?;
    let descriptor = open_at(plain(&name)?, libc::O_RDWR | libc::O_CREAT);
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened, and is nobody else's.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

/// Removes a file of the state directory by its plain name.
pub fn remove(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    done(unlink_at(plain(&name)?))
}

/// How long a file of the state directory is, by its plain name; 0 where there is none. It is not
/// opened for that: to close it again would give up the locks that SQLite has of it.
pub fn bytes(name: &str) -> io::Result<u64> {
    let name = CString::new(name)?;
    let mut stat = nothing();
    match done(stat_at(plain(&name)?, &raw mut stat)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        found => found.map(|()| u64::try_from(stat.st_size).unwrap_or(0)),
    }
}

/// The same of one that is open. What the language's own way asks for is not had behind a seal.
pub fn bytes_of(file: &File) -> io::Result<u64> {
    let mut stat = nothing();
    // SAFETY: it has room for what is written there.
    done(unsafe { stat_of(file.as_raw_fd(), &raw mut stat) })?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

fn nothing() -> libc::stat {
    // SAFETY: plain data, for which zeroes are a value.
    unsafe { std::mem::zeroed() }
}

/// Waits, blocking, for the exclusive turn at that file. It ends with [`unlock`], or with the file.
pub fn lock(file: &File) -> io::Result<()> {
    loop {
        match turn(file, libc::F_WRLCK) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            locked => return locked,
        }
    }
}

/// Gives the turn up.
pub fn unlock(file: &File) -> io::Result<()> {
    turn(file, libc::F_UNLCK)
}

/// A lock of the open file and not of this process, so that closing another one leaves it.
fn turn(file: &File, kind: c_int) -> io::Result<()> {
    // SAFETY: plain data, for which zeroes are a value: the whole file, and no process's.
    let mut whole: libc::flock = unsafe { std::mem::zeroed() };
    whole.l_type = kind as _;
    whole.l_whence = libc::SEEK_SET as _;
    // SAFETY: the structure is this call's, and complete.
    done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLKW, &raw mut whole) })
}

fn done(returned: c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A name that leads nowhere but to a file in the directory itself. SQLite writes them as if the
/// directory was the root.
fn plain(path: &CStr) -> io::Result<&CStr> {
    let bytes = path.to_bytes_with_nul();
    let name = bytes.strip_prefix(b"/").unwrap_or(bytes);
    match name {
        [0] | [b'.', 0] | [b'.', b'.', 0] => Err(io::Error::from_raw_os_error(libc::EACCES)),
        name if name.contains(&b'/') => Err(io::Error::from_raw_os_error(libc::EACCES)),
        name => Ok(CStr::from_bytes_with_nul(name).expect("it ends as the path does")),
    }
}

fn open_at(name: &CStr, flags: c_int) -> c_int {
    let flags = flags & ASKED | ALWAYS;
    // SAFETY: the name ends with a zero.
    unsafe { libc::syscall(libc::SYS_openat, STATE, name.as_ptr(), flags, PRIVATE) as c_int }
}

fn unlink_at(name: &CStr) -> c_int {
    // SAFETY: the name ends with a zero.
    unsafe { libc::syscall(libc::SYS_unlinkat, STATE, name.as_ptr(), 0) as c_int }
}

fn stat_at(name: &CStr, stat: *mut libc::stat) -> c_int {
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the name ends with a zero; SQLite gives room for what is written.
    unsafe { libc::syscall(libc::SYS_newfstatat, STATE, name.as_ptr(), stat, flags) as c_int }
}

/// The kernel's own call, in the place of one that takes a path.
unsafe extern "C" fn stat_of(file: c_int, stat: *mut libc::stat) -> c_int {
    // SAFETY: the caller gives room for what is written.
    unsafe { libc::syscall(libc::SYS_fstat, file, stat) as c_int }
}

/// Any function, as SQLite keeps them.
type Call = unsafe extern "C" fn();

/// What is called in the place of what. Of these a file's owner and mode are never changed, and whose
/// this process is makes no difference: files are made as they are to be.
fn replacements() -> [(&'static str, Call); 11] {
    // SAFETY: of a function's pointer to another, which is called as what it is: see `confine`.
    unsafe {
        use std::mem::transmute;
        type Two<A, B> = unsafe extern "C" fn(A, B) -> c_int;
        [
            (
                "open",
                transmute::<unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int, Call>(
                    sqlite_open,
                ),
            ),
            ("access", transmute::<Two<*const c_char, c_int>, Call>(sqlite_access)),
            (
                "getcwd",
                transmute::<unsafe extern "C" fn(*mut c_char, usize) -> *mut c_char, Call>(
                    sqlite_getcwd,
                ),
            ),
            ("stat", transmute::<Two<*const c_char, *mut libc::stat>, Call>(sqlite_stat)),
            ("lstat", transmute::<Two<*const c_char, *mut libc::stat>, Call>(sqlite_stat)),
            ("fstat", transmute::<Two<c_int, *mut libc::stat>, Call>(stat_of)),
            (
                "unlink",
                transmute::<unsafe extern "C" fn(*const c_char) -> c_int, Call>(sqlite_unlink),
            ),
            (
                "openDirectory",
                transmute::<Two<*const c_char, *mut c_int>, Call>(sqlite_open_directory),
            ),
            (
                "readlink",
                transmute::<unsafe extern "C" fn(*const c_char, *mut c_char, usize) -> isize, Call>(
                    sqlite_readlink,
                ),
            ),
            ("fchmod", transmute::<Two<c_int, libc::mode_t>, Call>(sqlite_fchmod)),
            ("geteuid", transmute::<unsafe extern "C" fn() -> libc::uid_t, Call>(sqlite_geteuid)),
        ]
    }
}

/// The plain name of a path of SQLite's, or why there is none, for whoever asks in C.
///
/// # Safety
/// The path ends with a zero, and outlives what is made of it.
unsafe fn named<'a>(path: *const c_char) -> Result<&'a CStr, c_int> {
    // SAFETY: as was asked of the caller.
    let path = unsafe { CStr::from_ptr(path) };
    plain(path).map_err(|error| {
        // SAFETY: this thread's own.
        unsafe { *libc::__errno_location() = error.raw_os_error().unwrap_or(libc::EACCES) };
        -1
    })
}

unsafe extern "C" fn sqlite_open(path: *const c_char, flags: c_int, _mode: c_int) -> c_int {
    // SAFETY: SQLite gives a path that ends with a zero.
    unsafe { named(path) }.map_or_else(|failed| failed, |name| open_at(name, flags))
}

/// All files there are this user's own, so that one that is there can be read and written.
unsafe extern "C" fn sqlite_access(path: *const c_char, _mode: c_int) -> c_int {
    let mut stat = nothing();
    // SAFETY: SQLite gives a path that ends with a zero.
    unsafe { sqlite_stat(path, &raw mut stat) }
}

unsafe extern "C" fn sqlite_stat(path: *const c_char, stat: *mut libc::stat) -> c_int {
    // SAFETY: SQLite gives a path that ends with a zero.
    unsafe { named(path) }.map_or_else(|failed| failed, |name| stat_at(name, stat))
}

unsafe extern "C" fn sqlite_unlink(path: *const c_char) -> c_int {
    // SAFETY: SQLite gives a path that ends with a zero.
    unsafe { named(path) }.map_or_else(|failed| failed, unlink_at)
}

/// To SQLite the state directory is the root.
unsafe extern "C" fn sqlite_getcwd(buffer: *mut c_char, length: usize) -> *mut c_char {
    if length < 2 {
        return std::ptr::null_mut();
    }
    // SAFETY: SQLite says how much room there is, and it is enough.
    unsafe {
        *buffer = b'/' as c_char;
        *buffer.add(1) = 0;
    }
    buffer
}

/// Of whatever file: all are in the same one. For its sync.
unsafe extern "C" fn sqlite_open_directory(_of: *const c_char, opened: *mut c_int) -> c_int {
    let descriptor = open_at(c".", libc::O_RDONLY);
    // SAFETY: SQLite gives room for a number.
    unsafe { *opened = descriptor };
    if descriptor < 0 { ffi::SQLITE_CANTOPEN } else { ffi::SQLITE_OK }
}

/// Nothing is a link that anybody may follow.
unsafe extern "C" fn sqlite_readlink(_: *const c_char, _: *mut c_char, _: usize) -> isize {
    // SAFETY: this thread's own.
    unsafe { *libc::__errno_location() = libc::EACCES };
    -1
}

unsafe extern "C" fn sqlite_fchmod(_file: c_int, _mode: libc::mode_t) -> c_int {
    0
}

/// Nobody who gives files away, which SQLite does as root alone.
unsafe extern "C" fn sqlite_geteuid() -> libc::uid_t {
    1
}

/// As many bytes as are asked for: the kernel's generator is never without some. Where it is there is
/// nothing to go on with.
unsafe extern "C" fn randomness(
    _: *mut ffi::sqlite3_vfs,
    length: c_int,
    out: *mut c_char,
) -> c_int {
    let length = usize::try_from(length).unwrap_or(0);
    let mut filled = 0;
    while filled < length {
        // SAFETY: SQLite says how much room there is, of which this much is left.
        let got = unsafe { libc::getrandom(out.add(filled).cast::<c_void>(), length - filled, 0) };
        match usize::try_from(got) {
            Ok(got) => filled += got,
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            Err(_) => std::process::abort(),
        }
    }
    length as c_int
}

#[cfg(test)]
mod tests;
