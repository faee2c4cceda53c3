//! The session of a command: made with a TTL, renewed for as long as the command runs.

use super::client::{Client, TIME};
use super::keys::session_id;
use super::transport::unexpected;
use serde_json::json;
use smol::Timer;
use std::time::{Duration, Instant};

/// How long a session outlives a command that is gone (cli.md §7).
const TTL: Duration = Duration::from_secs(15);
/// The time between two tries to renew it after one has failed.
const RETRY: Duration = Duration::from_secs(1);

/// A session of this command.
#[derive(Debug)]
pub(super) struct Session<'a> {
    client: &'a Client,
    pub(super) id: String,
}

impl<'a> Session<'a> {
    /// Makes one, on the agent's node or on another. What it holds is released at its end, or with
    /// `delete` removed.
    pub(super) async fn create(
        client: &'a Client,
        name: &str,
        node: Option<&str>,
        delete: bool,
    ) -> Result<Self, String> {
        let behavior = if delete { "delete" } else { "release" };
        let body = json!({ "Name": name, "Node": node, "TTL": "15s", "Behavior": behavior });
        let body = body.to_string().into_bytes();
        let failed = |error: String| format!("failed to create session: {error}");
        let made = client.call(("PUT", "/v1/session/create"), &[], body).await.map_err(failed)?;
        let id = session_id(&made);
        let id = id.ok_or_else(|| failed("the agent answered without a session".to_owned()))?;
        Ok(Self { client, id })
    }

    /// Renews it until it is over, because it ended or could not be renewed in time.
    pub(super) async fn keep(&self) -> String {
        let path = format!("/v1/session/renew/{}", self.id);
        let (mut renewed, mut pause) = (Instant::now(), TTL / 2);
        loop {
            Timer::after(pause).await;
            let left = TTL.saturating_sub(renewed.elapsed());
            let asked_at = Instant::now();
            let asked = self.client.ask(("PUT", &path), &[], Vec::new(), left).await;
            let error = match asked {
                Ok(response) if response.status == 200 => {
                    (renewed, pause) = (asked_at, TTL / 2);
                    continue;
                }
                Ok(response) if response.status == 404 => return "session expired".to_owned(),
                Ok(response) => unexpected(&response),
                Err(error) => error,
            };
            if renewed.elapsed() + RETRY >= TTL {
                return format!("the session could not be renewed: {error}");
            }
            pause = RETRY;
        }
    }

    /// Ends it.
    pub(super) async fn destroy(&self) {
        let path = format!("/v1/session/destroy/{}", self.id);
        // Without an answer its TTL ends it.
        let _ = self.client.ask(("PUT", &path), &[], Vec::new(), TIME).await;
    }
}
