//! A running agent: start, banner, joins, signals, stop.

use crate::API_VERSION;
use crate::cli::{Exit, Sources};
use crate::config::{Resolved, with_recursors};
use crate::joining::{GaveUp, Joining, join_ports, start_join};
use crate::logger::Console;
use crate::pid_file::PidFile;
use crate::reload::Reloading;
use crate::signals::{Wish, Wishes};
use crate::watch::Watches;
use smol::Timer;
use smol::future::FutureExt as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use terraform_core::config::Bootstrap;
use terraform_core::id::PoolName;
use terraform_core::node::output::StopReason;
use terraform_core::trace::Level;
use terraform_io::agent::{self, Ports, Running, Services, Settings};
use terraform_io::archive;
use terraform_io::checks::Runner;
use terraform_io::clock::Clock;
use terraform_io::http::listen::HttpAddress;
use terraform_io::http::own::OwnApi;
use terraform_io::http::settings::{self, Facts, HttpSettings, ServerLimits};
use terraform_io::log::{LogRing, Record};
use terraform_io::runtime;
use terraform_io::telemetry::{self, Metrics};

/// How long a leave may take, beyond the time for requests on their way, before the agent stops all
/// the same, with exit code 1.
const LEAVE_LIMIT: Duration = Duration::from_secs(15);

/// Runs the agent to its end, recorded in the new file `record` if that is wanted.
pub(crate) fn run(resolved: Resolved, sources: Sources, record: Option<PathBuf>) -> Exit {
    for warning in &resolved.warnings {
        println!("==> WARNING: {warning}");
    }
    println!("==> Starting Terraform agent...");
    terraform_io::system::raise_descriptor_limit();
    let (temporary, data_dir) = (resolved.temporary, resolved.data_dir.clone());
    let exit = match Console::new(resolved.node.level, &resolved.host.log) {
        Ok(console) => logged(&resolved, sources, (Arc::new(console), record)),
        Err(error) => Exit::failure(format!("==> {error}\n")),
    };
    if temporary {
        // A development agent's folder is its own; what cannot be removed is the system's to tidy.
        let _ = std::fs::remove_dir_all(data_dir);
    }
    exit
}

/// The same, with a console whose last lines are written.
fn logged(
    resolved: &Resolved,
    sources: Sources,
    (console, record): (Arc<Console>, Option<PathBuf>),
) -> Exit {
    let exit = smol::block_on(start_and_wait(resolved, sources, (&console, record)));
    let text = exit.stderr.trim_end();
    if !text.is_empty() {
        console.keep(Level::Error, text.strip_prefix("==> ").unwrap_or(text));
    }
    console.close();
    exit
}

async fn start_and_wait(
    resolved: &Resolved,
    sources: Sources,
    (console, record): (&Arc<Console>, Option<PathBuf>),
) -> Exit {
    let wishes = match Wishes::watch() {
        Ok(wishes) => wishes,
        Err(error) => return Exit::failure(format!("==> cannot watch signals: {error}\n")),
    };
    let dns = with_recursors(resolved.dns_config.clone(), &resolved.recursors).await;
    let dns = match dns {
        Ok(dns) => dns,
        Err(error) => return Exit::failure(format!("==> Error starting agent: {error}\n")),
    };
    let reload = Reloading::new(sources, (resolved, dns), Arc::clone(console));
    let running = match start(resolved, &reload, console, record).await {
        Ok(running) => running,
        Err(error) => return Exit::failure(format!("==> Error starting agent: {error}\n")),
    };
    let pid_file = match resolved.host.pid_file.as_deref().map(PidFile::write).transpose() {
        Ok(pid_file) => pid_file,
        Err(error) => return stop(running, format!("Error starting agent: {error}")).await,
    };
    banner(resolved);
    console.open();
    let handle = running.handle().clone();
    if let Err(error) = start_join(&handle, resolved).await {
        reload.end_watches().await;
        return stop(running, error).await;
    }
    let joining = [PoolName::Lan, PoolName::Wan].map(|pool| {
        let joining = Joining::new(resolved, pool, handle.clone(), Arc::clone(console));
        runtime::spawn(joining.run())
    });
    let exit = wait(running, joining, resolved, &reload, console, wishes).await;
    reload.end_watches().await;
    drop(pid_file);
    exit
}

/// Ends an agent that cannot go on with its start.
async fn stop(running: Running, error: String) -> Exit {
    running.steering().shutdown().await;
    running.wait().await;
    Exit::failure(format!("==> {error}\n"))
}

