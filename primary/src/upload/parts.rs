//! An upload's parts: a form's bytes in, modules on disk and options out. Nothing here knows
//! whose they are, or what becomes of them.

use std::collections::HashMap;
use std::io::{self, Read};
use std::task::Poll;

use axum::body::Bytes;
use futures_util::{Stream, StreamExt, future, stream};
use hearth_wire::{FunctionPath, Limits, OptionsError, OptionsPatch, limits};
use http::HeaderMap;
use multer::{Constraints, Field, Multipart, SizeLimit};
use serde_json::Value;
use tokio::sync::mpsc;

use super::UploadError;
use crate::release::modules::{Arrived, IngestError, Packing};

/// Files in one upload.
pub const FILES_MAX: usize = 32;
/// Chunks of a body between the network and the disk.
const CHUNKS: usize = 8;
/// The part that is no file.
const OPTIONS: &str = "options";

/// A file of an upload, taken in.
pub struct Incoming {
    pub file: String,
    pub path: FunctionPath,
    pub arrived: Arrived,
}

/// Reads a whole form. Each module is taken in by `ingest` as it comes.
pub async fn read<F, A>(
    dir: Option<&FunctionPath>,
    headers: &HeaderMap,
    chunks: impl Stream<Item = Result<Bytes, axum::Error>> + Send,
    limits: &Limits,
    ingest: F,
) -> Result<(Vec<Incoming>, HashMap<FunctionPath, OptionsPatch>), UploadError>
where
    F: Fn(Packing, Chunks, u64) -> A + Sync,
    A: Future<Output = Result<Arrived, IngestError>> + Send,
{
    let content_type = headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let boundary = multer::parse_boundary(content_type.unwrap_or_default())?;
    let announced =
        headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let limit = limits.upload_bytes;
    if announced.is_some_and(|announced: u64| announced > limit) {
        return Err(UploadError::TooLarge(limit));
    }
    let size =
        SizeLimit::new().whole_stream(limit).for_field(OPTIONS, limits::OPTIONS_MAX_BYTES as u64);
    let constraints = Constraints::new().size_limit(size);
    let mut multipart = Multipart::with_constraints(end_later(chunks), boundary, constraints);
    let mut incoming: Vec<Incoming> = Vec::new();
    let mut options = None;
    while let Some(field) = multipart.next_field().await? {
        let Some(file) = field.file_name().map(str::to_owned) else {
            if field.name() == Some(OPTIONS) {
                if options.replace(read_options(field).await?).is_some() {
                    return Err(UploadError::TwoOptions);
                }
                continue;
            }
            let name = field.name().unwrap_or_default().to_owned();
            return Err(UploadError::FileName(name));
        };
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
            return Err(UploadError::TooManyFiles);
        }
        let arrived =
            take_file(field, |reader| ingest(packing, reader, limits.module_bytes)).await?;
        match arrived {
            Ok(arrived) => incoming.push(Incoming { file, path, arrived }),
            Err(error) => return Err(UploadError::Module { file, source: error.into() }),
        }
    }
    if incoming.is_empty() {
        return Err(UploadError::NoFile);
    }
    let options = assign_options(&incoming, options)?;
    Ok((incoming, options))
}

/// Passes one file from the network to the thread that packs it.
async fn take_file<A>(
    mut field: Field<'_>,
    ingest: impl FnOnce(Chunks) -> A,
) -> Result<Result<Arrived, IngestError>, UploadError>
where
    A: Future<Output = Result<Arrived, IngestError>>,
{
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let reader = Chunks::new(receiver);
    let feed = async move {
        loop {
            match field.chunk().await {
                Ok(Some(chunk)) => {
                    // It takes no more: what it has to say comes from the other side.
                    if sender.send(Ok(chunk)).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    let _ = sender.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
                    return Err(error);
                }
            }
        }
    };
    let (fed, arrived) = future::join(feed, ingest(reader)).await;
    fed?;
    Ok(arrived)
}

async fn read_options(field: Field<'_>) -> Result<Value, UploadError> {
    let bytes = match field.bytes().await {
        Err(multer::Error::FieldSizeExceeded { .. }) => return Err(UploadError::OptionsTooLarge),
        bytes => bytes?,
    };
    serde_json::from_slice(&bytes).map_err(|error| OptionsError::Json(error.to_string()).into())
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

/// A body's chunks as a blocking reader.
pub struct Chunks {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Chunks {
    pub fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { receiver, current: Bytes::new() }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let taken = self.current.split_to(buffer.len().min(self.current.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

/// The same chunks, with their end told one poll after the last of them. multer looks twice for
/// the first boundary, and a form that comes whole between the two looks has, to it, none.
fn end_later<C, E>(
    chunks: impl Stream<Item = Result<C, E>> + Send,
) -> impl Stream<Item = Result<C, E>> + Send {
    let mut chunks = Box::pin(chunks.fuse());
    let mut has_ended = false;
    stream::poll_fn(move |cx| match chunks.as_mut().poll_next(cx) {
        Poll::Ready(None) if !std::mem::replace(&mut has_ended, true) => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        polled => polled,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut form = Multipart::new(end_later(chunks), "b");
        let field = form.next_field().await.unwrap().unwrap();
        assert_eq!(field.text().await.unwrap(), "hello");
        assert!(form.next_field().await.unwrap().is_none());
    }
}
