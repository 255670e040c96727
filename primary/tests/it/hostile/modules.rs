//! Modules that no compiler of a language would make, written as text: what is wrong with them is
//! the one line that each test adds to a handler that does nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hearth_e2e::component::{self, RETURNS};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use serde_json::json;

use super::Scene;
use crate::denied::{Denial, Denied, Whose};
use crate::guests;
use crate::host::{Host, upload};
use crate::limits::Growth;
use crate::processes::{children, command_line, eventually, is_alive, signal};

#[test]
fn row_01_one_that_spins_before_it_is_asked_is_stopped() {
    let spins = format!("(func $spins (loop $on (br $on))) (start $spins) {RETURNS}");
    let scene = Scene::of(&component::of_core(&spins), &json!({ "timeout_ms": 300 }));
    scene.refuses("", 504, "timeout");
    assert_eq!(scene.host.workers(&scene.tenant), scene.worker, "the worker lives on");
    scene.ends_well();
}

#[test]
fn row_01_one_that_spins_after_its_answer_is_stopped() {
    let scene = Scene::of(guests::spins(), &json!({ "timeout_ms": 500 }));
    for (at, address) in scene.tenant.addresses().into_iter().enumerate() {
        // Its caller has the whole answer, and waits for nobody.
        assert_eq!(
            address.post("/guest?after=1", "").expect(200).text(),
            "well",
            "{}",
            address.name
        );
        eventually("its end in its log", || {
            let lines = scene.tenant.ask("/logs");
            let lines = lines["lines"].as_array().unwrap().iter();
            let late = lines.filter(|line| line["text"].as_str().unwrap().contains("time was up"));
            (late.count() == at + 1).then_some(())
        });
    }
    scene.serves_on("", "well");
    scene.ends_well();
}

#[test]
fn row_02_one_that_hands_over_a_giant_list_is_stopped() {
    let scene = Scene::of(guests::lifts(), &json!({ "memory_mb": 256 }));
    let growth = scene.growth();
    scene.refuses("?mb=20", 500, "function_trapped");
    scene.refuses("?entries=2000000", 500, "function_trapped");
    scene.serves_on("?entries=100", "well");
    growth.stays_below(320);
    scene.ends_well();
}

#[test]
fn row_03_memories_of_other_kinds_are_refused_at_upload() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    for (name, memory) in [
        ("of 64 bits", "(memory i64 1)"),
        ("shared", "(memory 1 1 shared)"),
        ("many", "(memory 1) (memory 1) (memory 1) (memory 1) (memory 1)"),
    ] {
        let module = component::of_core(&format!("{memory} {RETURNS}"));
        let answer = tenant.upload(&[("odd.wasm", &module)], None);
        println!("{name}: {}", answer.text());
        answer.expect_problem(400, "invalid_module");
        tenant.post("/odd", "").expect_problem(404, "not_found");
    }
    tenant.post("/hello", "{}").expect(200);
}

#[test]
fn row_03_what_the_engine_is_built_without_is_refused_at_upload() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    // One whose compiled code would call what is not there, and abort its worker.
    let subtypes = r#"(type $open (sub (func))) (type $closed (sub $open (func)))
        (func $f (type $closed)) (table funcref (elem $f))
        (func (export "handle") (param i32 i32) (call_indirect (type $open) (i32.const 0)))"#;
    let casts = r#"(type $open (sub (func))) (type $closed (sub $open (func)))
        (func $f (type $closed)) (table funcref (elem $f))
        (func (export "handle") (param i32 i32)
            (drop (ref.test (ref $open) (table.get (i32.const 0)))))"#;
    let with = |types: &str, code: &str| {
        format!(r#"{types} (func (export "handle") (param i32 i32) {code})"#)
    };
    for (name, core) in [
        ("types below others", subtypes.to_owned()),
        ("casts", casts.to_owned()),
        ("structures", with("(type $s (struct))", "(drop (struct.new $s))")),
        ("small numbers by reference", with("", "(drop (ref.i31 (i32.const 1)))")),
        ("references to the outside", with("(table 1 externref)", "")),
        ("exceptions", with("(tag $e)", "(throw $e)")),
        (
            "those who wake",
            with("(memory 1)", "(drop (memory.atomic.notify (i32.const 0) (i32.const 1)))"),
        ),
        (
            "those who wait",
            with(
                "(memory 1)",
                "(drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const 1)))",
            ),
        ),
        ("fences", with("", "(atomic.fence)")),
        (
            "stacks",
            with(
                "(type $f (func)) (type $c (cont $f)) (elem declare func $g) (func $g)",
                "(drop (cont.new $c (ref.func $g)))",
            ),
        ),
    ] {
        let answer = tenant.upload(&[("odd.wasm", &component::of_core(&core))], None);
        println!("{name}: {}", answer.text());
        answer.expect_problem(400, "invalid_module");
        tenant.post("/odd", "").expect_problem(404, "not_found");
    }
    tenant.post("/hello", "{}").expect(200);
}

