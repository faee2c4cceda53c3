//! Events of the HTTP interface between agents.

use e2e::{LONG, Options, wait_until};

#[test]
fn an_event_reaches_the_nodes_that_it_is_meant_for_and_wakes_who_waits() {
    let server = Options::new("server", &["-server", "-bootstrap"]).start();
    let client = Options::new("client", &["-join", &server.address()]).start();
    let service = r#"{"Name": "web", "Tags": ["v1"], "Port": 80}"#;
    assert_eq!(client.put("/v1/agent/service/register", service).status, 200);
    wait_until("the members", LONG, || (client.statuses().len() == 2).then_some(()));

    let empty = client.get("/v1/event/list?name=deploy");
    assert_eq!((empty.body.as_str(), empty.header("x-consul-index")), ("[]", Some("1")));
    let (newest, fired) = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.get("/v1/event/list?name=deploy&index=1&wait=60s"));
        let http = format!("-http-addr={}:8500", server.address());
        let words = ["event", &http, "-name=deploy", "-service=web", "-tag=v1", "v7"];
        let fired = e2e::command(&words);
        (waiting.join().expect("the list is answered"), fired)
    });
    let text = String::from_utf8_lossy(&fired.stdout).into_owned();
    let id = text.strip_prefix("Event ID: ").expect("the identity").trim();
    let list: serde_json::Value = serde_json::from_str(&newest.body).unwrap_or_default();
    assert_eq!(list[0]["ID"], id, "{list}");
    assert_eq!((&list[0]["Payload"], &list[0]["ServiceFilter"]), (&"djc=".into(), &"web".into()));
    assert_eq!(server.get("/v1/event/list").body, "[]", "no such service there");

    let refused = server.put("/v1/event/fire/deploy?tag=v1", "");
    let rule = "Cannot provide tag filter without service filter";
    assert_eq!((refused.status, refused.body.as_str()), (500, rule));
}
