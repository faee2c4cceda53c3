//! Commands in containers, with an engine that answers from a script.

use super::*;
use crate::checks::docker;
use smol::net::unix::UnixListener;
use std::path::PathBuf;
use std::time::Duration;
use terraform_core::local::definition::DockerCheck;

const CREATED: &str = "HTTP/1.1 201 Created\r\nContent-Length: 11\r\n\r\n{\"Id\":\"e1\"}";

fn ended(code: u8) -> String {
    let body = format!("{{\"Running\":false,\"ExitCode\":{code}}}");
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A piece of what a command says, on standard output or error.
fn piece(stream: u8, text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    [&[stream, 0, 0, 0, 0, 0, 0, length], text.as_bytes()].concat()
}

fn started() -> Vec<u8> {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";
    [&head[..], &piece(1, "out\n"), &piece(2, ""), &piece(2, "err\n")].concat()
}

fn check(timeout: Duration) -> DockerCheck {
    let args = ["test", "-e", "/up"].map(str::to_owned).to_vec();
    DockerCheck { container: "web/1".to_owned(), args, interval: INTERVAL, timeout }
}

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("terraform-docker-{}-{name}", std::process::id()))
}

/// Runs a check against an engine with these replies, one for each connection; what it was asked.
fn run_with(name: &str, replies: Vec<Vec<u8>>, limit: usize) -> (CheckResult, Vec<String>) {
    let path = socket(name);
    let result = smol::block_on(async {
        let listener = UnixListener::bind(&path).unwrap();
        let engine = smol::spawn(async move {
            let mut asked = Vec::new();
            for reply in replies {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let count = stream.read(&mut request).await.unwrap();
                asked.push(String::from_utf8_lossy(&request[..count]).into_owned());
                // In pieces, so that none is taken for whole.
                for part in reply.chunks(5) {
                    stream.write_all(part).await.unwrap();
                }
            }
            asked
        });
        let result = docker::run(&check(INTERVAL), &path, limit).await;
        (result, engine.await)
    });
    std::fs::remove_file(&path).unwrap();
    result
}

#[test]
fn a_command_in_a_container_is_judged_by_its_exit() {
    for (code, expected) in
        [(0, CheckStatus::Passing), (1, CheckStatus::Warning), (2, CheckStatus::Critical)]
    {
        let replies = vec![CREATED.into(), started(), ended(code).into()];
        let (result, asked) = run_with("exit", replies, LIMIT);
        assert_eq!((result.status, result.output.as_str()), (expected, "out\nerr\n"));
        assert!(asked[0].starts_with("POST /v1.24/containers/web%2F1/exec HTTP/1.1\r\n"));
        assert!(asked[0].ends_with(r#""Cmd":["test","-e","/up"]}"#), "{}", asked[0]);
        assert!(asked[1].starts_with("POST /v1.24/exec/e1/start "), "{}", asked[1]);
        assert!(asked[2].starts_with("GET /v1.24/exec/e1/json "), "{}", asked[2]);
    }
    let replies = vec![CREATED.into(), started(), ended(0).into()];
    let (result, _) = run_with("tail", replies, 4);
    assert_eq!(result.output, "Captured 4 of 8 bytes\n...\nerr\n");
}

#[test]
fn what_the_engine_refuses_is_critical_and_told() {
    let gone = "HTTP/1.1 404 Not Found\r\n\r\n{\"message\":\"No such container: web\"}\n";
    let (result, _) = run_with("gone", vec![gone.into()], LIMIT);
    let expected =
        r#"the docker engine refused with 404: {"message":"No such container: web"}"#.to_owned();
    assert_eq!((result.status, result.output), (CheckStatus::Critical, expected));
}

#[test]
fn without_an_engine_a_run_is_critical_and_names_the_socket() {
    let path = socket("none");
    let result = smol::block_on(docker::run(&check(INTERVAL), &path, LIMIT));
    let path = path.display();
    let expected =
        format!("the docker engine is not reached: dial unix {path}: no such file or directory");
    assert_eq!((result.status, result.output), (CheckStatus::Critical, expected));
}

#[test]
fn a_late_command_is_critical() {
    let path = socket("late");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let check = check(Duration::from_millis(50));
    let result = smol::block_on(docker::run(&check, &path, LIMIT));
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    let expected = "Timed out (50ms) running check".to_owned();
    assert_eq!((result.status, result.output), (CheckStatus::Critical, expected));
}
