//! `hearth tenant`: the tenants of a host. For its admin.

use clap::Subcommand;
use hearth_wire::TenantName;

use super::client::Host;
use super::consent::Consent;
use super::error::CliError;
use super::print::{Print, Table, bytes, escape, seconds};
use crate::api::tenants::{TenantInfo, TenantList, TenantMade, TenantNew};
use crate::config::ClientArgs;

#[derive(Debug, Subcommand)]
pub enum Tenants {
    /// Make a tenant, with its own port and its owner's token
    #[command(after_help = "Example:\n  hearth tenant add demo")]
    Add { name: TenantName },
    /// List all tenants
    #[command(after_help = "Example:\n  hearth tenant list --json")]
    List,
    /// Show one tenant
    #[command(after_help = "Example:\n  hearth tenant show demo")]
    Show { name: TenantName },
    /// Remove a tenant with everything that it has
    #[command(after_help = "Example:\n  hearth tenant rm demo --yes")]
    Rm {
        name: TenantName,
        #[command(flatten)]
        consent: Consent,
    },
}

pub fn run(command: Tenants, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    if let Tenants::Rm { name, consent } = &command {
        consent.given(&format!("the tenant {name} with all its functions, tokens and logs"))?;
    }
    let host = Host::connect(client)?;
    match command {
        Tenants::Add { name } => {
            let answer = host.post("/tenants", Some(&TenantNew { name }))?;
            print.answer::<TenantMade>(&answer, |made, out| {
                let TenantMade { name, port: _, url, token } = made;
                let url = host.tenant_url(&name, &url);
                writeln!(out, "Made the tenant {name}. Its functions are at {}", escape(&url))?;
                writeln!(out, "\nIts owner's token, shown this once:\n  {}", escape(&token))
            })
        }
        Tenants::List => {
            let answer = host.get("/tenants")?;
            print.answer::<TenantList>(&answer, |list, out| {
                let mut table = Table::new(["name", "url", "generation", "worker", "made"]);
                for tenant in list.tenants {
                    table.row([
                        &tenant.name,
                        &host.tenant_url(&tenant.name, &tenant.url),
                        &tenant.generation,
                        &tenant.worker.state.as_str(),
                        &seconds(tenant.created_at),
                    ]);
                }
                table.write(out, "There is no tenant yet; make one: hearth tenant add NAME")
            })
        }
        Tenants::Show { name } => {
            let answer = host.get(&format!("/tenants/{name}"))?;
            print.answer::<TenantInfo>(&answer, |tenant, out| {
                let TenantInfo { name, port, url, generation, created_at, worker } = tenant;
                let url = host.tenant_url(&name, &url);
                writeln!(out, "{name}")?;
                writeln!(out, "  url         {} (port {port})", escape(&url))?;
                writeln!(out, "  made        {}", seconds(created_at))?;
                writeln!(out, "  generation  {generation}")?;
                write!(
                    out,
                    "  worker      {} since {}",
                    worker.state.as_str(),
                    seconds(worker.since)
                )?;
                if let Some(pid) = worker.pid {
                    write!(out, ", process {pid}")?;
                }
                if let Some(memory) = worker.memory {
                    write!(out, ", {}", bytes(memory))?;
                }
                writeln!(out)?;
                if let Some(reason) = worker.reason {
                    writeln!(out, "  reason      {}", escape(&reason))?;
                }
                writeln!(out, "  isolation   {}", worker.isolation)
            })
        }
        Tenants::Rm { name, consent: _ } => {
            let answer = host.delete(&format!("/tenants/{name}"))?;
            print.raw(&answer.text)?;
            print.say(format_args!("Removed the tenant {name}, its functions and its logs."))
        }
    }
}
