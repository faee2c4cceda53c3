//! What locks and remote execution ask of the key-value table.

use super::client::{Client, TIME, json};
use super::kv::Entry;
use super::transport::{key_path, unexpected};
use serde_json::Value;
use std::time::Duration;
use terraform_io::http::client::ClientResponse;

/// Why a question was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) text: String,
    /// Whether it may be over soon: the agent is not reached, or has no leader.
    pub(super) may_pass: bool,
}

impl Failure {
    /// The text for the user, which says what was to be done.
    pub(super) fn of(self, what: &str) -> String {
        format!("failed to {what}: {}", self.text)
    }
}

/// The table, by way of an agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys<'a>(pub(super) &'a Client);

/// What a read waits for: another index than this one, for so long.
pub(super) type Waiting = Option<(u64, Duration)>;

impl Keys<'_> {
    /// The entry of a key, and the index of what was read.
    pub(super) async fn get(
        self,
        key: &str,
        waiting: Waiting,
    ) -> Result<(Option<Entry>, u64), Failure> {
        let (entries, index) = self.read(key, Vec::new(), waiting).await?;
        Ok((entries.into_iter().next(), index))
    }

    /// The entries whose keys begin with `prefix`, and the index of what was read.
    pub(super) async fn list(
        self,
        prefix: &str,
        waiting: Waiting,
    ) -> Result<(Vec<Entry>, u64), Failure> {
        self.read(prefix, vec!["recurse".to_owned()], waiting).await
    }

    /// The keys that begin with `prefix`, and the index of what was read.
    pub(super) async fn names(
        self,
        prefix: &str,
        waiting: Waiting,
    ) -> Result<(Vec<String>, u64), Failure> {
        let (rows, index) = self.rows(prefix, vec!["keys".to_owned()], waiting).await?;
        let names = rows.iter().map(|row| row.as_str().map(str::to_owned));
        let names = names.collect::<Option<Vec<_>>>();
        Ok((names.ok_or_else(unreadable)?, index))
    }

    async fn read(
        self,
        key: &str,
        query: Vec<String>,
        waiting: Waiting,
    ) -> Result<(Vec<Entry>, u64), Failure> {
        let (rows, index) = self.rows(key, query, waiting).await?;
        let entries = rows.iter().map(Entry::read).collect::<Option<Vec<_>>>();
        Ok((entries.ok_or_else(unreadable)?, index))
    }

    async fn rows(
        self,
        key: &str,
        mut query: Vec<String>,
        waiting: Waiting,
    ) -> Result<(Vec<Value>, u64), Failure> {
        query.push("consistent".to_owned());
        let mut within = TIME;
        if let Some((index, wait)) = waiting {
            query.push(format!("index={index}"));
            query.push(format!("wait={}ms", wait.as_millis().max(1)));
            // Servers add up to a sixteenth (http-api.md §1.3).
            within += wait + wait / 16;
        }
        let response = self.ask("GET", key, &query, Vec::new(), within).await?;
        let index = response.header("x-consul-index").and_then(|text| text.parse().ok());
        let refuse = |text: &str| Failure { text: text.to_owned(), may_pass: false };
        // Without an index the next read would not wait.
        let index = index.filter(|index| *index > 0);
        let index = index.ok_or_else(|| refuse("the agent tells no index"))?;
        if response.status == 404 {
            return Ok((Vec::new(), index));
        }
        let answer = json(&response).map_err(|error| refuse(&error))?;
        let Value::Array(rows) = answer else { return Err(unreadable()) };
        Ok((rows, index))
    }

    /// Stores a value with these parameters; whether that was done.
    pub(super) async fn put(
        self,
        key: &str,
        query: &[String],
        value: Vec<u8>,
    ) -> Result<bool, Failure> {
        let response = self.ask("PUT", key, query, value, TIME).await?;
        Ok(response.body.trim_ascii() == b"true")
    }

    /// Removes a key, with `index` only if it has that one; whether that was done.
    pub(super) async fn delete(self, key: &str, index: Option<u64>) -> Result<bool, Failure> {
        let query: Vec<String> = index.iter().map(|index| format!("cas={index}")).collect();
        let response = self.ask("DELETE", key, &query, Vec::new(), TIME).await?;
        Ok(response.body.trim_ascii() == b"true")
    }

    /// Removes all keys that begin with `prefix`.
    pub(super) async fn delete_tree(self, prefix: &str) -> Result<(), Failure> {
        let query = ["recurse".to_owned()];
        self.ask("DELETE", prefix, &query, Vec::new(), TIME).await.map(drop)
    }

    async fn ask(
        self,
        method: &str,
        key: &str,
        query: &[String],
        body: Vec<u8>,
        within: Duration,
    ) -> Result<ClientResponse, Failure> {
        let asked = self.0.ask((method, &key_path(key)), query, body, within).await;
        let response = asked.map_err(|text| Failure { text, may_pass: true })?;
        match response.status {
            200 => Ok(response),
            404 if method == "GET" => Ok(response),
            status => Err(Failure { text: unexpected(&response), may_pass: status >= 500 }),
        }
    }
}

fn unreadable() -> Failure {
    Failure { text: "unreadable answer".to_owned(), may_pass: false }
}

/// The identity in the answer to the making of a session.
pub(super) fn session_id(response: &ClientResponse) -> Option<String> {
    json(response).ok()?.get("ID").and_then(Value::as_str).map(str::to_owned)
}
