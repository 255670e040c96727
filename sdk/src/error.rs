//! Why a call is refused, and what its caller and its log are told of it.

use std::fmt;

use serde::Serialize;

/// Why a call is refused: a status, and a sentence for the caller.
///
/// Any [`std::error::Error`] becomes one of status 500 that keeps its own words from the caller.
pub struct Error {
    status: u16,
    message: String,
    /// For the log alone.
    cause: Option<String>,
}

impl Error {
    /// A status of 400 to 599; any other is a mistake of the function, and answered as 500.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), cause: None }
    }

    /// One of which the caller learns nothing but that it was not theirs.
    pub(crate) fn failed(cause: String) -> Self {
        Self { status: 500, message: "the function failed".to_owned(), cause: Some(cause) }
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    /// The sentence for the caller.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The status and the body of the answer. What only the log may know goes to standard error.
    pub(crate) fn into_problem(mut self) -> (u16, Vec<u8>) {
        #[derive(Serialize)]
        struct Problem<'a> {
            r#type: &'static str,
            status: u16,
            detail: &'a str,
        }
        if !(400..=599).contains(&self.status) {
            eprintln!("{} is not the status of an error", self.status);
            self.status = 500;
        }
        if let Some(cause) = &self.cause {
            eprintln!("{cause}");
        }
        let problem = Problem { r#type: "about:blank", status: self.status, detail: &self.message };
        (self.status, serde_json::to_vec(&problem).expect("a problem is plain data"))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.message)?;
        self.cause.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

// `Error` is therefore no `std::error::Error` itself: the two would overlap.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut cause = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            cause = format!("{cause}: {error}");
            source = error.source();
        }
        Self::failed(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(error: Error) -> (u16, String) {
        let (status, body) = error.into_problem();
        (status, String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_refusal_is_a_problem_with_its_status() {
        assert_eq!(
            problem(Error::new(422, "no \"zero\"")),
            (422, r#"{"type":"about:blank","status":422,"detail":"no \"zero\""}"#.to_owned())
        );
    }

    #[test]
    fn a_status_that_is_no_errors_is_500() {
        for status in [0, 200, 399, 600, 999] {
            assert_eq!(problem(Error::new(status, "said")).0, 500, "{status}");
        }
    }

    #[test]
    fn the_words_of_other_errors_stay_inside() {
        let error = Error::from(std::io::Error::other("password"));
        assert_eq!(format!("{error:?}"), "500 the function failed: password");
        assert!(!problem(error).1.contains("password"));
    }
}
