//! An upload's parts: a form's bytes in, its files as they were sent and its options out. Nothing
//! here knows whose they are, or what becomes of them. No thread waits for what is still to come,
//! and no more of it is in memory than came at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use axum::body::Bytes;
use futures_util::{Stream, StreamExt, stream};
use hearth_wire::{FunctionPath, Limits, OptionsError, OptionsPatch, Problem, json, limits};
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use multer::{Constraints, Field, Multipart, SizeLimit};
use serde_json::Value;

use super::error::UploadError;
use super::imports::Additions;
use crate::generations::modules::{IngestError, Packing, Spool, Spooled};

/// Files in one upload.
pub const FILES_MAX: usize = 32;
/// Of a part, before its bytes; what came with it in one piece counts, too.
const PART_HEAD_MAX_BYTES: usize = 64 << 10;
/// The parts that are no files.
const OPTIONS: &str = "options";
const SAME_IMPORTS: &str = "same_imports";
/// Longer than what it can say.
const SAME_IMPORTS_MAX_BYTES: u64 = 16;
/// A file's name in another encoding, which RFC 7578 keeps out of forms.
const EXTENDED: &[u8] = b"filename*";
/// RFC 2046 allows 70.
const BOUNDARY_MAX_BYTES: usize = 200;

/// A file of an upload, come whole.
pub struct Incoming {
    pub file: String,
    pub path: FunctionPath,
    pub packing: Packing,
    pub spooled: Spooled,
}

/// A whole form.
pub struct Form {
    pub incoming: Vec<Incoming>,
    pub options: HashMap<FunctionPath, OptionsPatch>,
    /// Imports that the functions before did not have.
    pub additions: Additions,
}

/// Reads a whole form. Each file comes into a spool of its own.
pub async fn read(
    dir: Option<&FunctionPath>,
    headers: &HeaderMap,
    chunks: impl Stream<Item = Result<Bytes, axum::Error>> + Send,
    limits: &Limits,
    spool: impl Fn() -> Result<Spool, IngestError> + Send + Sync,
) -> Result<Form, UploadError> {
    if let Some(problem) = Problem::of_coding(headers) {
        return Err(UploadError::Packed(Box::new(problem)));
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let boundary = boundary(content_type.unwrap_or_default())?;
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let limit = limits.upload_bytes;
    if announced.is_some_and(|announced: u64| announced > limit) {
        return Err(UploadError::TooLarge(limit));
    }
    let size = SizeLimit::new()
        .whole_stream(limit)
        .for_field(OPTIONS, limits::OPTIONS_MAX_BYTES as u64)
        .for_field(SAME_IMPORTS, SAME_IMPORTS_MAX_BYTES);
    let constraints = Constraints::new().size_limit(size);
    let heads = Heads::default();
    let chunks = heads.bound(one_by_one(chunks));
    let mut multipart = Multipart::with_constraints(chunks, boundary, constraints);
    let mut incoming: Vec<Incoming> = Vec::new();
    let (mut options, mut additions) = (None, None);
    while let Some(field) = heads.read(multipart.next_field()).await? {
        let Some(file) = file_name(&field) else {
            let is_second = match field.name() {
                Some(OPTIONS) => options.replace(read_options(field).await?).is_some(),
                Some(SAME_IMPORTS) => additions.replace(read_additions(field).await?).is_some(),
                _ => return Err(nameless(&field)),
            };
            if is_second {
                return Err(UploadError::TwoParts);
            }
            continue;
        };
        if file.is_empty() {
            unused(field).await?;
            continue;
        }
        let (stem, packing) = match (file.strip_suffix(".wasm.zst"), file.strip_suffix(".wasm")) {
            (Some(stem), _) => (stem, Packing::Zstd),
            (None, Some(stem)) => (stem, Packing::Plain),
            (None, None) => return Err(UploadError::FileName(file)),
        };
        let path = match FunctionPath::within(dir, stem) {
            Ok(path) => path,
            Err(source) => return Err(UploadError::Path { file, source }),
        };
        let folded = path.folded();
        if let Some(earlier) = incoming.iter().find(|earlier| earlier.path.folded() == folded) {
            return Err(UploadError::Twice(earlier.path.clone(), path));
        }
        if incoming.len() == FILES_MAX {
            return Err(UploadError::TooManyFiles(FILES_MAX));
        }
        let most = match packing {
            Packing::Plain => limits.module_bytes,
            Packing::Zstd => limit,
        };
        match take_file(field, most, &spool).await? {
            Ok(spooled) => incoming.push(Incoming { file, path, packing, spooled }),
            Err(error) => return Err(UploadError::Module { file, source: error.into() }),
        }
    }
    if incoming.is_empty() {
        return Err(UploadError::NoFile);
    }
    let options = assign_options(&incoming, options)?;
    Ok(Form { incoming, options, additions: additions.unwrap_or(Additions::Taken) })
}

/// What a form's type says that stands between its parts. Blanks may stand on both sides of a
/// semicolon, and not all clients quote what has signs in it.
fn boundary(content_type: &str) -> Result<String, multer::Error> {
    let mut pieces = split_outside_quotes(content_type).map(str::trim);
    if !pieces.next().is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/form-data")) {
        return Err(multer::Error::NoMultipart);
    }
    let boundaries = pieces.filter_map(|piece| {
        let (name, value) = piece.split_once('=')?;
        name.trim_end().eq_ignore_ascii_case("boundary").then(|| value.trim_start())
    });
    let [boundary] = boundaries.collect::<Vec<_>>()[..] else {
        return Err(multer::Error::NoBoundary);
    };
    let unquoted = boundary.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let boundary = unquoted.unwrap_or(boundary);
    let is_one = |byte: u8| byte == b' ' || (byte.is_ascii_graphic() && !b"\"\\".contains(&byte));
    let valid = (1..=BOUNDARY_MAX_BYTES).contains(&boundary.len()) && boundary.bytes().all(is_one);
    if valid { Ok(boundary.to_owned()) } else { Err(multer::Error::NoBoundary) }
}

