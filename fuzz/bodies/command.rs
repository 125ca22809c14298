//! Reads a command line: what is told of it is bounded and plain, and does not change when a shell stands around it.

use adj_policy::{MAX_COMMANDS, Parsed, Word, is_known_safe, parse};

pub fn run(data: &[u8]) {
    let Ok(script) = std::str::from_utf8(data) else { return };
    let parsed = parse(script);
    assert_eq!(parsed, parse(script));
    assert!(parsed.commands().len() <= MAX_COMMANDS);
    let Parsed::Commands(commands) = parsed else { return };
    for command in &commands {
        if let Some(first) = command.argv.first() {
            assert!(command.program().is_some(), "the program {first} is not known");
        }
        for word in command.argv.iter().filter_map(Word::literal) {
            let hides = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
            assert!(!word.contains(hides), "{word:?} hides something");
        }
        assert!(command.wraps || !is_known_safe(command) || command.literal_argv().is_some());
    }
    let quoted = script.replace('\'', "'\\''");
    for (line, wrappers) in
        [(format!("bash -c '{quoted}'"), 1), (format!("eval '{quoted}'"), 1), (format!("({script}\n)"), 0)]
    {
        // It may be too deep now, or `eval` may take a dash for an option.
        let Parsed::Commands(around) = parse(&line) else { continue };
        let words =
            |command: &adj_policy::SimpleCommand| (command.argv.clone(), command.writes.clone(), command.sets.clone());
        let inner: Vec<_> = around.iter().skip(wrappers).map(words).collect();
        assert_eq!(inner, commands.iter().map(words).collect::<Vec<_>>(), "{line:?}");
    }
}
