//! Asks the agent, once and at each interval, and writes what it tells.

use super::super::client::{Client, json};
use super::super::transport::unexpected;
use super::{Plan, Target, of_file, unix_time, write_json};
use crate::signals::Wishes;
use smol::Timer;
use smol::future::FutureExt as _;
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;
use terraform_io::http::client::ClientLimits;

/// A collection.
pub(super) struct Capture<'a> {
    pub(super) client: &'a Client,
    pub(super) plan: &'a Plan,
}

impl Capture<'_> {
    /// Collects until the time is over or a signal comes; what was collected until then stays.
    ///
    /// - Errors: the folder cannot be written.
    pub(super) async fn run(&self, mut wishes: Wishes) -> Result<(), String> {
        self.once().await?;
        if !self.plan.wants(Target::Metrics) && !self.plan.wants(Target::Logs) {
            return Ok(());
        }
        let stopped = async {
            wishes.next().await;
            eprintln!("==> Stopping, and saving what was captured until now");
            Ok(())
        };
        self.again().or(stopped).await
    }

    /// What does not change.
    async fn once(&self) -> Result<(), String> {
        let plan = self.plan;
        if plan.wants(Target::Agent) {
            write_json(&plan.folder.join("agent.json"), &plan.agent)?;
        }
        if plan.wants(Target::Pprof) {
            missing(Target::Pprof, "this agent has no such profiles");
        }
        for (target, path) in
            [(Target::Host, "/v1/agent/host"), (Target::Cluster, "/v1/agent/members")]
        {
            if plan.wants(target) {
                let file = plan.folder.join(format!("{}.json", target.name()));
                self.save(target, path, &file).await?;
            }
        }
        Ok(())
    }

    /// Saves an answer; one that cannot be had is named.
    async fn save(&self, target: Target, path: &str, file: &Path) -> Result<(), String> {
        match self.client.call(("GET", path), &[], Vec::new()).await.and_then(|it| json(&it)) {
            Ok(value) => write_json(file, &value),
            Err(error) => {
                missing(target, &error);
                Ok(())
            }
        }
    }

    /// What changes, a folder for each interval.
    async fn again(&self) -> Result<(), String> {
        let (plan, began) = (self.plan, Instant::now());
        let log = RefCell::new(None);
        let intervals = async {
            let mut number = 0;
            while began.elapsed() < plan.duration {
                let folder = plan.folder.join(unix_time().to_string());
                // A clock that is set back may name one twice.
                fs::create_dir_all(&folder).map_err(|error| of_file(&folder, &error))?;
                if plan.wants(Target::Logs) {
                    let file = folder.join("terraform.log");
                    let open = File::options().append(true).create(true).open(&file);
                    *log.borrow_mut() = Some(open.map_err(|error| of_file(&file, &error))?);
                }
                if plan.wants(Target::Metrics) {
                    let file = folder.join("metrics.json");
                    self.save(Target::Metrics, "/v1/agent/metrics", &file).await?;
                }
                number += 1;
                let next = plan.interval.saturating_mul(number).min(plan.duration);
                Timer::after(next.saturating_sub(began.elapsed())).await;
                println!("==> Capture successful {} ({number})", folder.display());
            }
            Ok(())
        };
        let logs = async {
            if plan.wants(Target::Logs) {
                self.follow(&log).await;
            }
            smol::future::pending().await
        };
        intervals.or(logs).await
    }

    /// Writes the agent's log into whatever file is open, for as long as it comes.
    async fn follow(&self, log: &RefCell<Option<File>>) {
        let query = ["loglevel=DEBUG".to_owned()];
        let request = match self.client.request(("GET", "/v1/agent/monitor"), &query) {
            Ok(request) => request,
            Err(error) => return missing(Target::Logs, &error),
        };
        let take = |piece: &[u8]| match &mut *log.borrow_mut() {
            Some(file) => file.write_all(piece),
            None => Ok(()),
        };
        match request.download(&ClientLimits::default(), take).await {
            Ok(response) if response.status == 200 => {
                missing(Target::Logs, "the agent ended the stream");
            }
            Ok(response) => missing(Target::Logs, &unexpected(&response)),
            Err(error) => missing(Target::Logs, &request.error_text(&error)),
        }
    }
}

/// Names what an agent does not tell.
fn missing(target: Target, why: &str) {
    eprintln!("    Not captured: {}: {why}", target.name());
}
