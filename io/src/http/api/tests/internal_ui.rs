//! `/v1/internal/ui` (http-api.md §18).

use super::values::{bare_service, check, node, service};
use super::*;
use std::sync::Arc;
use terraform_core::catalog::model::Service;
use terraform_core::catalog::overview::{NodeOverview, Overview};
use terraform_core::catalog::query::Instance;

fn overview() -> NodeOverview {
    let (services, checks) = (vec![bare_service("db")], vec![check("c", "passing", None)]);
    NodeOverview { node: node(), services, checks }
}

#[test]
fn nodes_show_everything_on_them() {
    let rows = Rows::NodeOverviews(vec![overview()]);
    let (reply, asked) = server().read("GET /v1/internal/ui/nodes?filter=Node==n1", rows);
    let json: serde_json::Value = serde_json::from_str(&body(&reply)).unwrap();
    let keys: Vec<&String> = json[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["ID", "Node", "Address", "TaggedAddresses", "Meta", "Services", "Checks"]);
    assert_eq!(json[0]["Services"][0]["Tags"], serde_json::Value::Null);
    assert_eq!(json[0]["Checks"][0]["CheckID"], "c");
    assert_eq!(reply.meta.map(|meta| (meta.index, meta.consistency)), Some((42, None)));
    let wants_filter =
        matches!(asked.body, RequestBody::Query(Query::Overview(Overview::Nodes(Some(_)))));
    assert!(wants_filter, "{:?}", asked.body);
    let bad = server().say("GET /v1/internal/ui/nodes?filter=Nope==1");
    assert_eq!(bad.0, 500);
}

#[test]
fn one_node_is_one_object_and_an_unknown_one_is_not_found() {
    let (reply, _) =
        server().read("GET /v1/internal/ui/node/n1", Rows::NodeOverviews(vec![overview()]));
    assert!(body(&reply).starts_with(r#"{"ID":"63699824-"#), "{}", body(&reply));
    let (reply, _) = server().read("GET /v1/internal/ui/node/x", Rows::NodeOverviews(vec![]));
    assert_eq!((reply.status, body(&reply)), (404, String::new()));
    assert!(reply.meta.is_some());
    let missing = server().say("GET /v1/internal/ui/node/");
    assert_eq!(missing, (400, "Missing node name".to_owned()));
}

#[test]
fn services_are_summed_up_by_name() {
    let instance = |service: Arc<Service>, status| {
        let checks = vec![check("serfHealth", "passing", None), check("c", status, None)];
        Arc::new(Instance { node: node(), service, checks })
    };
    let mut sourced = Service::clone(&service());
    sourced.meta.insert("external-source".to_owned(), "kubernetes".to_owned());
    sourced.tags.push("c".to_owned());
    let rows = vec![
        instance(service(), "critical"),
        instance(Arc::new(sourced), "passing"),
        instance(bare_service("db"), "warning"),
    ];
    let (reply, _) = server().read("GET /v1/internal/ui/services", Rows::Instances(rows));
    assert_eq!(
        body(&reply),
        r#"[{"Name":"db","Tags":null,"Nodes":["n1"],"InstanceCount":1,"ChecksPassing":1,"#
            .to_owned()
            + r#""ChecksWarning":1,"ChecksCritical":0,"ExternalSources":null,"GatewayConfig":{}},"#
            + r#"{"Name":"web","Tags":["a","b","c"],"Nodes":["n1","n1"],"InstanceCount":2,"#
            + r#""ChecksPassing":3,"ChecksWarning":0,"ChecksCritical":1,"#
            + r#""ExternalSources":["kubernetes"],"GatewayConfig":{}}]"#
    );
}

#[test]
fn without_a_leader_any_server_is_asked() {
    let answers = vec![Err(RequestError::NoLeader), answer(Rows::NodeOverviews(vec![]))];
    let (reply, asked) = server().exchange("GET /v1/internal/ui/nodes", answers);
    assert_eq!((reply.status, body(&reply).as_str()), (200, "[]"));
    let modes: Vec<Consistency> = asked.iter().map(|it| it.context.consistency).collect();
    assert_eq!(modes, [Consistency::Leader, Consistency::Stale]);
}