fn split_outside_quotes(text: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |sign| {
        match sign {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            _ => return sign == ';' && !quoted,
        }
        false
    })
}

/// multer sees none where a `filename*` stands before it.
fn file_name(field: &Field<'_>) -> Option<String> {
    let named = || {
        let disposition = field.headers().get(CONTENT_DISPOSITION)?.to_str().ok()?;
        let mut pieces = split_outside_quotes(disposition).filter_map(|it| it.split_once('='));
        let (_, name) = pieces.find(|(key, _)| key.trim().eq_ignore_ascii_case("filename"))?;
        Some(name.trim().trim_matches('"').to_owned())
    };
    field.file_name().map(str::to_owned).or_else(named)
}

/// Why a part that is neither a file nor one of those that have a name is refused.
fn nameless(field: &Field<'_>) -> UploadError {
    let part = field.name().unwrap_or_default().to_owned();
    let disposition = field.headers().get(CONTENT_DISPOSITION).map(HeaderValue::as_bytes);
    let disposition = disposition.unwrap_or_default().to_ascii_lowercase();
    match disposition.windows(EXTENDED.len()).any(|window| window == EXTENDED) {
        true => UploadError::ExtendedFileName(part),
        false => UploadError::NoFileName(part),
    }
}

/// A form's input for a file for which none was chosen comes with an empty name and no bytes.
async fn unused(mut field: Field<'_>) -> Result<(), UploadError> {
    while let Some(chunk) = field.chunk().await? {
        if !chunk.is_empty() {
            return Err(UploadError::FileName(String::new()));
        }
    }
    Ok(())
}

