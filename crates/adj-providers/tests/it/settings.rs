//! Which vendors an environment sets up.

use adj_providers::{Settings, http::Credentials};
use std::collections::BTreeMap;

fn settings(variables: &[(&str, &str)]) -> Result<Settings, String> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let variables = variables.collect::<BTreeMap<String, String>>();
    Settings::from_env(&|name: &str| variables.get(name).cloned()).map_err(|error| error.to_string())
}

#[test]
fn the_usual_variables_set_vendors_up() {
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], Option<&'a str>);
    let cases: [Case<'_>; 13] = [
        (&[], &[], None),
        (&[("OPENAI_API_KEY", ""), ("ANTHROPIC_API_KEY", "  ")], &[], None),
        (&[("OPENAI_API_KEY", "k")], &["openai"], Some("openai/gpt-5.5")),
        (&[("OPENAI_API_KEY", "k"), ("OPENAI_MODEL", "o4-mini")], &["openai"], Some("openai/o4-mini")),
        (
            &[("OPENAI_API_KEY", "k"), ("ANTHROPIC_API_KEY", "k")],
            &["anthropic", "openai"],
            Some("anthropic/claude-sonnet-4-5"),
        ),
        (&[("ANTHROPIC_AUTH_TOKEN", "k")], &["anthropic"], Some("anthropic/claude-sonnet-4-5")),
        (&[("GEMINI_API_KEY", "k")], &["gemini"], Some("gemini/gemini-3.8-flash")),
        (&[("GOOGLE_API_KEY", "k"), ("GEMINI_MODEL", "gemini-4-argon")], &["gemini"], Some("gemini/gemini-4-argon")),
        (
            &[("GEMINI_BASE_URL", "http://localhost:1"), ("DEEPSEEK_API_KEY", "k"), ("OPENAI_API_KEY", "k")],
            &["deepseek", "gemini", "openai"],
            Some("openai/gpt-5.5"),
        ),
        (&[("OPENAI_COMPATIBLE_BASE_URL", "http://localhost:8000/v1")], &["openai-chat"], None),
        (
            &[("OPENAI_COMPATIBLE_BASE_URL", "http://localhost:8000/v1"), ("OPENAI_COMPATIBLE_MODEL", "qwen/q3")],
            &["openai-chat"],
            Some("openai-chat/qwen/q3"),
        ),
        (&[("OLLAMA_HOST", "127.0.0.1"), ("OLLAMA_MODEL", "q")], &["ollama"], Some("ollama/q")),
        (
            &[("DEEPSEEK_API_KEY", "k"), ("OPENROUTER_API_KEY", "k")],
            &["deepseek", "openrouter"],
            Some("deepseek/deepseek-chat"),
        ),
    ];
    for (variables, vendors, model) in cases {
        let settings = settings(variables).unwrap_or_else(|error| panic!("{variables:?}: {error}"));
        assert_eq!(settings.which_vendors(), vendors, "{variables:?}");
        assert_eq!(settings.default_model().map(|model| model.to_string()).as_deref(), model, "{variables:?}");
        let providers = settings.providers().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(providers, vendors);
    }
    // A key for a server that nobody named is no vendor, and no reason to refuse the others.
    assert_eq!(settings(&[("VLLM_API_KEY", "k")]).expect("it is passed over").which_vendors(), Vec::<&str>::new());
    let ollama =
        |host| settings(&[("OLLAMA_HOST", host)]).expect("the host is good").vendors["ollama"].base_url.to_string();
    assert_eq!(ollama("127.0.0.1"), "http://127.0.0.1:11434/v1");
    assert_eq!(ollama("http://gpu:8080/"), "http://gpu:8080/v1");
}

#[test]
fn wrong_variables_are_named_and_keys_are_not_shown() {
    let cases: [(&[(&str, &str)], &str); 7] = [
        (&[("GOOGLE_API_KEY", "sk-secret\n")], "GOOGLE_API_KEY"),
        (&[("GEMINI_API_KEY", "sk-secret\n"), ("GOOGLE_API_KEY", "k")], "GEMINI_API_KEY"),
        (&[("OPENAI_API_KEY", "sk-secret\n")], "OPENAI_API_KEY"),
        (&[("ANTHROPIC_AUTH_TOKEN", "sk-secret\u{7f}")], "ANTHROPIC_AUTH_TOKEN"),
        (&[("OPENAI_API_KEY", "sk-secret"), ("OPENAI_BASE_URL", "localhost:1234")], "OPENAI_BASE_URL"),
        (&[("OPENAI_BASE_URL", "ftp://x")], "OPENAI_BASE_URL"),
        (&[("ANTHROPIC_BASE_URL", "http://user:sk-secret@x")], "ANTHROPIC_BASE_URL"),
    ];
    for (variables, words) in cases {
        let error = settings(variables).expect_err(words);
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("sk-secret"), "{error}");
    }
    let good =
        settings(&[("OPENAI_API_KEY", "sk-secret"), ("ANTHROPIC_API_KEY", "sk-secret")]).expect("the keys are good");
    let shown = format!("{good:?} {:?}", good.providers());
    assert!(!shown.contains("sk-secret"), "{shown}");
}

#[test]
fn the_nearer_name_of_a_key_counts() {
    let found = settings(&[("GEMINI_API_KEY", "near"), ("GOOGLE_API_KEY", "far")]).expect("the keys are good");
    match &found.vendors["gemini"].credentials {
        Credentials::ApiKey(key) => assert_eq!(key.expose(), "near"),
        other => panic!("{other:?}"),
    }
}
