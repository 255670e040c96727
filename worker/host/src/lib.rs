//! Every interface that a function can import, as one list: it makes the linker with which
//! compiler and worker both link, so that a component that was taken cannot fail to link later;
//! by it an upload is refused by name; and it says what may stay in an instance between two
//! calls. Beside the list, what an instance has for these interfaces.
//!
//! A file for each package has its bindings, its bounds and, where somebody else answers, what
//! that one is asked and what stands in its place where everything is denied, as in the
//! compiler's probes. An interface is added by such a file, a row in [`INTERFACES`] and, if an
//! instance needs something for it, a field of [`Guest`].
//!
//! Rights are not given by linking. The filesystem and the sockets are here since the runtimes of
//! Go and Python import them, and no instance has a directory or a socket.

mod cli;
mod clocks;
mod config;
mod elsewhere;
mod filesystem;
mod http;
mod io;
pub mod keyvalue;
mod link;
mod logging;
mod memory;
mod offer;
mod random;
mod sockets;
pub mod sql;
mod store;
mod surroundings;

use std::any::TypeId;
use std::sync::Arc;

use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::cli::WasiCli;
use wasmtime_wasi::clocks::WasiClocks;
use wasmtime_wasi::filesystem::WasiFilesystem;
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::sockets::WasiSockets;
use wasmtime_wasi::{p2::bindings as p2, p3::bindings as p3};
use wasmtime_wasi_http::{
    WasiHttp, WasiHttpHooks, p2::bindings::http as http2, p3::bindings::http as http3,
};

pub use config::Settings;
pub use elsewhere::{Unavailable, is_elsewhere};
pub use link::{Handler, LinkError, Linkers, engine, instantiate, linkers, prepare, share};
pub use logging::{Level, Listener};
pub use memory::MemoryLimit;
pub use offer::{Offer, is_offered, needs_concurrency, offered};
pub use store::{is_settled, store};
pub use surroundings::Surroundings;

/// What a function can import under one name.
pub struct Interface {
    /// With its package and without a version.
    pub name: &'static str,
    pub versions: &'static [Version],
    /// Of the resources that it brings, the types of those that may be left in an instance which
    /// serves another call: none that is open, or half done, for the call before. Whatever is not
    /// named here ends its instance with its call.
    pub may_stay: &'static [TypeId],
}

/// Adds the functions of an interface to a linker.
type Link = fn(&mut Linker<Guest>) -> wasmtime::Result<()>;

pub struct Version {
    /// As it is linked. It serves every release that is compatible with it.
    pub number: &'static str,
    /// Whether its functions are asynchronous, or pass streams or futures. An engine without the
    /// component model's concurrency refuses such functions while it links them.
    pub needs_concurrency: bool,
    link: Link,
    /// As another text has it that goes by the same name and number, for components that the first
    /// one does not fit.
    other: Option<Link>,
}

/// A version whose functions are called and return.
const fn plain(number: &'static str, link: Link) -> Version {
    Version { number, needs_concurrency: false, link, other: None }
}

const fn concurrent(number: &'static str, link: Link) -> Version {
    Version { number, needs_concurrency: true, link, other: None }
}

/// One that is two texts.
const fn ambiguous(number: &'static str, link: Link, other: Link) -> Version {
    Version { number, needs_concurrency: false, link, other: Some(other) }
}

