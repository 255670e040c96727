//! `wasi:logging`: what a function says goes to whoever made its surroundings, with its level. A
//! context, where there is one, stands before the message.

use wasmtime::component::HasData;

use crate::Guest;
pub use bindings::wasi::logging::logging::Level;

pub(crate) mod bindings {
    wasmtime::component::bindgen!({ path: "../../sdk/wit/wasi-logging", world: "wasi:logging/imports" });
}

/// Who takes it. What is too long is theirs to cut.
pub trait Listener: Send {
    fn said(&self, level: Level, text: String);
}

pub(crate) struct Log(Box<dyn Listener>);

impl Log {
    pub(crate) fn new(listener: impl Listener + 'static) -> Self {
        Self(Box::new(listener))
    }
}

pub(crate) struct Logging;

impl HasData for Logging {
    type Data<'a> = &'a mut Log;
}

pub(crate) fn view(guest: &mut Guest) -> &mut Log {
    &mut guest.surroundings.log
}

impl bindings::wasi::logging::logging::Host for Log {
    fn log(&mut self, level: Level, context: String, message: String) {
        let text = match context.is_empty() {
            true => message,
            false => format!("{context}: {message}"),
        };
        self.0.said(level, text);
    }
}

/// Nobody listens.
pub(crate) struct Deaf;

impl Listener for Deaf {
    fn said(&self, _: Level, _: String) {}
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use bindings::wasi::logging::logging::Host;

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<(Level, String)>>>);

    impl Listener for Heard {
        fn said(&self, level: Level, text: String) {
            self.0.lock().unwrap().push((level, text));
        }
    }

    #[test]
    fn a_context_stands_before_the_message() {
        let heard = Heard::default();
        let mut log = Log::new(heard.clone());
        log.log(Level::Warn, String::new(), "it is late".to_owned());
        log.log(Level::Critical, "orders".to_owned(), "it is lost".to_owned());
        let heard = heard.0.lock().unwrap().clone();
        assert!(matches!(&heard[0], (Level::Warn, text) if text == "it is late"));
        assert!(matches!(&heard[1], (Level::Critical, text) if text == "orders: it is lost"));
    }
}
