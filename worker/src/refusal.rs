//! The platform's no: a problem as an answer, with what goes beside it.

use bytes::Bytes;
use hearth_connection::{Answer, AnswerBody, guard};
use hearth_wire::{Code, PROBLEM_JSON, Problem, RequestId};
use http::Response;
use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};

#[derive(Debug)]
pub struct Refusal {
    problem: Box<Problem>,
    headers: HeaderMap,
}

impl Refusal {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem::new(code, detail).into()
    }

    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    #[cfg(test)]
    pub fn code(&self) -> Code {
        self.problem.code
    }

    pub fn into_answer(self, id: &RequestId) -> Answer {
        let Self { problem, headers } = self;
        let status = problem.code.status();
        let mut answer = Response::new(full(problem.of_request(id.clone()).to_json()));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        guard(answer.headers_mut());
        answer
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), headers: HeaderMap::new() }
    }
}

pub fn method_refused(allowed: &str) -> Refusal {
    let detail = format!("this address takes {allowed}");
    Refusal::new(Code::MethodNotAllowed, detail).with(ALLOW, header_value(allowed))
}

pub fn too_large(most: u64) -> Refusal {
    Refusal::new(Code::TooLarge, format!("this function takes a body of at most {most} bytes"))
}

pub fn full(bytes: impl Into<Bytes>) -> AnswerBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("parsed names and numbers are valid in a header")
}
