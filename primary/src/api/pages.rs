//! The pages for people: the front page and the document made readable. They load nothing from
//! elsewhere, and nobody may frame them. Anybody may ask for them, and read as slowly as he likes:
//! what is sent is the program's own and copied for nobody.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::extract::Path;
use axum::response::{Html, IntoResponse, Redirect, Response};
use hearth_wire::Code;
use http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue};
use utoipa_swagger_ui::Config;

use super::error::Refusal;

pub const DOCUMENT: &str = "/api/openapi.json";

static READER: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    Arc::new(Config::from(DOCUMENT).persist_authorization(false).validator_url("none"))
});

/// The reader styles its elements one by one, hence `unsafe-inline` for styles alone.
const READER_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const FRONT_POLICY: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const FRONT: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Hearth</title>
<h1>Hearth</h1>
<p>This host runs WebAssembly functions. Its <a href=\"/api/docs/\">management API</a> is
described by an <a href=\"/api/openapi.json\">OpenAPI document</a>.</p>
</html>
";

fn guarded(policy: &'static str) -> [(HeaderName, HeaderValue); 3] {
    [
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ]
}

pub async fn front() -> impl IntoResponse {
    (guarded(FRONT_POLICY), Html(FRONT))
}

/// The reader's own links are relative.
pub async fn to_reader() -> Redirect {
    Redirect::permanent("/api/docs/")
}

pub async fn reader_index() -> Result<Response, Refusal> {
    serve("")
}

pub async fn reader(Path(file): Path<String>) -> Result<Response, Refusal> {
    serve(&file)
}

fn serve(file: &str) -> Result<Response, Refusal> {
    match utoipa_swagger_ui::serve(file, READER.clone()) {
        Ok(Some(file)) => {
            let kind = HeaderValue::try_from(file.content_type);
            let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
            let bytes = match file.bytes {
                Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                // Some hundred bytes, with the document's address written in.
                Cow::Owned(bytes) => bytes.into(),
            };
            Ok((guarded(READER_POLICY), [(CONTENT_TYPE, kind)], bytes).into_response())
        }
        Ok(None) => Err(Refusal::new(Code::NotFound, "there is nothing at this address")),
        Err(error) => {
            tracing::error!(error = &*error, "the document's reader");
            Err(Refusal::new(Code::Internal, "the document's reader failed"))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body;

    use super::*;

    async fn text(response: Response) -> String {
        let bytes = body::to_bytes(response.into_body(), 16 << 20).await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn pages_are_guarded_and_load_nothing_from_elsewhere() {
        for page in [front().await.into_response(), reader_index().await.unwrap()] {
            assert_eq!(page.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
            let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
            assert!(policy.starts_with("default-src 'none';"), "{policy}");
            assert!(policy.ends_with("frame-ancestors 'none'"), "{policy}");
            assert!(page.headers()[CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
            let html = text(page).await;
            assert!(!html.contains("//"), "{html}");
        }
    }

    #[tokio::test]
    async fn what_is_large_is_copied_for_nobody() {
        const LARGE: usize = 16 << 10;
        let index = text(reader_index().await.unwrap()).await;
        let files = index.split('"').filter_map(|file| file.strip_prefix("./"));
        let mut large = 0;
        for file in files {
            let read = async || {
                let page = reader(Path(file.to_owned())).await.unwrap();
                body::to_bytes(page.into_body(), 16 << 20).await.unwrap()
            };
            let (one, two) = (read().await, read().await);
            assert!(one.len() < LARGE || one.as_ptr() == two.as_ptr(), "{file}");
            large += usize::from(one.len() >= LARGE);
        }
        assert!(large >= 2, "{index}");
    }

    #[tokio::test]
    async fn the_reader_reads_our_document() {
        let script = reader(Path("swagger-initializer.js".into())).await.unwrap();
        let script = text(script).await;
        assert!(script.contains(DOCUMENT) && !script.contains("petstore"), "{script}");
        let missing = reader(Path("nix.js".into())).await.unwrap_err();
        assert_eq!(missing.into_problem().code, Code::NotFound);
    }
}
