//! A handler of WASI 0.2, and one of WASI 0.3, around a core module.

/// What a core module needs so that [`of_core`] takes it: a handler that does nothing.
pub const RETURNS: &str = r#"(func (export "handle") (param i32 i32))"#;

/// A component that handles calls with what its core module exports as `handle`.
pub fn of_core(core: &str) -> Vec<u8> {
    with("", "", core)
}

/// One that does nothing, and has these imports.
pub fn importing(imports: &str) -> Vec<u8> {
    with(imports, "", RETURNS)
}

/// One with imports and definitions of its own, and what of them the core module is given. The
/// types of a call are called `$request` and `$out`.
pub fn with(defined: &str, given: &str, core: &str) -> Vec<u8> {
    parse(&format!(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            {defined}
            (core module $core {core})
            (core instance $core (instantiate $core {given}))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $core "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    ))
}

/// The same on WASI 0.3, whose function is asynchronous: the core module exports `handle`, which
/// is given a request and returns what to do next, and `callback`, which is then called with an
/// event.
///
/// There is a memory (`(core memory $m "m")`, with a `realloc` beside it that gives what nobody
/// has), and the core module may import `$return`, `task.return` of the call's answer. The types
/// and functions of `wasi:http/types` that have to do with bodies are `$http`'s; `$fields`,
/// `$request`, `$response`, `$trailers` and `$sent` are the types of the first.
pub fn asynchronous(defined: &str, given: &str, core: &str) -> Vec<u8> {
    parse(&format!(
        r#"(component
            {HTTP}
            (core module $memory
                (memory (export "m") 2)
                (global $next (mut i32) (i32.const 65536))
                (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                    (global.get $next)
                    (global.set $next (i32.and (i32.const -8)
                        (i32.add (i32.const 7) (i32.add (global.get $next) (local.get 3)))))))
            (core instance $m (instantiate $memory))
            (type $answer (result (own $response) (error $error-code)))
            (core func $return (canon task.return (result $answer) (memory (core memory $m "m"))))
            {defined}
            (core module $core {core})
            (core instance $core (instantiate $core {given}))
            (func $handle async (param "request" (own $request)) (result $answer)
                (canon lift (core func $core "handle") async (memory (core memory $m "m"))
                    (callback (core func $core "callback"))))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/handler@0.3.0" (instance $handler)))"#
    ))
}

/// One that needs an interface of another host's, by this name, as soon as it is called.
pub fn needing(interface: &str) -> Vec<u8> {
    let defined = format!(
        r#"(import "{interface}" (instance $theirs (export "get" (func (result u32)))))
        (core func $get (canon lower (func $theirs "get")))"#
    );
    let given = r#"(with "theirs" (instance (export "get" (func $get))))"#;
    let core = r#"(import "theirs" "get" (func $get (result i32)))
        (func (export "handle") (param i32 i32) (drop (call $get)))"#;
    with(&defined, given, core)
}

/// The same on WASI 0.3, of whose interface the function is asynchronous.
pub fn needing_later(interface: &str) -> Vec<u8> {
    let defined = format!(
        r#"(import "{interface}" (instance $theirs (export "get" (func async (result u32)))))
        (core func $get (canon lower (func $theirs "get") async (memory (core memory $m "m"))))"#
    );
    let given = r#"(with "theirs" (instance (export "get" (func $get))))"#;
    let core = r#"(import "theirs" "get" (func $get (param i32) (result i32)))
        (func (export "handle") (param i32) (result i32)
            (drop (call $get (i32.const 0))) (unreachable))
        (func (export "callback") (param i32 i32 i32) (result i32) (unreachable))"#;
    asynchronous(&defined, given, core)
}

/// The same component with a type at its end that is asynchronous and that nobody uses: whatever it
/// was before, the engine with concurrency runs it now.
pub fn concurrent(component: &[u8]) -> Vec<u8> {
    // A section of component types, with one in it: a stream of bytes.
    const STREAM: [u8; 6] = [7, 4, 1, 0x66, 1, 0x7d];
    [component, &STREAM].concat()
}

/// What the handler's types are made of, and how bodies are come by.
const HTTP: &str = r#"
    (import "wasi:http/types@0.3.0" (instance $http
        (export "fields" (type $fields (sub resource)))
        (export "request" (type $request (sub resource)))
        (export "response" (type $response (sub resource)))
        (type $dns (record (field "rcode" (option string)) (field "info-code" (option u16))))
        (export "DNS-error-payload" (type $dns-error (eq $dns)))
        (type $tls (record
            (field "alert-id" (option u8)) (field "alert-message" (option string))))
        (export "TLS-alert-received-payload" (type $tls-alert (eq $tls)))
        (type $size (record
            (field "field-name" (option string)) (field "field-size" (option u32))))
        (export "field-size-payload" (type $field-size (eq $size)))
        (type $code (variant
            (case "DNS-timeout")
            (case "DNS-error" $dns-error)
            (case "destination-not-found")
            (case "destination-unavailable")
            (case "destination-IP-prohibited")
            (case "destination-IP-unroutable")
            (case "connection-refused")
            (case "connection-terminated")
            (case "connection-timeout")
            (case "connection-read-timeout")
            (case "connection-write-timeout")
            (case "connection-limit-reached")
            (case "TLS-protocol-error")
            (case "TLS-certificate-error")
            (case "TLS-alert-received" $tls-alert)
            (case "HTTP-request-denied")
            (case "HTTP-request-length-required")
            (case "HTTP-request-body-size" (option u64))
            (case "HTTP-request-method-invalid")
            (case "HTTP-request-URI-invalid")
            (case "HTTP-request-URI-too-long")
            (case "HTTP-request-header-section-size" (option u32))
            (case "HTTP-request-header-size" (option $field-size))
            (case "HTTP-request-trailer-section-size" (option u32))
            (case "HTTP-request-trailer-size" $field-size)
            (case "HTTP-response-incomplete")
            (case "HTTP-response-header-section-size" (option u32))
            (case "HTTP-response-header-size" $field-size)
            (case "HTTP-response-body-size" (option u64))
            (case "HTTP-response-trailer-section-size" (option u32))
            (case "HTTP-response-trailer-size" $field-size)
            (case "HTTP-response-transfer-coding" (option string))
            (case "HTTP-response-content-coding" (option string))
            (case "HTTP-response-timeout")
            (case "HTTP-upgrade-failed")
            (case "HTTP-protocol-error")
            (case "loop-detected")
            (case "configuration-error")
            (case "internal-error" (option string))))
        (export "error-code" (type $error-code (eq $code)))
        (type $trailers (future (result (option (own $fields)) (error $error-code))))
        (type $sent (future (result (error $error-code))))
        (export "[constructor]fields" (func (result (own $fields))))
        (export "[method]request.get-path-with-query"
            (func (param "self" (borrow $request)) (result (option string))))
        (export "[static]request.consume-body"
            (func (param "this" (own $request)) (param "res" $sent)
                (result (tuple (stream u8) $trailers))))
        (export "[static]response.new"
            (func (param "headers" (own $fields)) (param "contents" (option (stream u8)))
                (param "trailers" $trailers) (result (tuple (own $response) $sent))))))
    (alias export $http "fields" (type $fields))
    (alias export $http "request" (type $request))
    (alias export $http "response" (type $response))
    (alias export $http "error-code" (type $error-code))
    (type $trailers (future (result (option (own $fields)) (error $error-code))))
    (type $sent (future (result (error $error-code))))"#;

fn parse(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}