#[test]
fn row_04_what_is_written_without_a_byte_takes_no_memory_of_the_hosts() {
    // Kept, so many would be more than what the growth may be.
    const MANY: usize = 300_000;
    for (name, module) in
        [("0.2", guests::writes_nothing()), ("0.3", guests::wasip3_writes_nothing())]
    {
        let scene = Scene::of(module, &json!({ "timeout_ms": 60_000 }));
        // To standard output, to standard error, and to the answer.
        for to in 0..3 {
            scene.serves_on(&format!("?times=1000&to={to}"), "1000 times nothing");
        }
        let growth = [scene.growth(), Growth::of(scene.host.pid())];
        for to in 0..3 {
            let begun = Instant::now();
            let answer = scene.tenant.post(&format!("/guest?times={MANY}&to={to}"), "").expect(200);
            println!("{name} to {to}: {:?}", begun.elapsed());
            assert_eq!(answer.text(), format!("{MANY} times nothing"));
        }
        for growth in growth {
            growth.stays_below(8);
        }
        scene.ends_well();
    }
}

#[test]
fn row_03_one_that_grows_its_memory_without_end_is_told_that_there_is_no_more() {
    let grows = r#"(memory 1)
        (func (export "handle") (param i32 i32)
            (loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))))"#;
    let scene = Scene::of(&component::of_core(grows), &json!({ "memory_mb": 16 }));
    let growth = scene.growth();
    scene.refuses("", 502, "function_no_response");
    growth.stays_below(32);
    assert_eq!(scene.host.workers(&scene.tenant), scene.worker, "the worker lives on");
    scene.ends_well();
}

#[test]
fn row_04_a_table_has_a_bound() {
    // As large as it can be said at once, and grown as far as it goes.
    let declares = component::of_core(&format!("(table 4294967295 funcref) {RETURNS}"));
    let grows = component::of_core(
        r#"(table 1 funcref)
        (func (export "handle") (param i32 i32)
            (loop $on
                (br_if $on (i32.ne (table.grow (ref.null func) (i32.const 1000)) (i32.const -1))))
            (br_if 0 (i32.lt_u (table.size) (i32.const 40000)))
            unreachable)"#,
    );
    let scene = Scene::of(&grows, &json!({}));
    let growth = scene.growth();
    scene.refuses("", 502, "function_no_response");
    let refused = scene.tenant.upload(&[("declares.wasm", &declares)], None);
    println!("{}", refused.text());
    refused.expect_problem(400, "invalid_module");
    growth.stays_below(32);
    assert_eq!(scene.host.workers(&scene.tenant), scene.worker, "the worker lives on");
    scene.ends_well();
}

