//! The functions that the tests upload, one for each behaviour. The compiler checks both ways:
//! a name without a module does not compile, and neither does a file of `functions/testing`
//! that is not listed here or that no test uses.

macro_rules! guests {
    ($($name:ident)*) => {
        $(pub fn $name() -> &'static [u8] {
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../target/wasm32-wasip2/release/",
                stringify!($name),
                ".wasm"
            ))
        })*
    };
}

guests! {
    answers
    answers_once
    answers_twice
    answers_with
    asks_random
    axum_app
    big_response
    calls_out
    counts
    declares_late
    declares_options
    declares_schemas
    dirties_memory
    draws
    eats_memory
    echo
    ends_early
    fills_memory
    hoards
    imports_blobs
    keeps
    lifts
    loops
    measures_state
    mirrors
    misstates_length
    no_response
    prints
    prints_on
    reads_env
    reads_settings
    recurses
    repeats_one
    repeats_two
    sends_on
    slow
    spin_app
    spin_variables
    spins
    sql_batches
    sql_spin_three
    sql_spin_two
    stalls
    stores_draft
    stores_draft2
    stores_spin2
    stores_spin3
    stores_standard
    streams
    traps
    version_one
    version_two
    wasip3_hello
    wasip3_keeps
    wasip3_reads_settings
    wasip3_sql
    wasip3_writes_nothing
    writes_nothing
    wstd_hello
}

include!(concat!(env!("OUT_DIR"), "/guests.rs"));

macro_rules! is_listed {
    ($name:ident) => {
        #[expect(unused_imports, reason = "the import itself is the check")]
        use self::$name as _;
    };
}
for_each_guest!(is_listed);

/// A core module, which is no component: header and nothing else.
pub fn core_module() -> &'static [u8] {
    b"\0asm\x01\0\0\0"
}
