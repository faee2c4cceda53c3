//! Reads with `cached` (http-api.md §1.8).

use super::*;
use std::sync::Arc;
use terraform_core::node::request::WAIT_MAX;

const SERVICES: &str = "GET /v1/catalog/services?cached";

fn services(names: &[&str], index: u64) -> Answer {
    let rows = names.iter().map(|&name| (name.to_owned(), Vec::new())).collect();
    let mut answer = answer(Rows::Services(rows));
    if let Ok(Response::Answer(answer)) = &mut answer {
        Arc::make_mut(answer).index = ModifyIndex::new(index);
    }
    answer
}

/// The reply to a request, while the node answers each call by `node`.
async fn ask(world: &World, text: &str) -> (String, Option<String>, Option<u64>) {
    let reply = world.api.answer(&request(text), None).await;
    let cache = header(&reply, "X-Cache").map(|cache| {
        let age = header(&reply, "Age").map(|age| format!(" {age}")).unwrap_or_default();
        format!("{cache}{age}")
    });
    (body(&reply), cache, reply.meta.map(|meta| meta.index))
}

/// The next call that reaches the node.
async fn call(world: &World) -> Call {
    world.calls.recv().await.unwrap()
}

#[test]
fn the_first_read_is_a_miss_and_the_next_ones_are_hits() {
    let world = server();
    smol::block_on(async {
        let first = async {
            let asked = call(&world).await;
            asked.reply.send(services(&["web"], 5));
            smol::future::pending().await
        };
        let miss = smol::future::or(ask(&world, SERVICES), first).await;
        let web = r#"{"web":[]}"#.to_owned();
        assert_eq!(miss, (web.clone(), Some("MISS".to_owned()), Some(5)));
        let hit = ask(&world, &format!("{SERVICES}\nCache-Control: max-age=0")).await;
        assert_eq!(hit, (web, Some("HIT 0".to_owned()), Some(5)));
        let follows = call(&world).await;
        assert_eq!(follows.request.context.min_index.get(), 5);
        assert_eq!(follows.request.context.wait, Some(WAIT_MAX));
        // A read that waits does so for what follows.
        let text = format!("{SERVICES}&index=5&wait=60s");
        let waiting = ask(&world, &text);
        let change = async {
            follows.reply.send(services(&["db"], 9));
            smol::future::pending().await
        };
        let woken = smol::future::or(waiting, change).await;
        assert_eq!(woken, (r#"{"db":[]}"#.to_owned(), Some("HIT 0".to_owned()), Some(9)));
    });
}

#[test]
fn an_answer_that_cannot_be_refreshed_is_still_one() {
    let world = server();
    smol::block_on(async {
        let first = async {
            call(&world).await.reply.send(services(&["web"], 5));
            smol::future::pending().await
        };
        smol::future::or(ask(&world, SERVICES), first).await;
        call(&world).await.reply.send(Err(RequestError::NoLeader));
        let (body, cache, _) = ask(&world, SERVICES).await;
        assert_eq!(body, r#"{"web":[]}"#);
        assert!(cache.is_some_and(|cache| cache.starts_with("HIT ")));
    });
}

#[test]
fn other_tokens_and_datacenters_have_answers_of_their_own() {
    let world = server();
    smol::block_on(async {
        for more in ["", "&token=a", "&dc=dc2", "&node-meta=a:b", "&stale"] {
            let node = async {
                loop {
                    let asked = call(&world).await;
                    if asked.request.context.waits().is_none() {
                        asked.reply.send(services(&["web"], 5));
                    }
                }
            };
            let miss = smol::future::or(ask(&world, &format!("{SERVICES}{more}")), node).await;
            assert_eq!(miss.1.as_deref(), Some("MISS"), "{more}");
        }
    });
}

#[test]
fn datacenters_are_read_again_when_they_are_too_old_for_the_client() {
    let world = server();
    let names = || answer(Rows::Names(vec!["dc1".to_owned()]));
    let cache = |text: &str, answers| {
        let (reply, asked) = world.exchange(&format!("GET /v1/catalog/datacenters{text}"), answers);
        assert_eq!(body(&reply), r#"["dc1"]"#);
        (header(&reply, "X-Cache").unwrap_or_default().to_owned(), asked.len())
    };
    assert_eq!(cache("", vec![names()]), (String::new(), 1));
    assert_eq!(cache("?cached", vec![names()]), ("MISS".to_owned(), 1));
    assert_eq!(cache("?cached", vec![]), ("HIT".to_owned(), 0));
    assert_eq!(cache("?cached\nCache-Control: max-age=60", vec![]), ("HIT".to_owned(), 0));
    for refusal in ["max-age=0", "must-revalidate", "max-age=60, must-revalidate"] {
        let text = format!("?cached\nCache-Control: {refusal}");
        assert_eq!(cache(&text, vec![names()]), ("MISS".to_owned(), 1), "{refusal}");
    }
}

#[test]
fn the_cache_can_be_switched_off_and_is_not_for_every_read() {
    let settings = HttpSettings { use_cache: false, ..settings() };
    let world = World::new(settings, LocalView::default());
    let (reply, _) = world.exchange(SERVICES, vec![services(&["web"], 5)]);
    assert_eq!((reply.status, header(&reply, "X-Cache")), (200, None));
    let (reply, _) = server().read("GET /v1/catalog/nodes?cached", Rows::Nodes(vec![]));
    assert_eq!((reply.status, header(&reply, "X-Cache")), (200, None));
}
