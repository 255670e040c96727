//! One journal: JSON lines in segments of bounded size, the oldest of which is deleted when there
//! are too many. A segment's name carries the id of its first record and the rest count on from
//! there, so that ids need no file of their own.
//!
//! [`Journal`] writes and has one owner. [`page`] only reads, at any time: it takes a last line
//! without its end for one that is being written.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::record::{Entry, Filter, Record};
use crate::files::{self, Folder};

/// A segment is closed before it grows beyond this.
pub(super) const SEGMENT_BYTES: u64 = 1 << 20;
pub(super) const SEGMENTS: usize = 4;
/// What is read of one at most: a report of a worker's, which is one piece, may be larger than a
/// segment. A larger file is none of ours.
const SEGMENT_BYTES_MAX: u64 = 4 * SEGMENT_BYTES;
/// Nobody counts so far: a greater id comes from outside. It is whole in JSON everywhere, and what
/// is added to it here does not overflow.
const ID_MAX: u64 = 1 << 53;

/// Records of the past that one read returns, and what they may take together as they are kept:
/// whoever asked has them in memory until they are read.
pub const PAGE_MAX: usize = 1_000;
const PAGE_BYTES: usize = 256 << 10;

pub struct Journal {
    directory: PathBuf,
    kind: &'static str,
    /// First ids, oldest first; the last one is the segment that is written.
    segments: VecDeque<u64>,
    /// The segment that is written; `None` until something is.
    open: Option<(File, u64)>,
    next: u64,
}

/// The segment that is gone on with.
struct Resumed {
    file: File,
    bytes: u64,
    records: u64,
}

