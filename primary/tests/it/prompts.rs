//! What the prompt for a token leaves of the terminal that it asks at.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::host::hearth;
use crate::processes::{eventually, signal};
use crate::terminal::Terminal;

#[test]
fn what_ends_the_prompt_of_login_leaves_the_terminal_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    let program = hearth(place.path());
    // The shell has the terminal before and after.
    let script = r#"trap : INT QUIT TERM; "$0" login http://127.0.0.1:1; echo "status $?"; stty -a; read line"#;
    for (typed, ends) in
        [(Some("\u{3}"), 130), (Some("\u{1c}"), 131), (None, 143), (Some("token\n"), 1)]
    {
        let mut command = hearth(place.path());
        let environment: Vec<_> = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        command = Command::new("sh");
        command.args(["-c", script]).arg(program.get_program()).env_clear().envs(environment);
        let mut terminal = Terminal::run(&command);
        terminal.shows("Token for http://127.0.0.1:1: ");
        eventually("what is typed to be hidden", || (!terminal.echoes()).then_some(()));
        match typed {
            Some(typed) => terminal.type_in(typed),
            None => {
                let children = crate::processes::children(terminal.pid());
                children.into_iter().for_each(|pid| signal(pid, Signal::SIGTERM));
            }
        }
        terminal.shows(&format!("status {ends}"));
        terminal.shows("echoctl");
        let shown = terminal.shown();
        assert!(shown.contains(" echo ") && !shown.contains("-echo "), "{shown}");
        assert!(!shown.contains("token"), "{shown}");
        assert!(terminal.echoes());
        terminal.type_in("\n");
        terminal.ended();
    }
}

/// Whoever stops it there (Ctrl-Z) and comes back is asked again, and nothing is shown.
#[test]
fn a_prompt_that_was_stopped_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let mut command = hearth(place.path());
    command.args(["login", "http://127.0.0.1:1"]);
    let mut terminal = Terminal::run(&command);
    terminal.shows("Token for http://127.0.0.1:1: ");
    eventually("what is typed to be hidden", || (!terminal.echoes()).then_some(()));
    signal(terminal.pid(), Signal::SIGTSTP);
    let stopped = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", terminal.pid())).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
    };
    // Of a group without a parent in its session the kernel stops nobody: it goes on at once.
    if crate::processes::soon(stopped) {
        assert!(terminal.echoes());
        signal(terminal.pid(), Signal::SIGCONT);
    }
    eventually("the second question", || {
        (terminal.shown().matches("Token for").count() == 2 && !terminal.echoes()).then_some(())
    });
    terminal.type_in("secret\n");
    let (shown, status) = terminal.finish();
    assert!(!shown.contains("secret") && shown.contains("cannot be reached"), "{shown}");
    assert_eq!((status.code(), status.signal()), (Some(1), None));
}
