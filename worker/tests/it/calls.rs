//! What a call gets, at a worker's own port.

use crate::harness::{Release, Zygote, exec, start};

#[test]
fn a_forked_and_an_execed_worker_answer_alike() {
    let release = Release::new(1, &[("/echo", "echo", "{}")]);
    let mut zygote = Zygote::start();
    let forked = zygote.fork(&release, start(1)).accept();
    let execed = exec(&release, start(1)).accept();
    for worker in [forked, execed] {
        let answer = worker.post("/echo", "hello");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["body"], "hello");
        assert_eq!(answer.header("x-hearth-version"), Some("/echo@1"));
    }
}