impl Journal {
    /// Goes on where the last one stopped. A line that was cut off by a crash is taken away.
    pub(super) fn open(directory: PathBuf, kind: &'static str) -> io::Result<Self> {
        let segments: VecDeque<u64> = segments(&directory, kind)?.into();
        let mut journal = Self { directory, kind, segments, open: None, next: 1 };
        if let Some(&first) = journal.segments.back() {
            match resume(&journal.directory, &segment(kind, first)) {
                Ok(Resumed { file, bytes, records }) => {
                    journal.next = first + records;
                    journal.open = Some((file, bytes));
                }
                // Beyond whatever a segment in that place could hold.
                Err(error) if files::is_something_else(&error) => {
                    let directory = journal.directory.display();
                    warn!(%directory, first, error = &error as &dyn std::error::Error, "a segment of a journal is passed over");
                    journal.next = first + SEGMENT_BYTES_MAX;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(journal)
    }

    /// The id that the next record gets.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The first record's id. After an error the journal must be opened anew.
    pub(super) fn append<T: Record>(&mut self, records: &[T]) -> io::Result<u64> {
        if records.is_empty() {
            return Ok(self.next);
        }
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        let added = lines.len() as u64;
        let (mut file, size) = match self.open.take() {
            Some((file, size)) if size == 0 || size + added <= SEGMENT_BYTES => (file, size),
            _ => (self.rotate()?, 0),
        };
        let first = self.next;
        file.write_all(&lines)?;
        self.open = Some((file, size + added));
        self.next += records.len() as u64;
        Ok(first)
    }

    fn rotate(&mut self) -> io::Result<File> {
        // Not the directory above: where the tenant is gone, its journals stay gone.
        let folder = Folder::open_or_make(&self.directory)?;
        if self.next >= ID_MAX {
            let directory = self.directory.display();
            warn!(%directory, next = self.next, "a journal's ids are used up, and it begins anew");
            (self.next, self.segments) = (1, VecDeque::new());
            for (_, name) in ours(&folder, self.kind)? {
                remove(&folder, &name);
            }
        }
        let file = folder.create(&segment(self.kind, self.next))?;
        self.segments.push_back(self.next);
        while self.segments.len() > SEGMENTS {
            if let Some(oldest) = self.segments.pop_front() {
                remove(&folder, &segment(self.kind, oldest));
            }
        }
        Ok(file)
    }
}

/// What cannot be removed is told, and keeps nothing from being written.
fn remove(folder: &Folder, name: &str) {
    if let Err(error) = folder.remove(name) {
        warn!(
            name,
            error = &error as &dyn std::error::Error,
            "a segment of a journal could not be removed"
        );
    }
}

fn resume(directory: &Path, name: &str) -> io::Result<Resumed> {
    let file = Folder::open(directory)?.append(name)?;
    let mut bytes = Vec::new();
    (&file).take(SEGMENT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SEGMENT_BYTES_MAX {
        // It is closed as it is: there is no room in it.
        return Ok(Resumed { file, bytes: SEGMENT_BYTES_MAX, records: SEGMENT_BYTES_MAX });
    }
    let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
    if whole < bytes.len() {
        file.set_len(whole as u64)?;
    }
    let records = bytes[..whole].iter().filter(|&&b| b == b'\n').count() as u64;
    Ok(Resumed { file, bytes: whole as u64, records })
}

/// Which part of a journal is wanted.
#[derive(Debug, Clone)]
pub struct Query {
    pub filter: Filter,
    /// Only records with smaller ids.
    pub before: Option<u64>,
    /// Only records with greater ids.
    pub after: Option<u64>,
    /// The newest so many of those.
    pub limit: usize,
    /// Or fewer, where they are as large as this together. One there is at least.
    pub bytes: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self { filter: Filter::default(), before: None, after: None, limit: 0, bytes: PAGE_BYTES }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// Oldest first.
    pub entries: Vec<Entry<T>>,
    /// Whether there may be older ones that match.
    pub more: bool,
    /// With `after`: how many above it are not in the page, since there were too many, or since
    /// they are no longer kept or cannot be read.
    pub missed: u64,
    /// How many were met that cannot be read: what is on disk was changed from outside, or by a
    /// host that keeps what this one does not know.
    pub unreadable: u64,
}

pub(super) fn page<T: Record>(directory: &Path, query: &Query) -> io::Result<Page<T>> {
    let mut page = Page { entries: Vec::new(), more: false, missed: 0, unreadable: 0 };
    let segments = segments(directory, T::KIND)?;
    let after = query.after.unwrap_or(0);
    let mut taken = 0;
    if let (Some(_), Some(&oldest)) = (query.after, segments.first()) {
        page.missed = oldest.saturating_sub(after.saturating_add(1));
    }
    'segments: for &first in segments.iter().rev() {
        if query.before.is_some_and(|before| before <= first) {
            continue;
        }
        let name = segment(T::KIND, first);
        let read = Folder::open(directory).and_then(|it| it.read(&name, SEGMENT_BYTES_MAX));
        let bytes = match read {
            Ok(bytes) => bytes,
            // It was the oldest, and is gone since the directory was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            // Whoever writes the journal tells of it.
            Err(error) if files::is_something_else(&error) => continue,
            Err(error) => return Err(error),
        };
        // Of one that was just begun there is nothing.
        let Some(whole) = bytes.iter().rposition(|&b| b == b'\n') else { continue };
        let lines: Vec<&[u8]> = bytes[..whole].split(|&b| b == b'\n').collect();
        for (id, line) in (first..).zip(lines).collect::<Vec<_>>().into_iter().rev() {
            if id <= after {
                break 'segments;
            }
            if query.before.is_some_and(|before| before <= id) {
                continue;
            }
            // Its id stays its own.
            let Ok(record) = serde_json::from_slice::<T>(line) else {
                page.unreadable += 1;
                page.missed += u64::from(query.after.is_some());
                continue;
            };
            if !record.matches(&query.filter) {
                continue;
            }
            taken += line.len();
            let fits = taken <= query.bytes || page.entries.is_empty();
            if fits && page.entries.len() < query.limit {
                page.entries.push(Entry { id, record });
            } else if query.after.is_some() {
                page.missed = page.missed.saturating_add(1);
            } else {
                page.more = true;
                break 'segments;
            }
        }
    }
    page.entries.reverse();
    Ok(page)
}

/// The first ids of a journal's segments, oldest first; none where there is no directory.
fn segments(directory: &Path, kind: &str) -> io::Result<Vec<u64>> {
    match Folder::open(directory) {
        Ok(folder) => Ok(ours(&folder, kind)?.into_iter().map(|(first, _)| first).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Those names in it that are a segment's, by its first id.
fn ours(folder: &Folder, kind: &str) -> io::Result<Vec<(u64, String)>> {
    let first_id = |name: OsString| {
        let name = name.into_string().ok()?;
        let first = name.strip_prefix(kind)?.strip_prefix('.')?.strip_suffix(".jsonl")?;
        let first = first.parse().ok().filter(|first| *first < ID_MAX)?;
        (segment(kind, first) == name).then_some((first, name))
    };
    let mut ours: Vec<_> = folder.names()?.into_iter().filter_map(first_id).collect();
    ours.sort_unstable();
    Ok(ours)
}

fn segment(kind: &str, first: u64) -> String {
    format!("{kind}.{first:020}.jsonl")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};

    use hearth_wire::LogStream;

    use super::*;
    use crate::logs::Line;

    fn line(text: String) -> Line {
        Line {
            time_ms: 1,
            function: "/a".parse().unwrap(),
            version: 1.into(),
            request_id: "r".into(),
            stream: LogStream::Stdout,
            level: None,
            text,
        }
    }

    /// Lines of about a KiB, numbered from `first`.
    fn lines(first: u64, count: u64) -> Vec<Line> {
        (first..first + count).map(|n| line(format!("{n} {}", "x".repeat(1_000)))).collect()
    }

    fn journal(directory: &Path) -> Journal {
        Journal::open(directory.join("logs"), Line::KIND).unwrap()
    }

    fn read(directory: &Path, query: Query) -> Page<Line> {
        page(&directory.join("logs"), &query).unwrap()
    }

    fn all() -> Query {
        Query { limit: usize::MAX, bytes: usize::MAX, ..Query::default() }
    }

    fn ids(page: &Page<Line>) -> Vec<u64> {
        page.entries.iter().map(|entry| entry.id).collect()
    }

    #[test]
    fn a_journal_is_bounded_and_its_ids_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = journal(directory.path());
        // Six segments' worth.
        for batch in 0..60 {
            assert_eq!(journal.append(&lines(batch * 100 + 1, 100)).unwrap(), batch * 100 + 1);
        }
        let files: Vec<_> = fs::read_dir(directory.path().join("logs"))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(files.len(), SEGMENTS);
        assert!(files.iter().all(|size| *size <= SEGMENT_BYTES), "{files:?}");

        let page = read(directory.path(), all());
        let kept = ids(&page);
        assert_eq!(*kept.last().unwrap(), 6_000);
        assert!(kept[0] > 1 && kept.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        assert!(page.entries.iter().all(|e| e.record.text.starts_with(&format!("{} ", e.id))));
    }

    #[test]
    fn a_line_above_a_segment_s_size_has_one_to_itself() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = journal(directory.path());
        journal.append(&lines(1, 1)).unwrap();
        journal.append(&[line("x".repeat(SEGMENT_BYTES as usize))]).unwrap();
        journal.append(&lines(3, 1)).unwrap();
        assert_eq!(ids(&read(directory.path(), all())), [1, 2, 3]);
    }

    #[test]
    fn it_goes_on_after_a_restart_and_a_torn_line_is_taken_away() {
        let directory = tempfile::tempdir().unwrap();
        journal(directory.path()).append(&lines(1, 3)).unwrap();
        let file = directory.path().join("logs").join(segment(Line::KIND, 1));
        OpenOptions::new().append(true).open(file).unwrap().write_all(b"{\"time_ms\":1,").unwrap();
        assert_eq!(ids(&read(directory.path(), all())), [1, 2, 3], "a reader passes it over");

        let mut again = journal(directory.path());
        assert_eq!(again.next(), 4);
        assert_eq!(again.append(&lines(4, 1)).unwrap(), 4);
        assert_eq!(ids(&read(directory.path(), all())), [1, 2, 3, 4]);
    }

    #[test]
    fn pages_go_backwards_and_read_forwards() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = journal(directory.path());
        for batch in 0..30 {
            journal.append(&lines(batch * 100 + 1, 100)).unwrap();
        }
        let mut before = None;
        let mut seen = Vec::new();
        loop {
            let page = read(directory.path(), Query { before, limit: 700, ..Query::default() });
            let mut older = ids(&page);
            before = older.first().copied();
            older.extend(seen);
            seen = older;
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, (1..=3_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_page_is_bounded_in_bytes_and_leads_on() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = journal(directory.path());
        journal.append(&lines(1, 3)).unwrap();
        journal.append(&[line("x".repeat(2 * PAGE_BYTES))]).unwrap();
        journal.append(&lines(5, 3)).unwrap();
        let page = |before| {
            let page = read(directory.path(), Query { before, limit: 10, ..Query::default() });
            (ids(&page), page.more)
        };
        assert_eq!(page(None), (vec![5, 6, 7], true));
        assert_eq!(page(Some(5)), (vec![4], true));
        assert_eq!(page(Some(4)), (vec![1, 2, 3], false));
        let query = Query { after: Some(0), limit: 10, ..Query::default() };
        let after = read(directory.path(), query);
        assert_eq!((ids(&after), after.missed), (vec![5, 6, 7], 4));
    }

    #[test]
    fn what_came_after_an_id_and_what_of_it_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = journal(directory.path());
        for batch in 0..60 {
            journal.append(&lines(batch * 100 + 1, 100)).unwrap();
        }
        let oldest = ids(&read(directory.path(), all()))[0];
        let after = |id, limit| {
            let bytes = usize::MAX;
            let query = Query { after: Some(id), limit, bytes, ..Query::default() };
            let page = read(directory.path(), query);
            (ids(&page), page.missed)
        };
        assert_eq!(after(6_000, 10), (vec![], 0));
        assert_eq!(after(5_998, 10), (vec![5_999, 6_000], 0));
        assert_eq!(after(5_990, 2), (vec![5_999, 6_000], 8));
        assert_eq!(after(0, 2), (vec![5_999, 6_000], 5_998));
        assert_eq!(after(oldest - 1, usize::MAX).1, 0);
        assert_eq!(after(oldest - 2, usize::MAX).1, 1);
    }

    #[test]
    fn filters() {
        let directory = tempfile::tempdir().unwrap();
        let mut lines = lines(1, 4);
        lines[1].function = "/Dir/B".parse().unwrap();
        lines[2].request_id = "q".into();
        lines[3].stream = LogStream::Host;
        journal(directory.path()).append(&lines).unwrap();
        for (filter, expected) in [
            (Filter::default(), vec![1, 2, 3, 4]),
            (Filter { path: "/dir/b".parse().ok(), ..Filter::default() }, vec![2]),
            (Filter { request_id: Some("q".into()), ..Filter::default() }, vec![3]),
            (Filter { stream: Some(LogStream::Host), ..Filter::default() }, vec![4]),
            (Filter { path: "/nix".parse().ok(), ..Filter::default() }, vec![]),
        ] {
            let page = read(directory.path(), Query { filter: filter.clone(), ..all() });
            assert_eq!(ids(&page), expected, "{filter:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_counted_and_its_neighbours_are_read() {
        let directory = tempfile::tempdir().unwrap();
        journal(directory.path()).append(&lines(1, 2)).unwrap();
        let path = directory.path().join("logs").join(segment(Line::KIND, 1));
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"{}\n\n{\"time_ms\":\"late\"}\n\xff\n").unwrap();
        journal(directory.path()).append(&lines(7, 1)).unwrap();
        let page = read(directory.path(), all());
        assert_eq!((ids(&page), page.unreadable, page.missed), (vec![1, 2, 7], 4, 0));
        // Whoever comes back is told of them as of others that are not to be had.
        let page = read(directory.path(), Query { after: Some(2), ..all() });
        assert_eq!((ids(&page), page.unreadable, page.missed), (vec![7], 4, 4));
        let page = read(directory.path(), Query { before: Some(3), ..all() });
        assert_eq!((ids(&page), page.unreadable), (vec![1, 2], 0));
        // One that has just begun has nothing to be read.
        fs::write(directory.path().join("logs").join(segment(Line::KIND, 8)), "").unwrap();
        assert_eq!(read(directory.path(), all()).unreadable, 4);
    }

    #[test]
    fn nobody_else_reads_it_and_no_directory_is_made_above_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        journal(directory.path()).append(&lines(1, 1)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let logs = directory.path().join("logs");
        assert_eq!(mode(&logs), 0o700);
        assert_eq!(mode(&logs.join(segment(Line::KIND, 1))), 0o600);

        let gone = directory.path().join("gone").join("logs");
        let mut late = Journal::open(gone, Line::KIND).unwrap();
        assert_eq!(late.append(&lines(1, 1)).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// Puts something under a segment's name that is none; what is elsewhere must stay as it is.
    type Plant = fn(path: &Path, elsewhere: &Path);

    const PLANTS: [(&str, Plant); 6] = [
        ("a link", |path, to| std::os::unix::fs::symlink(to, path).unwrap()),
        ("a link to nothing", |path, to| {
            std::os::unix::fs::symlink(to.with_file_name("nowhere"), path).unwrap();
        }),
        ("a second name", |path, to| fs::hard_link(to, path).unwrap()),
        ("a pipe", |path, _| {
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
        ("a directory", |path, _| fs::create_dir_all(path.join("deep")).unwrap()),
        ("a file that is far too large", |path, _| {
            File::create(path).unwrap().set_len(1 << 40).unwrap();
        }),
    ];

    #[test]
    fn row_15_what_lies_in_a_segments_place_is_passed_over_and_never_written_to() {
        for (what, plant) in PLANTS {
            let directory = tempfile::tempdir().unwrap();
            let (logs, elsewhere) = (directory.path().join("logs"), directory.path().join("else"));
            fs::write(&elsewhere, "precious\n").unwrap();
            journal(directory.path()).append(&lines(1, 3)).unwrap();
            plant(&logs.join(segment(Line::KIND, 4)), &elsewhere);

            let mut again = journal(directory.path());
            let next = again.next();
            assert!(next > 4, "{what}: {next}");
            // Enough for all segments to be others.
            let mut last = 0;
            for batch in 0..60 {
                last = again.append(&lines(batch, 100)).unwrap() + 99;
            }
            assert_eq!(last, next + 5_999, "{what}");
            let page = read(directory.path(), all());
            assert_eq!(ids(&page).last(), Some(&last), "{what}");
            assert!(!page.entries.iter().any(|entry| entry.record.text == "precious"), "{what}");
            assert_eq!(fs::read(&elsewhere).unwrap(), b"precious\n", "{what}");
            assert!(!directory.path().join("nowhere").exists(), "{what}");
            // And once more after a restart.
            assert_eq!(journal(directory.path()).append(&lines(1, 1)).unwrap(), last + 1);
        }
    }

    #[test]
    fn row_15_a_directory_of_journals_that_is_a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let other = directory.path().join("other");
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, directory.path().join("logs")).unwrap();
        let logs = directory.path().join("logs");
        assert!(Journal::open(logs.clone(), Line::KIND).is_err());
        assert!(page::<Line>(&logs, &all()).is_err());
        assert_eq!(fs::read_dir(other).unwrap().count(), 0);
    }

    #[test]
    fn names_with_any_number_are_names_and_no_more() {
        let numbers = ["18446744073709551615", "18446744073709551616", "09007199254740992", "5"]
            .into_iter()
            .chain(["00000000000000000000", "", "-1", "+1", "00009007199254740991"]);
        for number in numbers {
            let directory = tempfile::tempdir().unwrap();
            journal(directory.path()).append(&lines(1, 3)).unwrap();
            let planted = directory.path().join(format!("logs/lines.{number}.jsonl"));
            fs::write(planted, "{}\n").unwrap();
            let mut again = journal(directory.path());
            for batch in 0..60 {
                again.append(&lines(batch, 100)).unwrap();
            }
            let kept = ids(&read(directory.path(), all()));
            assert!(kept.is_sorted() && kept.len() > 3_000, "{number}: {}", kept.len());
            let query = Query { after: Some(u64::MAX), before: Some(u64::MAX), ..all() };
            assert!(read(directory.path(), query).entries.is_empty(), "{number}");
            journal(directory.path()).append(&lines(1, 1)).unwrap();
        }
    }
}
