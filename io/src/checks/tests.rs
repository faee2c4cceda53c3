//! Each kind of check against this machine: real processes, real sockets.

use super::*;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpListener;
use std::collections::BTreeMap;
use std::time::Duration;
use terraform_core::local::definition::ScriptCheck;

mod docker;
mod https;

const INTERVAL: Duration = Duration::from_secs(10);
const LIMIT: usize = 4096;

#[test]
fn a_script_is_judged_by_its_exit_and_says_both_streams_in_order() {
    let result = sh("echo out; echo err >&2; exit 0", 10_000, LIMIT);
    assert_eq!((result.status, result.output.as_str()), (CheckStatus::Passing, "out\nerr\n"));
    assert_eq!(sh("exit 1", 10_000, LIMIT).status, CheckStatus::Warning);
    assert_eq!(sh("exit 7", 10_000, LIMIT).status, CheckStatus::Critical);
    assert_eq!(sh("kill -9 $$", 10_000, LIMIT).status, CheckStatus::Critical);
}

#[test]
fn a_long_output_is_cut_to_its_end() {
    let result = sh("printf 0123456789abcdef", 10_000, 6);
    assert_eq!(result.output, "Captured 6 of 16 bytes\n...\nabcdef");
}

#[test]
fn a_late_script_is_killed_with_everything_it_started() {
    let result = sh("echo $$; sleep 600 & echo $!; wait", 300, LIMIT);
    assert_eq!(result.status, CheckStatus::Critical);
    let text = result.output.strip_prefix("Timed out (300ms) running check\n\n").unwrap();
    let pids: Vec<i32> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    // A killed orphan is collected by another process, in its own time.
    for pid in pids {
        let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        assert!((0..100).any(|_| gone() || pause()), "process {pid} survived");
    }
    let own = format!("/proc/{}/stat", text.lines().next().unwrap());
    assert!(!std::path::Path::new(&own).exists(), "the script is a zombie");
}

#[test]
fn a_dropped_run_leaves_no_process() {
    let file = std::env::temp_dir().join(format!("terraform-check-{}", std::process::id()));
    let script = format!("echo $$ > {}; sleep 600", file.display());
    let run = Runner::default().run(shell(&script, 60_000), LIMIT);
    smol::block_on(smol::future::or(async { drop(run.await) }, async {
        while std::fs::read_to_string(&file).map_or(true, |text| !text.ends_with('\n')) {
            Timer::after(Duration::from_millis(5)).await;
        }
    }));
    let pid = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let path = format!("/proc/{}", pid.trim());
    assert!((0..100).any(|_| !std::path::Path::new(&path).exists() || pause()));
}

#[test]
fn a_background_process_with_the_pipe_open_does_not_hold_the_result() {
    let started = std::time::Instant::now();
    let result = sh("sleep 5 & echo done", 60_000, LIMIT);
    assert_eq!((result.status, result.output.as_str()), (CheckStatus::Passing, "done\n"));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_command_that_is_not_there_is_critical_and_named() {
    let (interval, timeout) = (INTERVAL, INTERVAL);
    let run = |program: &str| {
        let args = vec![program.to_owned()];
        run(CheckKind::Script(ScriptCheck { args, interval, timeout }), LIMIT)
    };
    let result = run("no-such-command");
    assert_eq!(result.status, CheckStatus::Critical);
    assert_eq!(result.output, "exec: \"no-such-command\": executable file not found in $PATH");
    assert_eq!(run("/no/such").output, "fork/exec /no/such: no such file or directory");
}

#[test]
fn a_fetch_is_judged_by_its_status() {
    let cases = [
        ("200 OK", CheckStatus::Passing),
        ("201 Created", CheckStatus::Passing),
        ("429 Too Many Requests", CheckStatus::Warning),
        ("503 Service Unavailable", CheckStatus::Critical),
    ];
    for (status, expected) in cases {
        let (url, result, request) = fetched(status);
        assert_eq!(result.status, expected);
        assert_eq!(result.output, format!("HTTP GET {url}: {status} Output: hi"));
        assert!(request.contains("User-Agent: Consul Health Check\r\n"), "{request}");
        assert!(request.contains("Accept: text/plain, text/*, */*\r\n"), "{request}");
        assert!(request.contains("X-Own: 1\r\n"), "{request}");
    }
}

#[test]
fn a_connection_is_judged_by_whether_it_opens() {
    smol::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string();
        let check = TcpCheck { target: target.clone(), interval: INTERVAL, timeout: INTERVAL };
        let result = Runner::default().run(CheckKind::Tcp(check.clone()), LIMIT).await;
        assert_eq!(result.status, CheckStatus::Passing);
        assert_eq!(result.output, format!("TCP connect {target}: Success"));
        drop(listener);
        let result = Runner::default().run(CheckKind::Tcp(check), LIMIT).await;
        assert_eq!(result.status, CheckStatus::Critical);
        assert_eq!(result.output, format!("dial tcp {target}: connection refused"));
    });
}

