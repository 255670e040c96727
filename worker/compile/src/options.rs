//! What a module declares of its own options: the exported interface `hearth:function/options`,
//! called once in a throw-away store that has no rights.
//!
//! Only calls and bounds. What the text says is parsed by whoever asked.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use hearth_engine::reason;
use hearth_host::{Guest, Handler};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex};
use wasmtime::{Engine, Store};

const INTERFACE: &str = "hearth:function/options";
const FUNCTION: &str = "get";
const TIME: Duration = Duration::from_secs(1);
const MEMORY_BYTES: usize = 64 << 20;
/// For a thread that only waits.
const STACK_BYTES: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the exported interface `{INTERFACE}` has no function `get: func() -> string`")]
    Shape,
    #[error("`{INTERFACE}` was asked for the options and did not answer within a second")]
    Late,
    #[error("`{INTERFACE}` was asked for the options and failed: {0}")]
    Failed(String),
}

/// The options as the module declares them; `None` where it declares none.
pub fn declared(
    engine: &Engine,
    watchdog: &Watchdog,
    handler: &Handler,
    component: &Component,
) -> Result<Option<String>, Refusal> {
    let Some(get) = find(engine, component)? else { return Ok(None) };
    let asked = ask(engine, watchdog, async |store: &mut Store<Guest>| {
        let instance = hearth_host::instantiate(handler, store).await?;
        let get = instance.get_typed_func::<(), (String,)>(&mut *store, &get)?;
        get.call_async(store, ()).await
    });
    match asked {
        Ok((options,)) => Ok(Some(options)),
        Err(Unanswered::Late) => Err(Refusal::Late),
        Err(Unanswered::Failed(reason)) => Err(Refusal::Failed(reason)),
    }
}

/// The thread that ends what runs for too long. Started before anything of a stranger's is looked
/// at, since no thread can be later.
pub struct Watchdog {
    watches: Sender<Watch>,
}

struct Watch {
    engine: Engine,
    finished: Receiver<()>,
    /// Dropped when nothing more comes of it.
    over: Sender<()>,
}

/// Something that runs; ends with what ran.
struct Watched {
    finished: Option<Sender<()>>,
    over: Receiver<()>,
}

impl Watchdog {
    pub fn start() -> io::Result<Self> {
        let (watches, all) = mpsc::channel::<Watch>();
        let thread = std::thread::Builder::new().name("watchdog".to_owned());
        thread.stack_size(STACK_BYTES).spawn(move || {
            for Watch { engine, finished, over } in all {
                let _ = finished.recv_timeout(TIME);
                engine.increment_epoch();
                drop(over);
            }
        })?;
        Ok(Self { watches })
    }

    fn watch(&self, engine: &Engine) -> Watched {
        let ((finished, waiting), (ends, over)) = (mpsc::channel(), mpsc::channel());
        let watch = Watch { engine: engine.clone(), finished: waiting, over: ends };
        self.watches.send(watch).expect("the watchdog only waits");
        Watched { finished: Some(finished), over }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.finished.take());
        // So that it ends nothing that runs later.
        let _ = self.over.recv();
    }
}

/// Why a component that was asked something gave no answer.
pub enum Unanswered {
    Late,
    Failed(String),
}

/// Asks in a store of its own, which has no rights, for a second at most.
pub fn ask<T>(
    engine: &Engine,
    watchdog: &Watchdog,
    question: impl AsyncFnOnce(&mut Store<Guest>) -> wasmtime::Result<T>,
) -> Result<T, Unanswered> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| Unanswered::Failed(error.to_string()))?;

    // A loop is stopped by the epoch, a wait by the timeout around it.
    let watched = watchdog.watch(engine);
    let mut store = hearth_host::store(engine, Guest::denied(MEMORY_BYTES));
    store.set_epoch_deadline(1);
    let asked = runtime.block_on(async { tokio::time::timeout(TIME, question(&mut store)).await });
    drop(watched);
    match asked {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) if matches!(error.downcast_ref(), Some(wasmtime::Trap::Interrupt)) => {
            Err(Unanswered::Late)
        }
        Ok(Err(error)) => Err(Unanswered::Failed(reason(&error))),
        Err(_) => Err(Unanswered::Late),
    }
}

fn find(engine: &Engine, component: &Component) -> Result<Option<ComponentExportIndex>, Refusal> {
    let ty = component.component_type();
    let named = |name: &str| name == INTERFACE || name.starts_with(&format!("{INTERFACE}@"));
    let Some((name, _)) = ty.exports(engine).find(|(name, _)| named(name)) else {
        return Ok(None);
    };
    let interface = component.get_export_index(None, name).ok_or(Refusal::Shape)?;
    let (item, get) = component.get_export(Some(&interface), FUNCTION).ok_or(Refusal::Shape)?;
    let ComponentItem::ComponentFunc(function) = item else { return Err(Refusal::Shape) };
    let returns_text = function.params().len() == 0
        && function.results().collect::<Vec<_>>() == [wasmtime::component::Type::String];
    if returns_text { Ok(Some(get)) } else { Err(Refusal::Shape) }
}
