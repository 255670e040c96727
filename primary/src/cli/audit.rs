//! `hearth audit`: who changed what.

use std::collections::BTreeMap;
use std::io::{self, Write};

use hearth_wire::TenantName;
use serde_json::{Map, Value};

use super::client::{Host, PAGE_MAX, query};
use super::error::CliError;
use super::print::{OrDash, Print, Table, seconds};
use crate::api::audit::{ActorInfo, ActorKind, AuditEntry, AuditPage};
use crate::config::ClientArgs;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "With the admin's token, this shows the changes of the host and of all tenants; --tenant chooses one tenant, also one that was removed. With an owner's token, it shows the changes of that tenant, whoever made them. Changes are kept for 400 days, the last 2,000 of each tenant.\n\nExample:\n  hearth audit -n 20\n  hearth audit --tenant demo --action function.upload"
)]
pub struct AuditArgs {
    /// How many of the last changes, or fewer where they are large [default: 100]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=PAGE_MAX))]
    changes: Option<u32>,
    /// Only changes of this kind, like function.upload, token.create or tenant.delete
    #[arg(long)]
    action: Option<String>,
    /// Only changes before this one, by its number: what the last answer says of older ones
    #[arg(long, value_name = "ID")]
    before: Option<u64>,
}

pub fn run(args: &AuditArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let AuditArgs { changes, action, before } = args;
    let host = Host::connect(client)?;
    // Else it is for the token to say.
    let tenant = if host.names_tenant() { Some(host.tenant()?) } else { None };
    let (limit, before) = (changes.map(|count| count.to_string()), before.map(|id| id.to_string()));
    let pairs = [
        ("tenant", tenant.as_ref().map(TenantName::as_str)),
        ("action", action.as_deref()),
        ("before", before.as_deref()),
        ("limit", limit.as_deref()),
    ];
    let answer = host.get(&format!("/audit{}", query(&pairs)))?;
    print.answer::<AuditPage>(&answer, write)
}

fn write(page: AuditPage, out: &mut dyn Write) -> io::Result<()> {
    let AuditPage { entries, next } = page;
    let mut table = Table::new(["time", "by", "tenant", "action", "object", "request", "change"]);
    for entry in &entries {
        table.row([
            &seconds(entry.time),
            &by(&entry.actor),
            &OrDash(entry.tenant.as_ref()),
            &entry.action,
            &OrDash(entry.object.as_deref()),
            &OrDash(entry.request_id.as_deref()),
            &change(entry),
        ]);
    }
    table.write(out, "There is no change that matches.")?;
    match next {
        Some(next) => writeln!(out, "Older ones: hearth audit --before {next}"),
        None => Ok(()),
    }
}

fn by(actor: &ActorInfo) -> String {
    let ActorInfo { kind, id, name } = actor;
    match (kind, id) {
        (ActorKind::Token, Some(id)) => format!("{name} (token {id})"),
        (ActorKind::Token, None) => format!("{name} (token)"),
        (ActorKind::Host, _) => "the host".to_owned(),
        (ActorKind::CommandLine, _) => "the command line".to_owned(),
    }
}

/// Each value that is other, with what it was and what it is.
fn change(entry: &AuditEntry) -> String {
    let [before, after] = [&entry.before, &entry.after].map(|side| {
        let mut values = BTreeMap::new();
        if let Some(side) = side {
            flatten(&mut String::new(), side, &mut values);
        }
        values
    });
    let mut told: Vec<String> = Vec::new();
    for (name, old) in &before {
        match after.get(name) {
            Some(new) => told.push(format!("{name} {old} → {new}")),
            None => told.push(format!("{name} {old} → -")),
        }
    }
    let new = after.iter().filter(|(name, _)| !before.contains_key(*name));
    told.extend(new.map(|(name, new)| format!("{name} - → {new}")));
    if told.is_empty() { "-".to_owned() } else { told.join(", ") }
}

/// What is in an object goes by the names that lead to it.
fn flatten(name: &mut String, side: &Map<String, Value>, values: &mut BTreeMap<String, String>) {
    for (key, value) in side {
        let length = name.len();
        if !name.is_empty() {
            name.push(' ');
        }
        name.push_str(key);
        match value {
            // One that is empty has nothing to tell, nor has what takes its place lost anything.
            Value::Object(inner) => flatten(name, inner, values),
            Value::String(text) => drop(values.insert(name.clone(), text.clone())),
            Value::Null => {}
            other => drop(values.insert(name.clone(), other.to_string())),
        }
        name.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(before: Value, after: Value) -> AuditEntry {
        serde_json::from_value(json!({
            "id": 7, "time": "2026-01-02T03:04:05Z",
            "actor": { "kind": "token", "id": 3, "name": "ci" },
            "tenant": "demo", "action": "function.upload", "object": "/a",
            "before": before, "after": after, "request_id": "r-1",
        }))
        .unwrap()
    }

    #[test]
    fn a_change_in_one_line() {
        for (before, after, said) in [
            (
                json!({ "generation": 3, "functions": { "/a": { "version": 1 } } }),
                json!({ "generation": 4, "functions": { "/a": { "version": 2 } } }),
                "functions /a version 1 → 2, generation 3 → 4",
            ),
            (
                json!({ "options": {} }),
                json!({ "options": { "auth": "invoke" } }),
                "options auth - → invoke",
            ),
            (
                json!({ "functions": { "/a": null } }),
                json!({ "functions": { "/a": { "version": 1 } } }),
                "functions /a version - → 1",
            ),
            (json!({ "name": "ci" }), Value::Null, "name ci → -"),
            (Value::Null, Value::Null, "-"),
        ] {
            assert_eq!(change(&entry(before, after)), said);
        }
    }

    #[test]
    fn a_page_as_a_table() {
        let entries = vec![entry(json!({ "port": 1 }), json!({ "port": 2 }))];
        let mut out = Vec::new();
        write(AuditPage { entries, next: Some(7) }, &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert!(said.contains("2026-01-02 03:04:05Z  ci (token 3)  demo"), "{said}");
        assert!(said.ends_with("port 1 → 2\nOlder ones: hearth audit --before 7\n"), "{said}");
    }
}
