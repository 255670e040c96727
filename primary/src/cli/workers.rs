//! `hearth worker`: the processes behind tenants.

use clap::Subcommand;
use hearth_wire::{Scope, TenantName};

use super::client::Host;
use super::error::CliError;
use super::print::{OrDash, Print, Table, bytes, escape, seconds};
use crate::api::tenants::TenantList;
use crate::config::ClientArgs;
use crate::fleet::WorkerStatus;

#[derive(Debug, Subcommand)]
pub enum Workers {
    /// Show the worker of every tenant; with a tenant's token, its own
    #[command(after_help = "Example:\n  hearth worker list")]
    List,
    /// Start a tenant's worker now, whatever kept it from starting
    #[command(after_help = "Example:\n  hearth worker start --tenant demo")]
    Start,
    /// Put a new worker in the place of a tenant's current one
    #[command(after_help = "Example:\n  hearth worker restart --tenant demo")]
    Restart,
    /// End a tenant's worker; the next call starts one
    #[command(after_help = "Example:\n  hearth worker stop --tenant demo")]
    Stop,
}

pub fn run(command: Workers, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let host = Host::connect(client)?;
    match command {
        Workers::List => list(&host, print),
        Workers::Start => change(&host, "start", print),
        Workers::Restart => change(&host, "restart", print),
        Workers::Stop => change(&host, "stop", print),
    }
}

fn list(host: &Host, print: Print) -> Result<(), CliError> {
    if !host.names_tenant() && host.whoami()?.scope == Scope::Admin {
        let answer = host.get("/tenants")?;
        return print.answer::<TenantList>(&answer, |list, out| {
            let workers = list.tenants.iter().map(|tenant| (&tenant.name, &tenant.worker));
            table(workers).write(out, "There is no tenant yet; make one: hearth tenant add NAME")
        });
    }
    let tenant = host.tenant()?;
    let answer = host.get(&format!("/tenants/{tenant}/worker"))?;
    print.answer::<WorkerStatus>(&answer, |status, out| table([(&tenant, &status)]).write(out, ""))
}

fn change(host: &Host, verb: &str, print: Print) -> Result<(), CliError> {
    let tenant = host.tenant()?;
    let answer = host.post(&format!("/tenants/{tenant}/worker/{verb}"), None::<&()>)?;
    print.answer::<WorkerStatus>(&answer, |status, out| table([(&tenant, &status)]).write(out, ""))
}

fn table<'a>(workers: impl IntoIterator<Item = (&'a TenantName, &'a WorkerStatus)>) -> Table {
    let mut table = Table::new([
        "tenant",
        "state",
        "pid",
        "generation",
        "since",
        "memory",
        "cpu",
        "draining",
        "parked",
        "reason",
    ]);
    for (tenant, status) in workers {
        let WorkerStatus {
            state,
            pid,
            generation,
            since,
            reason,
            isolation: _,
            memory,
            cpu_ms,
            draining,
            parked,
        } = status;
        table.row([
            tenant,
            &state.as_str(),
            &OrDash(*pid),
            generation,
            &seconds(*since),
            &OrDash(memory.map(bytes)),
            &OrDash(cpu_ms.map(|ms| super::print::micros(ms * 1_000))),
            draining,
            parked,
            &OrDash(reason.as_deref().map(escape)),
        ]);
    }
    table
}
