//! Takes `?mb=` MiB of memory and answers with how many it has; without the number, takes all.

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let wanted = testing::number(&request, "mb").unwrap_or(u64::MAX);
    let mut taken = Vec::new();
    while (taken.len() as u64) < wanted {
        taken.push(vec![1_u8; 1 << 20]);
    }
    testing::respond(out, 200, &[], taken.len().to_string().as_bytes());
}
