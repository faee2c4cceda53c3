//! Coordinates over HTTP.

use super::*;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::model::NodeCoordinate;
use terraform_core::catalog::query::{CoordinateQuery, DatacenterCoordinates, Query};
use terraform_core::coordinate::Coordinate;

fn row(adjustment: f64) -> NodeCoordinate {
    let position = [0.5, -0.25, 1e-7, 0.0, 0.0, 0.0, 0.0, 3.0];
    let coordinate = Coordinate::new(position, 1.5, 1e-5, adjustment).unwrap();
    NodeCoordinate { node: NodeName::parse("n1").unwrap(), segment: String::new(), coordinate }
}

const ROW: &str = r#"{"Node":"n1","Segment":"","Coord":{"Vec":[0.5,-0.25,1e-7,0,0,0,0,3],"Error":1.5,"Adjustment":0,"Height":0.00001}}"#;

fn rows() -> Rows {
    Rows::Coordinates(vec![Arc::new(row(0.0))])
}

#[test]
fn coordinates_are_read_with_index_and_without_the_consistency() {
    let asked = |target: &str| {
        let (reply, asked) = server().read(&format!("GET {target}"), rows());
        assert_eq!((reply.status, body(&reply)), (200, format!("[{ROW}]")));
        assert_eq!(reply.meta.unwrap().consistency, None);
        let RequestBody::Query(Query::Coordinates(query)) = asked.body else { panic!() };
        query
    };
    assert_eq!(asked("/v1/coordinate/nodes"), CoordinateQuery::default());
    let segment = Some(String::new());
    let expected = CoordinateQuery { node: None, segment };
    assert_eq!(asked("/v1/coordinate/nodes?segment="), expected);
    let node = NodeName::parse("n1").ok();
    assert_eq!(asked("/v1/coordinate/node/n1"), CoordinateQuery { node, segment: None });
    let (reply, _) = server().read("GET /v1/coordinate/node/zz", Rows::Coordinates(Vec::new()));
    assert_eq!((reply.status, body(&reply)), (404, String::new()));
    assert!(reply.meta.is_some());
}

#[test]
fn datacenters_are_listed_with_their_servers() {
    let datacenter = Datacenter::parse("dc1").unwrap();
    let own = DatacenterCoordinates { datacenter, servers: vec![Arc::new(row(0.0))] };
    let rows = Rows::DatacenterCoordinates(vec![own]);
    let (reply, _) = server().read("GET /v1/coordinate/datacenters", rows);
    let expected = format!(r#"[{{"Datacenter":"dc1","AreaID":"wan","Coordinates":[{ROW}]}}]"#);
    assert_eq!((body(&reply), reply.meta), (expected, None));
}

#[test]
fn an_update_is_a_write_and_bad_ones_name_the_rule() {
    let update = |body: &str| format!("PUT /v1/coordinate/update\n\n{body}");
    let (status, text, asked) =
        server().write(&update(&ROW.replace("\"Adjustment\":0", "\"Adjustment\":0.5")));
    assert_eq!((status, text.as_str()), (200, ""));
    assert_eq!(asked, RequestBody::Write(Command::Coordinates(vec![row(0.5)])));
    let world = server();
    let refused = |body: &str| world.say(&update(body));
    let short = r#"{"Node":"n1","Coord":{"Vec":[1]}}"#;
    assert_eq!(refused(short), (500, "incompatible coordinate".to_owned()));
    let missing = (400, "Request decode failed: missing Coord".to_owned());
    assert_eq!(refused(r#"{"Node":"n1"}"#), missing);
    assert_eq!(refused("{").0, 400);
    assert_eq!(refused(r#"{"Node":"n1","Segment":"x"}"#).0, 500);
}

#[test]
fn switched_off_coordinates_are_refused_everywhere() {
    let mut settings = settings();
    settings.facts.coordinates = false;
    let world = World::new(settings, LocalView::default());
    for target in ["GET nodes", "GET node/n1", "GET datacenters", "PUT update"] {
        let (method, path) = target.split_once(' ').unwrap();
        let refused = world.say(&format!("{method} /v1/coordinate/{path}"));
        assert_eq!(refused, (401, "Coordinate support disabled".to_owned()), "{target}");
    }
}
