//! An asynchronous function on `wstd`, as its own documentation has it.

use wstd::http::{Body, Error, Request, Response};
use wstd::time::Duration;

#[wstd::http_server]
async fn main(mut request: Request<Body>) -> Result<Response<Body>, Error> {
    let name = request.body_mut().str_contents().await?.to_owned();
    wstd::task::sleep(Duration::from_millis(1)).await;
    Ok(Response::new(format!("hello {name} from wstd").into()))
}