/// Locks, binds, recovers and runs.
async fn start(
    resolved: &Resolved,
    reload: &Reloading,
    console: &Arc<Console>,
    record: Option<PathBuf>,
) -> Result<Running, String> {
    println!("==> Starting Terraform agent RPC...");
    let runner = Runner::default();
    let run_check = Box::new(move |kind, bytes| runner.run(kind, bytes).boxed());
    let settings = Settings { record, ..settings(resolved, console, reload) };
    let (own, sink) = (settings.services.http_settings.clone(), Arc::clone(&settings.sink));
    let running = agent::start(resolved.node.clone(), settings, run_check)
        .await
        .map_err(|error| error.to_string())?;
    let watches = Watches::new(OwnApi::new(running.handle().clone(), own), sink);
    watches.set(resolved.watches.clone()).await;
    reload.attach(running.handle().clone(), watches);
    Ok(running)
}

fn settings(resolved: &Resolved, console: &Arc<Console>, reload: &Reloading) -> Settings {
    let (logs, clock) = (Arc::new(LogRing::default()), Clock::start());
    let (console, ring) = (Arc::clone(console), Arc::clone(&logs));
    let sink = Arc::new(move |record: &Record<'_>| {
        console.say(record);
        ring.push(clock.wall(), record);
    });
    let services = Services {
        http: resolved.listeners.http.clone(),
        http_settings: http_settings(resolved, reload, &logs),
        dns: resolved.listeners.dns.clone(),
        dns_config: Arc::clone(reload.dns()),
    };
    let reload = reload.clone();
    let at = |port| SocketAddr::new(resolved.bind, port);
    let wan = resolved.node.wan().map(|wan| SocketAddr::new(resolved.bind_wan, wan.port));
    Settings {
        data_dir: resolved.data_dir.clone(),
        node_id: resolved.node_id,
        host_node_id: resolved.host_node_id,
        record: None,
        ports: Ports {
            gossip: SocketAddr::new(resolved.bind_lan, resolved.node.serf_lan_port),
            wan,
            server: resolved.node.server.is_some().then(|| at(resolved.node.server_port)),
            control: resolved.listeners.rpc.clone(),
        },
        join_ports: join_ports(resolved),
        sink,
        logs,
        reload: Arc::new(move || {
            let reload = reload.clone();
            async move { reload.reload().await }.boxed()
        }),
        services,
        telemetry: resolved.telemetry.clone(),
        remote_exec: resolved.remote_exec.then(|| resolved.node.name.clone()),
        server_connections_per_client: resolved.server_connections_per_client,
    }
}

fn http_settings(resolved: &Resolved, reload: &Reloading, logs: &Arc<LogRing>) -> HttpSettings {
    let bootstrap = resolved.node.server.as_ref().map(|server| server.bootstrap);
    let reloading = reload.clone();
    HttpSettings {
        facts: Facts {
            server: resolved.node.server.is_some(),
            bootstrap: bootstrap == Some(Bootstrap::Alone),
            bootstrap_expect: match bootstrap {
                Some(Bootstrap::Expect(expect)) => expect,
                Some(Bootstrap::Alone | Bootstrap::Join) | None => 0,
            },
            version: API_VERSION,
            bind: resolved.bind,
            bind_lan: resolved.bind_lan,
            tagged_addresses: resolved.node.tagged_addresses(),
            advertise: resolved.node.advertise,
            advertise_wan: resolved.node.advertise_wan,
            client_addresses: resolved.listeners.client.clone(),
            ports: settings::Ports {
                http: resolved.listeners.http_port(),
                dns: resolved.listeners.dns_port(),
                rpc: resolved.listeners.rpc_port(),
                serf_lan: resolved.node.serf_lan_port,
                serf_wan: resolved.serf_wan_port,
                server: resolved.node.server_port,
            },
            domain: format!("{}.", resolved.dns_config.domain.as_str()),
            data_dir: resolved.data_dir.display().to_string(),
            coordinates: resolved.node.serf.coordinates,
            node_meta: reload.node_meta(),
        },
        remote_script_checks: resolved.scripts_from_api,
        session_ttl_min: resolved.session_ttl_min,
        use_cache: resolved.use_cache,
        reload: Some(settings::Reload::new(move || {
            let reload = reloading.clone();
            async move { reload.reload().await }
        })),
        rules: resolved.http_rules.clone(),
        limits: ServerLimits { bytes: resolved.http_bytes, ..ServerLimits::default() },
        connections_per_client_max: reload.http_connections(),
        logs: Arc::clone(logs),
        scratch: resolved.data_dir.join(archive::FOLDER),
    }
}