pub static INTERFACES: &[Interface] = &[
    Interface {
        name: "wasi:cli/environment",
        versions: &[
            plain("0.2.12", |l| p2::cli::environment::add_to_linker::<_, WasiCli>(l, cli::view)),
            plain("0.3.0", |l| p3::cli::environment::add_to_linker::<_, WasiCli>(l, cli::view)),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:cli/exit",
        versions: &[
            plain("0.2.12", |l| p2::cli::exit::add_to_linker::<_, WasiCli>(l, cli::view)),
            plain("0.3.0", |l| p3::cli::exit::add_to_linker::<_, WasiCli>(l, cli::view)),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:cli/types",
        versions: &[plain("0.3.0", |l| {
            p3::cli::types::add_to_linker::<_, cli::Types>(l, |_| cli::Types)
        })],
        may_stay: &[],
    },
    Interface {
        name: "wasi:cli/stdin",
        versions: &[
            plain("0.2.12", |l| p2::cli::stdin::add_to_linker::<_, WasiCli>(l, cli::view)),
            concurrent("0.3.0", |l| p3::cli::stdin::add_to_linker::<_, WasiCli>(l, cli::view)),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:cli/stdout",
        versions: &[
            plain("0.2.12", |l| p2::cli::stdout::add_to_linker::<_, WasiCli>(l, cli::view)),
            concurrent("0.3.0", |l| p3::cli::stdout::add_to_linker::<_, WasiCli>(l, cli::view)),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:cli/stderr",
        versions: &[
            plain("0.2.12", |l| p2::cli::stderr::add_to_linker::<_, WasiCli>(l, cli::view)),
            concurrent("0.3.0", |l| p3::cli::stderr::add_to_linker::<_, WasiCli>(l, cli::view)),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:cli/terminal-input",
        versions: &[
            plain("0.2.12", |l| p2::cli::terminal_input::add_to_linker::<_, WasiCli>(l, cli::view)),
            plain("0.3.0", |l| p3::cli::terminal_input::add_to_linker::<_, WasiCli>(l, cli::view)),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:cli/terminal-output",
        versions: &[
            plain("0.2.12", |l| {
                p2::cli::terminal_output::add_to_linker::<_, WasiCli>(l, cli::view)
            }),
            plain("0.3.0", |l| p3::cli::terminal_output::add_to_linker::<_, WasiCli>(l, cli::view)),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:cli/terminal-stdin",
        versions: &[
            plain("0.2.12", |l| p2::cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, cli::view)),
            plain("0.3.0", |l| p3::cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, cli::view)),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:cli/terminal-stdout",
        versions: &[
            plain("0.2.12", |l| {
                p2::cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, cli::view)
            }),
            plain("0.3.0", |l| p3::cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, cli::view)),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:cli/terminal-stderr",
        versions: &[
            plain("0.2.12", |l| {
                p2::cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, cli::view)
            }),
            plain("0.3.0", |l| p3::cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, cli::view)),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:clocks/types",
        versions: &[plain("0.3.0", |l| {
            p3::clocks::types::add_to_linker::<_, WasiClocks>(l, clocks::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "wasi:clocks/monotonic-clock",
        versions: &[
            plain("0.2.12", |l| {
                p2::clocks::monotonic_clock::add_to_linker::<_, WasiClocks>(l, clocks::view)
            }),
            concurrent("0.3.0", |l| {
                p3::clocks::monotonic_clock::add_to_linker::<_, WasiClocks>(l, clocks::view)
            }),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:clocks/wall-clock",
        versions: &[plain("0.2.12", |l| {
            p2::clocks::wall_clock::add_to_linker::<_, WasiClocks>(l, clocks::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "wasi:clocks/system-clock",
        versions: &[plain("0.3.0", |l| {
            p3::clocks::system_clock::add_to_linker::<_, WasiClocks>(l, clocks::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "wasi:random/random",
        versions: &[
            plain("0.2.12", |l| {
                p2::random::random::add_to_linker::<_, WasiRandom>(l, random::view)
            }),
            plain("0.3.0", |l| p3::random::random::add_to_linker::<_, WasiRandom>(l, random::view)),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:random/insecure",
        versions: &[
            plain("0.2.12", |l| {
                p2::random::insecure::add_to_linker::<_, WasiRandom>(l, random::view)
            }),
            plain("0.3.0", |l| {
                p3::random::insecure::add_to_linker::<_, WasiRandom>(l, random::view)
            }),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:random/insecure-seed",
        versions: &[
            plain("0.2.12", |l| {
                p2::random::insecure_seed::add_to_linker::<_, WasiRandom>(l, random::view)
            }),
            plain("0.3.0", |l| {
                p3::random::insecure_seed::add_to_linker::<_, WasiRandom>(l, random::view)
            }),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:io/error",
        versions: &[plain("0.2.12", |l| p2::io::error::add_to_linker::<_, io::Io>(l, io::view))],
        may_stay: &[TypeId::of::<p2::io::error::Error>()],
    },
    Interface {
        name: "wasi:io/poll",
        versions: &[plain("0.2.12", |l| p2::io::poll::add_to_linker::<_, io::Io>(l, io::view))],
        may_stay: &[TypeId::of::<p2::io::poll::Pollable>()],
    },
    Interface {
        name: "wasi:io/streams",
        versions: &[plain("0.2.12", |l| p2::io::streams::add_to_linker::<_, io::Io>(l, io::view))],
        // A stream of a body's has that body beside it, which may not stay.
        may_stay: &[
            TypeId::of::<p2::io::streams::InputStream>(),
            TypeId::of::<p2::io::streams::OutputStream>(),
        ],
    },
    Interface {
        name: "wasi:filesystem/types",
        versions: &[
            plain("0.2.12", |l| {
                p2::filesystem::types::add_to_linker::<_, WasiFilesystem>(l, filesystem::view)
            }),
            concurrent("0.3.0", |l| {
                p3::filesystem::types::add_to_linker::<_, WasiFilesystem>(l, filesystem::view)
            }),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:filesystem/preopens",
        versions: &[
            plain("0.2.12", |l| {
                p2::filesystem::preopens::add_to_linker::<_, WasiFilesystem>(l, filesystem::view)
            }),
            plain("0.3.0", |l| {
                p3::filesystem::preopens::add_to_linker::<_, WasiFilesystem>(l, filesystem::view)
            }),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:sockets/types",
        versions: &[concurrent("0.3.0", |l| {
            p3::sockets::types::add_to_linker::<_, WasiSockets>(l, sockets::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "wasi:sockets/network",
        versions: &[plain("0.2.12", |l| {
            let options = p2::sockets::network::LinkOptions::default();
            p2::sockets::network::add_to_linker::<_, WasiSockets>(l, &options, sockets::view)
        })],
        // The C library asks for it once in an instance's life, and there is nothing behind it.
        may_stay: &[TypeId::of::<p2::sockets::network::Network>()],
    },
    Interface {
        name: "wasi:sockets/instance-network",
        versions: &[plain("0.2.12", |l| {
            p2::sockets::instance_network::add_to_linker::<_, WasiSockets>(l, sockets::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "wasi:sockets/ip-name-lookup",
        versions: &[
            plain("0.2.12", |l| {
                p2::sockets::ip_name_lookup::add_to_linker::<_, WasiSockets>(l, sockets::view)
            }),
            concurrent("0.3.0", |l| {
                p3::sockets::ip_name_lookup::add_to_linker::<_, WasiSockets>(l, sockets::view)
            }),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:sockets/tcp",
        versions: &[plain("0.2.12", |l| {
            p2::sockets::tcp::add_to_linker::<_, WasiSockets>(l, sockets::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "wasi:sockets/tcp-create-socket",
        versions: &[plain("0.2.12", |l| {
            p2::sockets::tcp_create_socket::add_to_linker::<_, WasiSockets>(l, sockets::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "wasi:sockets/udp",
        versions: &[plain("0.2.12", |l| {
            p2::sockets::udp::add_to_linker::<_, WasiSockets>(l, sockets::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "wasi:sockets/udp-create-socket",
        versions: &[plain("0.2.12", |l| {
            p2::sockets::udp_create_socket::add_to_linker::<_, WasiSockets>(l, sockets::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "wasi:logging/logging",
        versions: &[plain("0.1.0-draft", |l| {
            logging::bindings::wasi::logging::logging::add_to_linker::<_, logging::Logging>(
                l,
                logging::view,
            )
        })],
        may_stay: &[],
    },
    Interface {
        name: "wasi:http/types",
        versions: &[
            plain("0.2.12", |l| {
                let options = http2::types::LinkOptions::default();
                http2::types::add_to_linker::<_, WasiHttp>(l, &options, http::view)
            }),
            concurrent("0.3.0", |l| http3::types::add_to_linker::<_, WasiHttp>(l, http::view)),
        ],
        // What is written down for a request that is still to be made. A request or an answer that
        // came or went, or its body, would stay open as long as it is held.
        may_stay: &[
            TypeId::of::<http2::types::Fields>(),
            TypeId::of::<http2::types::RequestOptions>(),
            TypeId::of::<http3::types::RequestOptions>(),
        ],
    },
    Interface {
        name: "wasi:http/outgoing-handler",
        versions: &[plain("0.2.12", |l| {
            http2::outgoing_handler::add_to_linker::<_, WasiHttp>(l, http::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "wasi:http/client",
        versions: &[concurrent("0.3.0", |l| {
            http3::client::add_to_linker::<_, WasiHttp>(l, http::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "wasi:config/store",
        versions: &[
            plain("0.2.0-draft", |l| {
                config::draft::store::add_to_linker::<_, config::Config>(l, config::view)
            }),
            plain("0.2.0-draft-2024-09-27", |l| {
                config::draft_2024_09_27::store::add_to_linker::<_, config::Config>(l, config::view)
            }),
            plain("0.2.0-rc.1", |l| {
                config::rc_1::store::add_to_linker::<_, config::Config>(l, config::view)
            }),
        ],
        may_stay: &[],
    },
    Interface {
        name: "wasi:config/runtime",
        versions: &[plain("0.2.0-draft", |l| {
            config::draft::runtime::add_to_linker::<_, config::Config>(l, config::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "fermyon:spin/variables",
        versions: &[plain("2.0.0", |l| {
            config::variables_2::add_to_linker::<_, config::Config>(l, config::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "spin:variables/variables",
        versions: &[concurrent("3.0.0", |l| {
            config::variables_3::add_to_linker::<_, config::Config>(l, config::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "wasi:keyvalue/store",
        versions: &[
            plain("0.2.0-draft2", |l| {
                keyvalue::draft2::store::add_to_linker::<_, keyvalue::KeyValue>(l, keyvalue::view)
            }),
            plain("0.2.0-draft", |l| {
                keyvalue::draft::store::add_to_linker::<_, keyvalue::KeyValue>(l, keyvalue::view)
            }),
        ],
        // A store that was opened, of whichever text: there is nothing of a call in it.
        may_stay: &[TypeId::of::<keyvalue::Open>()],
    },
    Interface {
        name: "wasi:keyvalue/atomics",
        versions: &[
            plain("0.2.0-draft2", |l| {
                keyvalue::draft2::atomics::add_to_linker::<_, keyvalue::KeyValue>(l, keyvalue::view)
            }),
            plain("0.2.0-draft", |l| {
                keyvalue::draft::atomics::add_to_linker::<_, keyvalue::KeyValue>(l, keyvalue::view)
            }),
        ],
        // A compare-and-swap that was begun is its call's.
        may_stay: &[],
    },
    Interface {
        name: "wasi:keyvalue/batch",
        versions: &[
            ambiguous(
                "0.2.0-draft2",
                |l| {
                    keyvalue::draft2::batch::add_to_linker::<_, keyvalue::KeyValue>(
                        l,
                        keyvalue::view,
                    )
                },
                |l| {
                    keyvalue::draft2::standard::batch::add_to_linker::<_, keyvalue::KeyValue>(
                        l,
                        keyvalue::view,
                    )
                },
            ),
            plain("0.2.0-draft", |l| {
                keyvalue::draft::batch::add_to_linker::<_, keyvalue::KeyValue>(l, keyvalue::view)
            }),
        ],
        may_stay: &[],
    },
    Interface {
        name: "fermyon:spin/key-value",
        versions: &[plain("2.0.0", |l| {
            keyvalue::spin2::key_value::add_to_linker::<_, keyvalue::KeyValue>(l, keyvalue::view)
        })],
        may_stay: &[TypeId::of::<keyvalue::Open>()],
    },
    Interface {
        name: "spin:key-value/key-value",
        versions: &[concurrent("3.0.0", |l| {
            keyvalue::spin3::key_value::add_to_linker::<_, keyvalue::KeyValue>(l, keyvalue::view)
        })],
        may_stay: &[TypeId::of::<keyvalue::Open>()],
    },
    Interface {
        name: "hearth:platform/keyvalue",
        versions: &[plain("0.1.0", |l| {
            keyvalue::platform::keyvalue::add_to_linker::<_, keyvalue::KeyValue>(l, keyvalue::view)
        })],
        may_stay: &[],
    },
    // A connection ends with its call, and what it had begun with it.
    Interface {
        name: "fermyon:spin/sqlite",
        versions: &[plain("2.0.0", |l| {
            sql::spin2::sqlite::add_to_linker::<_, sql::Sql>(l, sql::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "spin:sqlite/sqlite",
        versions: &[concurrent("3.1.0", |l| {
            sql::spin3::sqlite::add_to_linker::<_, sql::Sql>(l, sql::view)
        })],
        may_stay: &[],
    },
    Interface {
        name: "hearth:platform/sql",
        versions: &[plain("0.1.0", |l| {
            sql::platform::sql::add_to_linker::<_, sql::Sql>(l, sql::view)
        })],
        may_stay: &[],
    },
];

impl Interface {
    pub fn package(&self) -> &'static str {
        self.name.split_once('/').map_or(self.name, |(package, _)| package)
    }
}

/// What is in the store of one instance.
pub struct Guest {
    table: ResourceTable,
    surroundings: Surroundings,
    http: http::Sender,
    settings: Arc<Settings>,
    keyvalue: keyvalue::Keeper,
    sql: Arc<dyn sql::Databases>,
    memory: MemoryLimit,
}

/// Who answers where that is neither the instance nor this crate.
pub struct Backends {
    /// Requests that a function makes.
    pub http: Box<dyn WasiHttpHooks>,
    /// What its functions are told by name.
    pub settings: Arc<Settings>,
    /// Its key-value stores.
    pub keyvalue: Arc<dyn keyvalue::Stores>,
    /// Its databases.
    pub sql: Arc<dyn sql::Databases>,
}

impl Backends {
    /// Each says no, and there is nothing to be told.
    pub fn denied() -> Self {
        Self::of(Arc::default(), Arc::new(keyvalue::Denied), Arc::new(sql::Denied))
    }

    /// These, and no requests.
    pub fn of(
        settings: Arc<Settings>,
        keyvalue: Arc<dyn keyvalue::Stores>,
        sql: Arc<dyn sql::Databases>,
    ) -> Self {
        Self { http: Box::new(http::Denied), settings, keyvalue, sql }
    }
}

impl Guest {
    pub fn new(surroundings: Surroundings, backends: Backends, memory_bytes: usize) -> Self {
        let Backends { http, settings, keyvalue, sql } = backends;
        Self {
            table: store::table(),
            surroundings,
            http: http::Sender::new(http),
            settings,
            keyvalue: keyvalue::Keeper::new(keyvalue),
            sql,
            memory: MemoryLimit::new(memory_bytes),
        }
    }

    /// One that is only tried: it says nothing to anybody and has no right.
    pub fn denied(memory_bytes: usize) -> Self {
        Self::new(Surroundings::denied(), Backends::denied(), memory_bytes)
    }

    pub fn memory(&mut self) -> &mut MemoryLimit {
        &mut self.memory
    }

    /// What the next instance can have. The guest's resources end here.
    pub fn into_surroundings(self) -> Surroundings {
        self.surroundings
    }
}