#[test]
fn only_a_datagram_that_is_refused_is_critical() {
    smol::block_on(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = socket.local_addr().unwrap().to_string();
        let timeout = Duration::from_millis(200);
        let check = |timeout| UdpCheck { target: target.clone(), interval: INTERVAL, timeout };
        let runner = Runner::default();
        let run = |timeout| runner.run(CheckKind::Udp(check(timeout)), LIMIT);
        let passing = format!("UDP connect {target}: Success");
        let silent = run(timeout).await;
        assert_eq!((silent.status, silent.output.as_str()), (CheckStatus::Passing, &*passing));
        let answer = async {
            let mut text = [0; 16];
            loop {
                let (_, from) = socket.recv_from(&mut text).await.unwrap();
                socket.send_to(b"hello", from).await.unwrap();
            }
        };
        let started = std::time::Instant::now();
        let answered = smol::future::or(run(INTERVAL), answer).await;
        assert_eq!((answered.status, answered.output.as_str()), (CheckStatus::Passing, &*passing));
        assert!(started.elapsed() < INTERVAL);
        drop(socket);
        let refused = run(INTERVAL).await;
        assert_eq!(refused.status, CheckStatus::Critical);
        assert_eq!(refused.output, format!("udp {target}: connection refused"));
    });
}

/// Answers one request with `status`; gives the URL, the result and the request's head.
fn fetched(status: &'static str) -> (String, CheckResult, String) {
    smol::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/health", listener.local_addr().unwrap());
        let server = smol::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).await.unwrap();
            let response = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nhi");
            stream.write_all(response.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let result = Runner::default().run(CheckKind::Http(http(&url)), LIMIT).await;
        (url, result, server.await)
    })
}

fn http(url: &str) -> HttpCheck {
    HttpCheck {
        url: url.to_owned(),
        method: "GET".to_owned(),
        header: BTreeMap::from([("X-Own".to_owned(), vec!["1".to_owned()])]),
        body: String::new(),
        tls_skip_verify: false,
        interval: INTERVAL,
        timeout: INTERVAL,
    }
}

fn sh(script: &str, timeout_millis: u64, limit: usize) -> CheckResult {
    run(shell(script, timeout_millis), limit)
}

fn shell(script: &str, timeout_millis: u64) -> CheckKind {
    let args = ["sh", "-c", script].map(str::to_owned).to_vec();
    let timeout = Duration::from_millis(timeout_millis);
    CheckKind::Script(ScriptCheck { args, interval: INTERVAL, timeout })
}

fn run(kind: CheckKind, limit: usize) -> CheckResult {
    smol::block_on(Runner::default().run(kind, limit))
}

/// Waits a moment; never true, so that it ends a chain of conditions.
fn pause() -> bool {
    smol::block_on(Timer::after(Duration::from_millis(20)));
    false
}
