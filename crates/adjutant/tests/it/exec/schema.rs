//! Answers that must fit a schema.

use super::{MODELS, world_of};
use adj_testkit::{FakeVendor, Reply};
use std::fs;

const SCHEMA: &str = r#"{"type": "object", "required": ["verdict"], "additionalProperties": false,
    "properties": {"verdict": {"enum": ["good", "bad"]}}}"#;

/// Answers with each text in turn; returns exit code, standard output, standard error, and the last message of each request.
fn check(model: &str, answers: &[&str]) -> (Option<i32>, String, String, Vec<String>) {
    let vendor = FakeVendor::answering(answers.iter().map(|text| Reply::text(*text)).collect::<Vec<_>>());
    let world = world_of(&vendor);
    let folder = world.folder("work", &[("review.json", SCHEMA)]);
    let words = ["exec", "-m", model, "review", "--output-schema", "review.json", "--last-message", "last.json"];
    let done = world.run(&folder, &words);
    let last = fs::read_to_string(folder.join("last.json")).expect("the last message is written");
    assert_eq!(last, answers[answers.len() - 1]);
    let asked = vendor.requests();
    assert_eq!(asked.len(), answers.len(), "{done}");
    // The vendor is told of the schema, over each wire in its own way.
    assert!(asked[0].body.to_string().contains("verdict"), "{}", asked[0].body);
    world.verify();
    (done.code, done.out, done.err, asked.iter().map(|asked| asked.last().to_string()).collect())
}

#[test]
fn an_answer_is_taken_or_sent_back_once_or_refused() {
    for model in MODELS {
        let (code, out, _, _) = check(model, &[r#"{"verdict": "good"}"#]);
        assert_eq!((code, out.as_str()), (Some(0), "{\"verdict\": \"good\"}\n"), "{model}");

        let (code, out, _, asked) = check(model, &[r#"{"verdict": "fair"}"#, r#"{"verdict": "bad"}"#]);
        assert_eq!((code, out.as_str()), (Some(0), "{\"verdict\": \"bad\"}\n"), "{model}");
        assert!(asked[1].contains("/verdict"), "{model}: the errors go back to the model: {}", asked[1]);

        let (code, out, err, asked) = check(model, &["It is good.", "I said it is good."]);
        assert_eq!((code, out.as_str()), (Some(3), "I said it is good.\n"), "{model}");
        assert!(err.contains("the answer does not fit its schema: the answer is not JSON"), "{model}: {err}");
        assert!(asked[1].contains("not JSON"), "{model}: {}", asked[1]);
    }
}