#[test]
fn row_04_one_that_makes_handles_of_its_own_is_stopped() {
    let resources = (
        "(type $mine (resource (rep i32))) (core func $new (canon resource.new $mine))",
        "(param i32) (result i32)",
        "(drop (call $new (i32.const 1)))",
    );
    let streams = (
        "(type $mine (stream u8)) (core func $new (canon stream.new $mine))",
        "(result i64)",
        "(drop (call $new))",
    );
    let futures = (
        "(type $mine (future u8)) (core func $new (canon future.new $mine))",
        "(result i64)",
        "(drop (call $new))",
    );
    for (name, (defined, signature, makes)) in
        [("resources", resources), ("streams", streams), ("futures", futures)]
    {
        let module = component::with(
            defined,
            r#"(with "host" (instance (export "new" (func $new))))"#,
            &format!(
                r#"(import "host" "new" (func $new {signature}))
                (func (export "handle") (param i32 i32) (loop $on {makes} (br $on)))"#
            ),
        );
        println!("{name}");
        let scene = Scene::of(&module, &json!({}));
        let growth = scene.growth();
        scene.refuses("", 500, "function_trapped");
        growth.stays_below(32);
        assert_eq!(scene.host.workers(&scene.tenant), scene.worker, "the worker lives on");
        scene.ends_well();
    }
}

