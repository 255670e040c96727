//! One journal: JSON lines in segments of bounded size, the oldest of which is deleted when there
//! are too many. A segment's name carries the id of its first record and the rest count on from
//! there, so that ids need no file of their own.
//!
//! [`Journal`] writes and has one owner. [`page`] only reads, at any time: it takes a last line
//! without its end for one that is being written.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Entry, Filter, PAGE_BYTES, Record};

/// A segment is closed before it grows beyond this.
pub(super) const SEGMENT_BYTES: u64 = 1 << 20;
pub(super) const SEGMENTS: usize = 4;

pub struct Journal {
    directory: PathBuf,
    kind: &'static str,
    /// First ids, oldest first; the last one is the segment that is written.
    segments: VecDeque<u64>,
    /// The segment that is written; `None` until something is.
    open: Option<(File, u64)>,
    next: u64,
}

impl Journal {
    /// Goes on where the last one stopped. A line that was cut off by a crash is taken away.
    pub(super) fn open(directory: PathBuf, kind: &'static str) -> io::Result<Self> {
        let segments: VecDeque<u64> = segments(&directory, kind)?.into();
        let mut journal = Self { directory, kind, segments, open: None, next: 1 };
        if let Some(&first) = journal.segments.back() {
            let mut file = OpenOptions::new().read(true).append(true).open(segment(
                &journal.directory,
                kind,
                first,
            ))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
            if whole < bytes.len() {
                file.set_len(whole as u64)?;
            }
            let records = bytes[..whole].iter().filter(|&&b| b == b'\n').count() as u64;
            journal.next = first + records;
            journal.open = Some((file, whole as u64));
        }
        Ok(journal)
    }

    /// The id that the next record gets.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The first record's id. After an error the journal must be opened anew.
    pub(super) fn append<T: Record>(&mut self, records: &[T]) -> io::Result<u64> {
        let first = self.next;
        if records.is_empty() {
            return Ok(first);
        }
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        if self
            .open
            .as_ref()
            .is_none_or(|(_, size)| *size > 0 && size + lines.len() as u64 > SEGMENT_BYTES)
        {
            self.rotate()?;
        }
        let (file, size) = self.open.as_mut().expect("a segment was opened");
        file.write_all(&lines)?;
        *size += lines.len() as u64;
        self.next += records.len() as u64;
        Ok(first)
    }

    fn rotate(&mut self) -> io::Result<()> {
        // Not the directory above: where the tenant is gone, its journals stay gone.
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(segment(
            &self.directory,
            self.kind,
            self.next,
        ))?;
        self.open = Some((file, 0));
        self.segments.push_back(self.next);
        while self.segments.len() > SEGMENTS {
            if let Some(oldest) = self.segments.pop_front() {
                fs::remove_file(segment(&self.directory, self.kind, oldest))?;
            }
        }
        Ok(())
    }
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
    /// With `after`: how many above it are not in the page, since there were too many or since
    /// they are no longer kept.
    pub missed: u64,
}

pub(super) fn page<T: Record>(directory: &Path, query: &Query) -> io::Result<Page<T>> {
    let mut page = Page { entries: Vec::new(), more: false, missed: 0 };
    let segments = segments(directory, T::KIND)?;
    let after = query.after.unwrap_or(0);
    let mut bytes = 0;
    if let (Some(_), Some(&oldest)) = (query.after, segments.first()) {
        page.missed = oldest.saturating_sub(after + 1);
    }
    'segments: for &first in segments.iter().rev() {
        if query.before.is_some_and(|before| before <= first) {
            continue;
        }
        let text = match fs::read_to_string(segment(directory, T::KIND, first)) {
            Ok(text) => text,
            // It was the oldest, and is gone since the directory was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let lines: Vec<&str> = whole.lines().collect();
        for (id, line) in (first..).zip(lines).collect::<Vec<_>>().into_iter().rev() {
            if id <= after {
                break 'segments;
            }
            if query.before.is_some_and(|before| before <= id) {
                continue;
            }
            // A line that is no record was damaged from outside; its id stays its own.
            let Ok(record) = serde_json::from_str::<T>(line) else { continue };
            if !record.matches(&query.filter) {
                continue;
            }
            bytes += line.len();
            let fits = bytes <= query.bytes || page.entries.is_empty();
            if fits && page.entries.len() < query.limit {
                page.entries.push(Entry { id, record });
            } else if query.after.is_some() {
                page.missed += 1;
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
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut segments = Vec::new();
    for entry in listing {
        let name = entry?.file_name();
        let first = name
            .to_str()
            .and_then(|name| name.strip_prefix(kind)?.strip_prefix('.')?.strip_suffix(".jsonl"))
            .and_then(|first| first.parse::<u64>().ok());
        segments.extend(first);
    }
    segments.sort_unstable();
    Ok(segments)
}

fn segment(directory: &Path, kind: &str, first: u64) -> PathBuf {
    directory.join(format!("{kind}.{first:020}.jsonl"))
}

#[cfg(test)]
mod tests {
    use hearth_wire::{LogLine, LogStream};

    use super::*;

    fn line(text: String) -> LogLine {
        LogLine {
            time_ms: 1,
            function: "/a".parse().unwrap(),
            version: 1,
            request_id: "r".into(),
            stream: LogStream::Stdout,
            text,
        }
    }

    /// Lines of about a KiB, numbered from `first`.
    fn lines(first: u64, count: u64) -> Vec<LogLine> {
        (first..first + count).map(|n| line(format!("{n} {}", "x".repeat(1_000)))).collect()
    }

    fn journal(directory: &Path) -> Journal {
        Journal::open(directory.join("logs"), LogLine::KIND).unwrap()
    }

    fn read(directory: &Path, query: Query) -> Page<LogLine> {
        page(&directory.join("logs"), &query).unwrap()
    }

    fn all() -> Query {
        Query { limit: usize::MAX, bytes: usize::MAX, ..Query::default() }
    }

    fn ids(page: &Page<LogLine>) -> Vec<u64> {
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
        let file = segment(&directory.path().join("logs"), LogLine::KIND, 1);
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
    fn nobody_else_reads_it_and_no_directory_is_made_above_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        journal(directory.path()).append(&lines(1, 1)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let logs = directory.path().join("logs");
        assert_eq!(mode(&logs), 0o700);
        assert_eq!(mode(&segment(&logs, LogLine::KIND, 1)), 0o600);

        let gone = directory.path().join("gone").join("logs");
        let mut late = Journal::open(gone, LogLine::KIND).unwrap();
        assert_eq!(late.append(&lines(1, 1)).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
