//! The list of models, in pages and one by one.

use super::{House, kind};
use serde_json::Value;

fn ids(page: &Value) -> Vec<String> {
    let data = page["data"].as_array().expect("a page has data");
    data.iter().map(|model| model["id"].as_str().expect("a model has an id").to_owned()).collect()
}

#[tokio::test]
async fn models_come_in_pages_and_the_default_leads() {
    let house = House::open().await;
    let all = house.call("GET /v1/models?limit=1000&beta=true", "").await.json();
    let known = ids(&all);
    assert_eq!((known[0].as_str(), &all["has_more"]), ("own/best", &Value::Bool(false)));
    assert!(known.len() > 3 && known[1..].iter().all(|id| id.starts_with("anthropic/claude-")), "{known:?}");
    let (mut walked, mut after) = (Vec::new(), String::new());
    loop {
        let page = house.call(&format!("GET /v1/models?limit=2{after}"), "").await.json();
        walked.extend(ids(&page));
        after = format!("&after_id={}", page["last_id"].as_str().expect("no page is empty").replace('/', "%2F"));
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(walked, known);
    let before = house.call(&format!("GET /v1/models?limit=2&before_id={}", known[3]), "").await.json();
    assert_eq!((ids(&before), &before["has_more"]), (known[1..3].to_vec(), &Value::Bool(true)));
    let retired = house.call("GET /v1/models?lifecycle%5B%5D=retired", "").await.json();
    assert_eq!((ids(&retired).len(), &retired["first_id"]), (0, &Value::Null));
    for query in ["limit=0", "limit=1001", "limit=x", "after_id=none", "lifecycle[]=young", "after_id=a&before_id=b"] {
        assert_eq!(
            kind(&house.call(&format!("GET /v1/models?{query}"), "").await),
            "400 invalid_request_error",
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_model_is_found_by_its_id_or_by_a_name_that_only_one_vendor_has() {
    let house = House::open().await;
    for (id, expected) in [
        ("anthropic/claude-sonnet-4-5", Some(("anthropic/claude-sonnet-4-5", Value::from(200_000)))),
        ("anthropic%2Fclaude-sonnet-4-5", Some(("anthropic/claude-sonnet-4-5", Value::from(200_000)))),
        ("claude-sonnet-4-5", Some(("anthropic/claude-sonnet-4-5", Value::from(200_000)))),
        ("anthropic/claude-sonnet-4-5-20250929", Some(("anthropic/claude-sonnet-4-5-20250929", Value::from(200_000)))),
        ("best", Some(("own/best", Value::Null))),
        ("own/unheard-of", Some(("own/unheard-of", Value::Null))),
        ("openai/gpt-5", None),
        ("unheard-of", None),
    ] {
        let answer = house.call(&format!("GET /v1/models/{id}"), "").await;
        match expected {
            Some((id, context)) => {
                let model = answer.json();
                assert_eq!((&model["id"], &model["max_input_tokens"]), (&Value::from(id), &context), "{model}");
                assert_eq!((&model["type"], &model["lifecycle"]), (&"model".into(), &"active".into()), "{model}");
            }
            None => assert_eq!(kind(&answer), "404 not_found_error", "{id}"),
        }
    }
}