#[test]
fn row_05_what_is_nested_without_end_is_refused_at_upload() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let components = |depth: usize| {
        const HEADER: &[u8] = b"\0asm\x0d\0\x01\0";
        (1..depth).fold(HEADER.to_vec(), |inner, _| {
            // A section of the kind `component`, and its length.
            let mut outer = [HEADER, &[4]].concat();
            let mut length = inner.len();
            while length >= 0x80 {
                outer.push(length as u8 | 0x80);
                length >>= 7;
            }
            outer.push(length as u8);
            outer.extend(inner);
            outer
        })
    };
    let types = |depth: usize| {
        let list = (0..depth).map(|at| format!("(type $t{} (list $t{at}))", at + 1));
        let list: String = list.collect();
        wat::parse_str(format!("(component (type $t0 (list u8)) {list})")).unwrap()
    };
    let blocks = |depth: usize| {
        let nested = format!("{}{}", "(block ".repeat(depth), ")".repeat(depth));
        component::of_core(&format!(r#"(func (export "handle") (param i32 i32) {nested})"#))
    };
    for (name, module) in [("components", components(10_000)), ("types", types(2_000))] {
        let answer = tenant.upload(&[("deep.wasm", &module)], None);
        println!("{name}: {}", answer.text());
        answer.expect_problem(400, "invalid_module");
    }
    // What is only deep, and not too deep, is no matter.
    tenant.upload(&[("deep.wasm", &blocks(90))], None).expect(200);
    tenant.post("/deep", "").expect_problem(502, "function_no_response");
}

#[test]
fn row_06_a_flood_of_traps_costs_its_own_tenant_and_no_process() {
    const TRAPS: usize = 3_000;
    let scene = Scene::of(guests::ends_early(), &json!({}));
    let growth = [scene.growth(), Growth::of(scene.host.pid())];
    let address = scene.tenant.address();
    let mut connection = scene.tenant.open();
    let trap = address.request("POST", "/guest?trap");
    for _ in 0..TRAPS {
        connection.call(&trap).expect_problem(500, "function_trapped");
    }
    scene.serves_on("", "well");
    for growth in growth {
        growth.stays_below(64);
    }
    scene.ends_well();
}

#[test]
fn row_16_modules_that_are_hard_to_compile_are_compiled_or_refused_beside_everything_else() {
    let many = |functions: usize| {
        component::of_core(&format!(
            "{} {RETURNS}",
            "(func (result i32) (i32.const 1))".repeat(functions)
        ))
    };
    // Each of its blocks ends at every other one.
    let tangled = |blocks: usize| {
        let labels: String = (0..blocks).map(|at| format!(" {at}")).collect();
        let code = format!("(br_table{labels} (local.get 0))").repeat(blocks);
        let nested = format!("{}{code}{}", "(block ".repeat(blocks), ")".repeat(blocks));
        component::of_core(&format!(r#"(func (export "handle") (param i32 i32) {nested})"#))
    };
    let scene = Scene::of(guests::ends_early(), &json!({}));
    let host = Growth::of(scene.host.pid());
    for (name, module) in [("many", many(100_000)), ("tangled", tangled(300))] {
        let begun = Instant::now();
        let answer = scene.tenant.upload(&[("hard.wasm", &module)], None);
        println!("{name}: {} bytes, {} in {:?}", module.len(), answer.status, begun.elapsed());
        match answer.status {
            200 => drop(scene.tenant.post("/hard", "").expect_problem(502, "function_no_response")),
            _ => drop(answer.expect_problem(400, "invalid_module")),
        }
        assert!(begun.elapsed() < Duration::from_secs(180), "{name}: {:?}", begun.elapsed());
    }
    host.stays_below(64);
    scene.ends_well();
}

#[test]
fn row_16_a_neighbours_module_does_not_wait_for_all_of_anothers() {
    const MANY: usize = 6;
    let host = Host::start();
    let (hostile, neighbour) = (host.tenant("hostile"), host.tenant("neighbour"));
    let function = "(func (result i32) (i32.const 1))";
    let module = component::of_core(&format!("{} {RETURNS}", function.repeat(20_000)));
    let done = Arc::new(AtomicUsize::new(0));
    let uploaders: Vec<_> = (0..MANY)
        .map(|at| {
            let (done, to) = (Arc::clone(&done), host.front);
            let name = format!("hard{at}.wasm");
            let request = upload(hostile.api("POST", "/functions"), &[(&name, &module)], None);
            std::thread::spawn(move || {
                let answer = request.send(to);
                done.fetch_add(1, Ordering::Relaxed);
                answer.status
            })
        })
        .collect();
    eventually("a compiler at work", || {
        let compiles = |pid: i32| command_line(pid).contains("hearth-compile");
        children(host.pid()).into_iter().any(compiles).then_some(())
    });
    neighbour.deploy("one", guests::version_one());
    let finished = done.load(Ordering::Relaxed);
    println!("{finished} of {MANY} had come before it");
    assert!(finished <= MANY / 2, "it waited for {finished} of {MANY}");
    for uploader in uploaders {
        assert!(matches!(uploader.join().unwrap(), 200 | 400));
    }
}

#[test]
fn row_16_modules_that_are_broken_anywhere_are_refused_or_harmless() {
    const BROKEN: usize = 60;
    let scene = Scene::of(guests::ends_early(), &json!({}));
    let host = Growth::of(scene.host.pid());
    let whole = guests::version_one();
    // The same each time.
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let addresses = scene.tenant.addresses();
    let mut refused = 0;
    for at in 0..BROKEN {
        let mut module = whole.to_vec();
        match at % 3 {
            0 => module.truncate(random(whole.len())),
            1 => {
                let first = random(whole.len() - 8);
                module[first..first + 8].iter_mut().for_each(|byte| *byte = random(256) as u8);
            }
            // In the middle of what says how long everything else is.
            _ => module[8 + random(200)] ^= 1 << random(8),
        }
        let address = &addresses[at % addresses.len()];
        let form = upload(address.request("POST", "/$upload"), &[("broken.wasm", &module)], None);
        let answer = address.send(&form.bearer(&scene.tenant.token));
        match answer.status {
            200 => drop(address.post("/broken", "")),
            _ => {
                answer.expect_problem(400, "invalid_module");
                refused += 1;
            }
        }
    }
    assert!(refused > BROKEN / 3, "{refused} of {BROKEN}");
    host.stays_below(48);
    scene.ends_well();
}

#[test]
fn row_16_modules_of_50_mb_are_taken_in_without_being_held() {
    const BYTES: usize = 50 << 20;
    let scene = Scene::of(guests::ends_early(), &json!({}));
    let host = Growth::of(scene.host.pid());
    // What nobody reads: a section with a name of its own, behind everything else.
    let mut padded = component::of_core(RETURNS);
    padded.push(0);
    let mut length = BYTES + 2;
    while length >= 0x80 {
        padded.push(length as u8 | 0x80);
        length >>= 7;
    }
    padded.push(length as u8);
    padded.extend([1, b'x']);
    // As dense as modules may be: a megabyte of noise, again and again.
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        b'a' + (seed >> 32) as u8 % 26
    })
    .take(1 << 20)
    .collect();
    padded.extend(noise.iter().cycle().take(BYTES));
    // What is in its memory when it starts.
    let data = String::from_utf8(noise).unwrap().repeat(BYTES >> 20);
    let filled =
        component::of_core(&format!(r#"(memory 801) (data (i32.const 0) "{data}") {RETURNS}"#));
    for (name, module) in [("padded", padded), ("filled", filled)] {
        let packed = zstd::encode_all(&*module, 3).unwrap();
        let begun = Instant::now();
        let answer = scene.tenant.upload(&[("large.wasm.zst", &packed)], None);
        println!("{name}: {} bytes, {} in {:?}", module.len(), answer.status, begun.elapsed());
        answer.expect(200);
        for address in scene.tenant.addresses() {
            address.post("/large", "").expect_problem(502, "function_no_response");
        }
    }
    host.stays_below(64);
    scene.ends_well();
}

#[test]
fn row_16_a_compiler_has_bounds_and_what_reaches_them_is_refused() {
    let bomb = component::of_core(&format!(
        "{} {RETURNS}",
        "(func (param i32) (result i32) (i32.mul (local.get 0) (local.get 0)))".repeat(200_000)
    ));
    let scene = Scene::of(guests::ends_early(), &json!({}));
    let host = Growth::of(scene.host.pid());
    for bound_of in ["time", "memory"] {
        let uploader = std::thread::spawn({
            let (tenant, bomb) = (scene.tenant.clone(), bomb.clone());
            move || tenant.upload(&[("bomb.wasm", &bomb)], None)
        });
        // The one that compiles, and one that looks at the clock, which comes behind the walls.
        const THREADS: u32 = 2;
        let threads = |pid: i32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let threads = status.lines().find_map(|line| line.strip_prefix("Threads:"))?;
            threads.trim().parse::<u32>().ok()
        };
        let compiler = eventually("a compiler with its walls up", || {
            let compilers = children(scene.host.pid()).into_iter();
            let mut compilers =
                compilers.filter(|pid| command_line(*pid).contains("hearth-compile"));
            compilers.next().filter(|pid| {
                bound(*pid, "Max open files") == Some(64) && threads(*pid) == Some(THREADS)
            })
        });
        assert_eq!(bound(compiler, "Max cpu time"), Some(120));
        assert_eq!(bound(compiler, "Max data size"), Some(2 << 30));
        assert_eq!(bound(compiler, "Max file size"), Some(1 << 30));
        assert_eq!(bound(compiler, "Max core file size"), Some(0));
        let zygote = scene.host.zygote().unwrap();
        let of =
            |pid: i32, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        for kind in ["net", "ipc", "uts"] {
            assert_eq!(of(compiler, kind), of(zygote, kind), "an empty {kind}, made once");
        }
        for other in [zygote, scene.host.pid()] {
            assert_ne!(of(compiler, "mnt"), of(other, "mnt"));
        }
        // What the kernel does where it reaches one.
        let denial = Denial {
            calls: &[libc::SYS_mmap, libc::SYS_mremap, libc::SYS_brk],
            with: Errno::ENOMEM,
            of: Whose::Own,
            after: 0,
            times: usize::MAX,
        };
        let denied = match bound_of {
            "memory" => Some(Denied::of(compiler, denial)),
            _ => None,
        };
        if denied.is_none() {
            signal(compiler, Signal::SIGXCPU);
        }
        let refused = uploader.join().unwrap().expect_problem(400, "invalid_module");
        drop(denied);
        println!("{bound_of}: {}", refused.text());
        refused.expect_detail("more time or memory");
        assert!(!is_alive(compiler));
    }
    host.stays_below(48);
    scene.tenant.post("/bomb", "").expect_problem(404, "not_found");
    scene.tenant.deploy("bomb", guests::version_one());
    assert_eq!(scene.tenant.post("/bomb", "").expect(200).text(), "version one");
    assert_eq!(scene.tenant.post("/guest", "").expect(200).text(), "well");
    scene.ends_well();
}

/// What the kernel holds a process to.
fn bound(pid: i32, name: &str) -> Option<u64> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
