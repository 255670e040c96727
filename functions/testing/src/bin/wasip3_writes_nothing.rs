//! The same on WASI 0.3: writes nothing, `?times=` over, to its standard output, its standard error
//! or its answer (`?to=0|1|2`), and then says how often.

use wasip3::cli::{stderr, stdout};
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::wit_bindgen::{StreamWriter, spawn_local};
use wasip3::{wit_future, wit_stream};

wasip3::http::service::export!(Guest);

struct Guest;

impl wasip3::exports::http::handler::Guest for Guest {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (times, to) = (number(&target, "times"), number(&target, "to"));
        if to < 2 {
            let (mut writer, reader) = wit_stream::new();
            spawn_local(async move {
                write(&mut writer, times).await;
            });
            let written = match to {
                0 => stdout::write_via_stream(reader).await,
                _ => stderr::write_via_stream(reader).await,
            };
            written.unwrap();
        }
        let (mut writer, reader) = wit_stream::new();
        let (trailers, no_trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(Fields::new(), Some(reader), no_trailers);
        drop(trailers);
        spawn_local(async move {
            if to == 2 {
                write(&mut writer, times).await;
            }
            writer.write_all(format!("{times} times nothing").into_bytes()).await;
        });
        Ok(response)
    }
}

async fn write(writer: &mut StreamWriter<u8>, times: u64) {
    for _ in 0..times {
        writer.write(Vec::new()).await;
    }
}

fn number(target: &str, name: &str) -> u64 {
    let (_, query) = target.split_once('?').unwrap();
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    value.unwrap().parse().unwrap()
}

fn main() {}
