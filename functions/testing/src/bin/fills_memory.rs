//! Grows its memory to exactly `?pages=` pages of 64 KiB and answers with how many it has. Fails
//! where it does not get them.

use core::arch::wasm32::{memory_grow, memory_size};

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let wanted = testing::number(&request, "pages").unwrap_or(0) as usize;
    let has = memory_size::<0>();
    if wanted > has && memory_grow::<0>(wanted - has) == usize::MAX {
        panic!("no more memory");
    }
    testing::respond(out, 200, &[], memory_size::<0>().to_string().as_bytes());
}