/// The founding page's block.
fn banner(resolved: &Resolved) {
    let node = &resolved.node;
    let server = node.server.as_ref();
    let bootstrap = server.is_some_and(|server| server.bootstrap == Bootstrap::Alone);
    let port = |port: Option<u16>| port.map_or(-1, i32::from);
    let listeners = &resolved.listeners;
    let client: Vec<String> = listeners.client.iter().map(IpAddr::to_string).collect();
    let sockets: Vec<String> =
        listeners.http.iter().filter(|at| at.tcp().is_none()).map(HttpAddress::to_string).collect();
    let http = match (listeners.http_port(), sockets.as_slice()) {
        (None, [_, ..]) => sockets.join(" "),
        (http, _) => port(http).to_string(),
    };
    println!("==> Terraform agent running!");
    println!("       Node name: '{}'", node.name);
    println!("      Datacenter: '{}'", node.datacenter);
    println!("          Server: {} (bootstrap: {bootstrap})", server.is_some());
    println!(
        "     Client Addr: {} (HTTP: {http}, DNS: {}, RPC: {})",
        client.join(" "),
        port(listeners.dns_port()),
        port(listeners.rpc_port())
    );
    println!(
        "    Cluster Addr: {} (LAN: {}, WAN: {})",
        node.advertise,
        node.serf_lan_port,
        resolved.serf_wan_port.map_or(-1, i32::from)
    );
    println!("\n==> Log data will now stream in as it occurs:\n");
}

/// What happens next while the agent runs.
enum Next {
    Stopped(StopReason),
    Wish(Wish),
    GaveUp,
    Late,
}

/// Waits until the agent has stopped; signals steer it.
async fn wait(
    running: Running,
    joining: [smol::Task<GaveUp>; 2],
    resolved: &Resolved,
    reload: &Reloading,
    console: &Console,
    mut wishes: Wishes,
) -> Exit {
    let limit =
        LEAVE_LIMIT + resolved.node.server.as_ref().map_or(Duration::ZERO, |s| s.leave_drain);
    let steering = running.steering();
    let metrics = Arc::clone(running.handle().metrics());
    let mut stopped = runtime::spawn(running.wait());
    let [lan, wan] = joining;
    let mut joining = lan.or(wan).boxed();
    let mut told: Option<std::time::Instant> = None;
    loop {
        let late = async {
            match told {
                Some(at) => drop(Timer::at(at + limit).await),
                None => smol::future::pending().await,
            }
            Next::Late
        };
        let next = async { Next::Stopped((&mut stopped).await) }
            .or(async { Next::Wish(wishes.next().await) })
            .or(async {
                let GaveUp = (&mut joining).await;
                Next::GaveUp
            })
            .or(late)
            .await;
        match next {
            Next::Stopped(reason) => return farewell(&reason),
            Next::GaveUp => return Exit::failure("==> Retry join failed\n"),
            Next::Late => return Exit::failure("==> Leaving took too long\n"),
            Next::Wish(Wish::Reload) => reload_and_tell(reload, console).await,
            Next::Wish(Wish::Dump) => dump(&metrics),
            Next::Wish(_) if told.is_some() => return Exit { code: 1, ..Exit::default() },
            Next::Wish(wish) => {
                told = Some(std::time::Instant::now());
                let (name, leaves) = match wish {
                    Wish::Interrupt => ("interrupt", resolved.leave_on_interrupt),
                    Wish::Terminate | Wish::Reload | Wish::Dump => {
                        ("terminated", resolved.leave_on_terminate)
                    }
                };
                console.line(&format!("Caught signal: {name}"));
                if leaves {
                    console.line("Gracefully shutting down agent...");
                    steering.leave().await;
                } else {
                    console.line("Graceful shutdown disabled. Exiting");
                    steering.shutdown().await;
                }
            }
        }
    }
}

/// Writes the metrics that are kept to standard error.
fn dump(metrics: &Metrics) {
    // An error stream that went away must not stop the agent.
    let _ = std::io::stderr().write_all(telemetry::dump(metrics).as_bytes());
}

async fn reload_and_tell(reload: &Reloading, console: &Console) {
    console.line("Reloading configuration...");
    if let Err(error) = reload.reload().await {
        console.line(&format!("Reload config failed: {error}"));
    }
}

fn farewell(reason: &StopReason) -> Exit {
    match reason {
        StopReason::Left | StopReason::Shutdown => Exit::default(),
        StopReason::Fatal(rule) => Exit::failure(format!("==> The agent cannot go on: {rule}\n")),
    }
}
