//! What an agent tells of itself, in an archive.

use e2e::{Options, command};
use serde_json::Value;
use std::process::Command;

#[test]
fn what_an_agent_tells_is_collected_and_the_rest_is_named() {
    let agent = Options::new("told", &["-server", "-bootstrap"]).start();
    agent.wait_for_leader();
    let http = format!("-http-addr={}:8500", agent.address());
    let output = agent.options.folder.join("collected");
    let path = output.to_str().expect("text");
    let words = ["debug", &http, "-duration=10s", "-interval=5s", "-output", path];
    let done = command(&words);
    let (out, err) = (&done.stdout, String::from_utf8_lossy(&done.stderr).into_owned());
    let out = String::from_utf8_lossy(out).into_owned();
    assert_eq!(done.status.code(), Some(0), "{out}{err}");
    assert!(out.ends_with(&format!("==> Saved debug archive: {path}.tar.gz\n")), "{out}");
    assert!(err.contains("    Not captured: pprof: "), "{err}");
    assert!(!output.exists(), "only the archive is left");

    let archive = format!("{path}.tar.gz");
    let extract = ["-x", "-z", "-f", &archive, "-C", agent.options.folder.to_str().expect("text")];
    assert!(Command::new("tar").args(extract).status().expect("tar runs").success());
    let json = |name: &str| -> Value {
        let text = std::fs::read(output.join(name)).expect("the file is there");
        serde_json::from_slice(&text).expect("JSON")
    };
    assert_eq!(json("agent.json")["Config"]["NodeName"], "told");
    assert_eq!(json("cluster.json")[0]["Name"], "told");
    let index = json("index.json");
    assert_eq!((&index["Interval"], &index["Duration"]), (&"5s".into(), &"10s".into()));
    let folders = std::fs::read_dir(&output).expect("the folder is there");
    let folders = folders.filter(|entry| entry.as_ref().is_ok_and(|it| it.path().is_dir()));
    assert_eq!(folders.count(), 2, "one for each interval");

    let twice = command(&words);
    let text = String::from_utf8_lossy(&twice.stderr).into_owned();
    let expected =
        format!("==> Capture validation failed: output directory already exists: {path}\n");
    assert_eq!((twice.status.code(), text), (Some(1), expected));
}