/// Passes one file from the network to the disk.
async fn take_file(
    mut field: Field<'_>,
    most: u64,
    spool: impl Fn() -> Result<Spool, IngestError>,
) -> Result<Result<Spooled, IngestError>, UploadError> {
    let mut spool = match spool() {
        Ok(spool) => spool,
        Err(error) => return Ok(Err(error)),
    };
    let mut bytes = 0;
    while let Some(chunk) = field.chunk().await? {
        bytes += chunk.len() as u64;
        if bytes > most {
            return Ok(Err(IngestError::TooLarge(most)));
        }
        if let Err(error) = spool.write(&chunk).await {
            return Ok(Err(error));
        }
    }
    Ok(spool.finish().await)
}

async fn read_options(field: Field<'_>) -> Result<Value, UploadError> {
    let bytes = match field.bytes().await {
        Err(multer::Error::FieldSizeExceeded { .. }) => return Err(UploadError::OptionsTooLarge),
        bytes => bytes?,
    };
    json::parse(&bytes).map_err(|error| OptionsError::Json(error.to_string()).into())
}

async fn read_additions(field: Field<'_>) -> Result<Additions, UploadError> {
    match field.bytes().await {
        Ok(said) if *said == *b"true" => Ok(Additions::Refused),
        Ok(said) if *said == *b"false" => Ok(Additions::Taken),
        Ok(_) | Err(multer::Error::FieldSizeExceeded { .. }) => Err(UploadError::SameImports),
        Err(error) => Err(error.into()),
    }
}

/// Which file the `options` part speaks of.
fn assign_options(
    incoming: &[Incoming],
    options: Option<Value>,
) -> Result<HashMap<FunctionPath, OptionsPatch>, UploadError> {
    let object = match options {
        None => return Ok(HashMap::new()),
        Some(Value::Object(object)) => object,
        Some(_) => return Err(OptionsError::NoObject.into()),
    };
    if let [only] = incoming {
        // Both forms name the one file.
        let named = object.len() == 1
            && object.keys().all(|key| *key == only.file)
            && object.values().all(Value::is_object);
        if !named {
            let patch = OptionsPatch::from_object(object)?;
            return Ok(HashMap::from([(only.path.clone(), patch)]));
        }
    }
    let mut patches = HashMap::new();
    for (name, options) in object {
        let Some(file) = incoming.iter().find(|incoming| incoming.file == name) else {
            return Err(UploadError::OptionsFor(name));
        };
        let Value::Object(options) = options else { return Err(OptionsError::NoObject.into()) };
        patches.insert(file.path.clone(), OptionsPatch::from_object(options)?);
    }
    Ok(patches)
}

/// How much may still come before a part's head ends, of which multer keeps all: without limit
/// within a part.
#[derive(Clone)]
struct Heads(Arc<AtomicUsize>);

impl Default for Heads {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }
}

impl Heads {
    /// Refuses what goes beyond, while a head is read.
    fn bound<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        &self,
        chunks: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> impl Stream<Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> + Send {
        let left = self.0.clone();
        chunks.map(move |chunk| {
            let chunk = chunk.map_err(Into::into)?;
            let now = left.load(Ordering::Relaxed);
            if now == usize::MAX {
                return Ok(chunk);
            }
            let after = now.checked_sub(chunk.len());
            left.store(after.unwrap_or_default(), Ordering::Relaxed);
            after.map(|_| chunk).ok_or_else(|| HeadTooLarge.into())
        })
    }

