//! Answers with what each text of `wasi:config`, and the one of Spin's variables that is not
//! asynchronous, has for the name in `?name=`; with `?all=1`, with all that the first ones list. Says
//! on standard output what it found, in a line of its own each.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what they become is tested")]

use serde_json::json;

mod bindings {
    wit_bindgen::generate!({
        path: [
            "../../sdk/wit/wasi-config/draft",
            "../../sdk/wit/wasi-config/2024-09-27",
            "../../sdk/wit/wasi-config/rc.1",
            "../../sdk/wit/spin-variables/2.0.0",
        ],
        inline: "
            package testing:settings;
            world reads {
                import wasi:config/runtime@0.2.0-draft;
                import wasi:config/store@0.2.0-draft;
                import wasi:config/store@0.2.0-draft-2024-09-27;
                import wasi:config/store@0.2.0-rc.1;
                import fermyon:spin/variables@2.0.0;
            }
        ",
        world: "testing:settings/reads",
        generate_all,
    });
}

use bindings::fermyon::spin::variables;
use bindings::wasi::{config0_2_0_draft, config0_2_0_draft_2024_09_27, config0_2_0_rc_1};

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let target = testing::target(&request);
    let name = target.split_once("name=").map_or("", |(_, name)| name);
    if testing::number(&request, "all").is_some() {
        let listed = |pairs: Vec<(String, String)>| json!(pairs);
        let all = json!({
            "runtime": listed(config0_2_0_draft::runtime::get_all().unwrap()),
            "draft": listed(config0_2_0_draft::store::get_all().unwrap()),
            "draft-2024-09-27": listed(config0_2_0_draft_2024_09_27::store::get_all().unwrap()),
            "rc.1": listed(config0_2_0_rc_1::store::get_all().unwrap()),
        });
        return testing::respond_json(out, &all);
    }
    let variable = match variables::get(name) {
        Ok(value) => json!(value),
        Err(error) => json!({ "error": format!("{error:?}") }),
    };
    let found = config0_2_0_rc_1::store::get(name).unwrap();
    if let Some(found) = &found {
        println!("found {found}");
        eprint!("{found}");
        eprintln!(" was found");
    }
    let answer = json!({
        "runtime": config0_2_0_draft::runtime::get(name).unwrap(),
        "draft": config0_2_0_draft::store::get(name).unwrap(),
        "draft-2024-09-27": config0_2_0_draft_2024_09_27::store::get(name).unwrap(),
        "rc.1": found,
        "variables-2": variable,
    });
    testing::respond_json(out, &answer);
}
