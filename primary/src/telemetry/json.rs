//! A line of the log as JSON. It is `tracing-subscriber`'s own but for errors: of these it would
//! write the last word alone, and why it came to that is in their causes.

use std::error::Error;
use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

/// Longer chains are a ring.
const CAUSES_MAX: usize = 32;

pub struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let level = event.metadata().level().as_str();
        let mut line: Vec<(String, Value)> =
            vec![("timestamp".to_owned(), now.into()), ("level".to_owned(), level.into())];
        line.extend(fields.0);
        line.push(("target".to_owned(), event.metadata().target().into()));
        if let Some(scope) = context.event_scope() {
            let spans: Vec<Value> = scope.from_root().map(|span| told::<S, N>(&span)).collect();
            line.extend(spans.last().map(|span| ("span".to_owned(), span.clone())));
            line.push(("spans".to_owned(), spans.into()));
        }
        writeln!(writer, "{}", serde_json::to_string(&InOrder(line)).map_err(|_| fmt::Error)?)
    }
}

/// As they are read, the time first.
struct InOrder(Vec<(String, Value)>);

impl Serialize for InOrder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// A span's fields, which were written as JSON when it was entered, and its name.
fn told<S, N: 'static>(span: &SpanRef<'_, S>) -> Value
where
    S: for<'a> LookupSpan<'a>,
{
    let extensions = span.extensions();
    let fields = extensions.get::<FormattedFields<N>>();
    let fields = fields.and_then(|fields| serde_json::from_str(&fields.fields).ok());
    let mut fields: Map<String, Value> = fields.unwrap_or_default();
    fields.insert("name".to_owned(), span.name().into());
    Value::Object(fields)
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let name = field.name();
        self.0.insert(name.strip_prefix("r#").unwrap_or(name).to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    /// The error, and as the text log has them under the same name, its causes.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, value.to_string());
        let mut causes = Vec::new();
        let mut cause = value.source();
        while let Some(error) = cause.filter(|_| causes.len() < CAUSES_MAX) {
            causes.push(error.to_string());
            cause = error.source();
        }
        if !causes.is_empty() {
            self.0.insert(format!("{}.sources", field.name()), causes.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::format::JsonFields;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the store failed")]
    struct Outer(#[source] io::Error);

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::fmt()
            .fmt_fields(JsonFields::new())
            .event_format(Json)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(log, || {
            let error = Outer(io::Error::other("disk I/O error"));
            let span = tracing::info_span!("request", id = "r-1");
            let _entered = span.enter();
            tracing::warn!(tenant = "a", number = 3, error = &error as &dyn Error, "not written");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["error"], "the store failed", "{text}");
        assert_eq!(line["error.sources"], serde_json::json!(["disk I/O error"]), "{text}");
        assert_eq!((&line["level"], &line["message"]), (&"WARN".into(), &"not written".into()));
        assert_eq!((&line["tenant"], &line["number"]), (&"a".into(), &3.into()), "{text}");
        assert_eq!(
            (&line["span"]["name"], &line["span"]["id"]),
            (&"request".into(), &"r-1".into())
        );
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{text}");
    }
}