    async fn read<T>(
        &self,
        head: impl Future<Output = Result<T, multer::Error>>,
    ) -> Result<T, UploadError> {
        self.0.store(PART_HEAD_MAX_BYTES, Ordering::Relaxed);
        let read = head.await;
        self.0.store(usize::MAX, Ordering::Relaxed);
        read.map_err(|error| match error {
            multer::Error::StreamReadFailed(why) if why.is::<HeadTooLarge>() => {
                UploadError::PartHead
            }
            error => error.into(),
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the head of a part is above {} KiB", PART_HEAD_MAX_BYTES >> 10)]
struct HeadTooLarge;

/// The same chunks, each of them and their end one poll after the one before. multer takes all
/// that there is before it looks at any; and it looks twice for the first boundary, so that a form
/// that comes whole between the two looks has, to it, none.
fn one_by_one<C, E>(
    chunks: impl Stream<Item = Result<C, E>> + Send,
) -> impl Stream<Item = Result<C, E>> + Send {
    let mut chunks = Box::pin(chunks.fuse());
    let mut gave = true;
    stream::poll_fn(move |cx| {
        if std::mem::take(&mut gave) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = chunks.as_mut().poll_next(cx);
        gave = polled.is_ready();
        polled
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_forms_type_as_clients_write_it() {
        for written in [
            "multipart/form-data; boundary=a-b",
            "multipart/form-data;boundary=a-b",
            "multipart/form-data ; boundary=a-b",
            "Multipart/Form-Data \t;\tBoundary=\"a-b\"",
            " multipart/form-data; charset=utf-8 ; boundary=a-b ; ",
            "multipart/form-data; charset=\"x;\\\";boundary=no\"; boundary=a-b",
        ] {
            assert_eq!(boundary(written).unwrap(), "a-b", "{written:?}");
        }
        let signs = "multipart/form-data; boundary=----=_Part_1:2/3";
        assert_eq!(boundary(signs).unwrap(), "----=_Part_1:2/3");
        for wrong in [
            "",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=a; boundary=b",
            "multipart/form-data; boundary=\"a",
            "multipart/mixed; boundary=a",
            "text/plain; x=\"multipart/form-data; boundary=a\"",
        ] {
            assert!(boundary(wrong).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_form_that_comes_whole_at_the_second_look_is_read() {
        let form = "--b\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nhello\r\n--b--\r\n";
        let mut looks = 0;
        let chunks = stream::poll_fn(move |cx| {
            looks += 1;
            cx.waker().wake_by_ref();
            match looks {
                1 => Poll::Pending,
                2 => Poll::Ready(Some(Ok::<_, io::Error>(Bytes::from(form)))),
                _ => Poll::Ready(None),
            }
        });
        let mut form = Multipart::new(one_by_one(chunks), "b");
        let field = form.next_field().await.unwrap().unwrap();
        assert_eq!(field.text().await.unwrap(), "hello");
        assert!(form.next_field().await.unwrap().is_none());
    }

    async fn read_head(form: String, cut: usize) -> Result<(), UploadError> {
        let heads = Heads::default();
        let form = Bytes::from(form);
        let pieces: Vec<Result<Bytes, io::Error>> = (0..form.len())
            .step_by(cut)
            .map(|at| Ok(form.slice(at..form.len().min(at + cut))))
            .collect();
        let chunks = heads.bound(one_by_one(stream::iter(pieces)));
        let mut form = Multipart::new(chunks, "b");
        let mut field = heads.read(form.next_field()).await?.unwrap();
        while field.chunk().await?.is_some() {}
        drop(field);
        heads.read(form.next_field()).await.map(drop)
    }

    #[tokio::test]
    async fn the_head_of_a_part_is_bounded_and_its_bytes_are_not() {
        let form = |head: usize, body: usize| {
            let (head, body) = ("x".repeat(head), "y".repeat(body));
            format!(
                "--b\r\ncontent-disposition: form-data; name=\"{head}\"\r\n\r\n{body}\r\n--b--\r\n"
            )
        };
        for cut in [1_000, 16 << 10] {
            read_head(form(1, 1 << 20), cut).await.unwrap();
            read_head(form(PART_HEAD_MAX_BYTES / 2, 1), cut).await.unwrap();
            let refused = read_head(form(PART_HEAD_MAX_BYTES + 1, 1), cut).await;
            assert!(matches!(refused, Err(UploadError::PartHead)), "{refused:?}");
        }
    }
}
