use super::apply::apply;
use super::parse::{FileChange, Hunk, parse};
use proptest::prelude::*;
use similar::{ChangeTag, TextDiff};

fn update(body: &str) -> String {
    format!("*** Begin Patch\n*** Update File: f\n{body}\n*** End Patch\n")
}

fn hunks(patch: &str) -> Result<Vec<Hunk>, String> {
    match parse(patch).map_err(|error| error.to_string())?.pop() {
        Some(FileChange::Update { hunks, .. }) => Ok(hunks),
        other => Err(format!("not an update: {other:?}")),
    }
}

fn applied(text: &str, body: &str) -> Result<String, String> {
    apply(text, &hunks(&update(body))?).map_err(|error| error.to_string())
}

#[test]
fn hunks_find_their_place() {
    let cases = [
        // file, body of the update, result
        ("a\nb\nc\n", " a\n-b\n+B\n c", Ok("a\nB\nc\n")),
        ("a\nb\nc\n", "@@\n-b\n+B", Ok("a\nB\nc\n")),
        ("a\nb\nc\n", "-b", Ok("a\nc\n")),
        ("a\nb\nc", " b\n-c\n+C", Ok("a\nb\nC")),
        ("a\nb", "+c", Ok("a\nb\nc")),
        ("", "+a\n+b", Ok("a\nb\n")),
        ("a\r\nb\r\nc\r\n", " a\n-b\n+B\n+x", Ok("a\r\nB\r\nx\r\nc\r\n")),
        // Each line keeps its own end where ends are mixed.
        ("a\r\nb\nc\r\n", "-b\n+B", Ok("a\r\nB\r\nc\r\n")),
        // White space and typographic marks may differ; the file's own line stays.
        ("\tif x:\n\t\ty\n", " if x:\n-  y\n+\t\tz", Ok("\tif x:\n\t\tz\n")),
        ("a  \nb\n", " a\n-b\n+c", Ok("a  \nc\n")),
        ("say \u{201C}hi\u{201D}\nb\n", " say \"hi\"\n-b\n+c", Ok("say \u{201C}hi\u{201D}\nc\n")),
        // Anchors choose among equals.
        ("f\nx\ng\nx\n", "@@ g\n-x\n+y", Ok("f\nx\ng\ny\n")),
        (
            "class A\n def f\n  x\nclass B\n def f\n  x\n",
            "@@ class B\n@@  def f\n-  x\n+  y",
            Ok("class A\n def f\n  x\nclass B\n def f\n  y\n"),
        ),
        ("fn f(a: u8) {\nx\n}\n", "@@ fn f(\n-x\n+y", Ok("fn f(a: u8) {\ny\n}\n")),
        ("f\nx\n", "@@ f\n+y", Ok("f\ny\nx\n")),
        ("f\nx\n", "@@ f\n f\n-x\n+y", Ok("f\ny\n")),
        ("a\nb\n", "@@ -1,2 +1,2 @@ whatever\n-b\n+c", Ok("a\nc\n")),
        ("x\na\nx\n", "-x\n+y\n*** End of File", Ok("x\na\ny\n")),
        ("a\nb\nc\nd\n", "@@\n-a\n+A\n@@\n-d\n+D", Ok("A\nb\nc\nD\n")),
        // Empty lines at the end of a change are layout.
        ("a\nb\n", "-a\n+A\n\n", Ok("A\nb\n")),
        ("a\n\nb\n", " a\n\n-b\n+c", Ok("a\n\nc\n")),
        // Refusals.
        (
            "x\na\nx\n",
            "-x\n+y",
            Err(
                "the change in line 3 of the patch fits at lines 1, 3; add unchanged lines around it, or an @@ line from above it",
            ),
        ),
        (
            "let alpha = 1;\n",
            "-let alpha = 2;\n+y",
            Err(
                "the change in line 3 of the patch: its lines are not in the file: there is no line \"let alpha = 2;\"; the most similar is line 1: \"let alpha = 1;\"",
            ),
        ),
        (
            "a\nb\nc\n",
            " a\n c\n+d",
            Err(
                "the change in line 3 of the patch: its lines are not in the file; each of them is, but not in this order one after the other",
            ),
        ),
        (
            "a\nb\nc\n",
            "@@\n-c\n+C\n@@\n-a\n+A",
            Err(
                "the change in line 6 of the patch: its lines are in the file, at line 1, but before an earlier change of this patch; put the changes in the order of the file",
            ),
        ),
        (
            "a\n",
            "@@ nope\n-a\n+b",
            Err("the change in line 3 of the patch: no line \"nope\" (from its @@) follows line 0"),
        ),
    ];
    for (file, body, expected) in cases {
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(applied(file, body), expected, "{file:?} with {body:?}");
    }
}

#[test]
fn patches_are_read_or_refused_with_a_line() {
    let add = |lines: &[&str]| {
        vec![FileChange::Add { path: "f".into(), lines: lines.iter().map(|&line| line.to_owned()).collect() }]
    };
    let cases = [
        ("*** Begin Patch\n*** Add File: f\n+a\n+\n+b\n*** End Patch", Ok(add(&["a", "", "b"]))),
        ("*** Begin Patch\r\n*** Add File: f\r\n+a\r\n*** End Patch\r\n", Ok(add(&["a"]))),
        ("*** Begin Patch\n*** Add File: f\n+a\n\n+b\n\n*** End Patch", Ok(add(&["a", "", "b"]))),
        ("<<'EOF'\n*** Begin Patch\n*** Add File: f\n*** End Patch\nEOF", Ok(add(&[]))),
        ("```\n*** Begin Patch\n*** Add File:  f \n+*** End Patch\n*** End Patch\n```", Ok(add(&["*** End Patch"]))),
        ("*** Begin Patch\n*** Delete File: f\n*** End Patch", Ok(vec![FileChange::Delete { path: "f".into() }])),
        (
            "*** Begin Patch\n*** Update File: f\n*** Move to: g\n*** End Patch",
            Ok(vec![FileChange::Update { path: "f".into(), move_to: Some("g".into()), hunks: vec![] }]),
        ),
        ("", Err("the patch must start with the line \"*** Begin Patch\"")),
        ("--- a\n+++ b\n", Err("the patch must start with the line \"*** Begin Patch\"")),
        (
            "*** Begin Patch\n*** Add File: f\n+a",
            Err("the patch must end with the line \"*** End Patch\"; it was probably cut off"),
        ),
        ("*** Begin Patch\n*** End Patch", Err("the patch changes nothing")),
        (
            "*** Begin Patch\nhello\n*** End Patch",
            Err(
                "line 2 of the patch: expected *** Add File: PATH, *** Delete File: PATH or *** Update File: PATH, found \"hello\"",
            ),
        ),
        ("*** Begin Patch\n*** Add File:\n*** End Patch", Err("line 2 of the patch: the path is missing")),
        (
            "*** Begin Patch\n*** Add File: f\na\n*** End Patch",
            Err("line 3 of the patch: every line of an added file starts with \"+\", found \"a\""),
        ),
        (
            "*** Begin Patch\n*** Update File: f\n*** End Patch",
            Err("line 2 of the patch: nothing is to be changed in f"),
        ),
        (
            "*** Begin Patch\n*** Update File: f\n@@\n a\n*** End Patch",
            Err("line 3 of the patch: this change neither adds nor removes a line"),
        ),
        (
            "*** Begin Patch\n*** Update File: f\na\n*** End Patch",
            Err("line 3 of the patch: lines of an update start with a space, \"-\", \"+\" or \"@@\", found \"a\""),
        ),
    ];
    for (patch, expected) in cases {
        let found = parse(patch).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{patch:?}");
    }
}

/// The difference of two texts in the patch format, with so much context that every change has one place only.
fn diff(old: &str, new: &str) -> String {
    for context in [0, 3, 10, usize::MAX / 4] {
        let mut body = String::new();
        let text_diff = TextDiff::from_lines(old, new);
        for group in text_diff.grouped_ops(context) {
            body.push_str("@@\n");
            for change in group.iter().flat_map(|op| text_diff.iter_changes(op)) {
                let sign = match change.tag() {
                    ChangeTag::Equal => ' ',
                    ChangeTag::Delete => '-',
                    ChangeTag::Insert => '+',
                };
                body.push(sign);
                body.push_str(change.value().trim_end_matches('\n'));
                body.push('\n');
            }
        }
        let body = body.trim_end_matches('\n');
        let file: Vec<&str> = old.lines().map(str::trim).collect();
        let is_ambiguous = body.split("@@\n").skip(1).any(|hunk| {
            let old_lines = hunk.lines().filter(|line| !line.starts_with('+'));
            let kept: Vec<&str> = old_lines.map(|line| line[1..].trim()).collect();
            kept.is_empty() || file.windows(kept.len()).filter(|window| *window == kept).count() != 1
        });
        if !is_ambiguous || context > 10 {
            return update(body);
        }
    }
    unreachable!("the last context is the whole file")
}

fn text() -> impl Strategy<Value = String> {
    // Few different lines, so that places repeat; always a final newline, which the format cannot speak of.
    prop::collection::vec(
        prop_oneof!["[ab]{1,2}", "  [ab]", "[a-z]{6}", Just("}".to_owned()), Just("*** x".to_owned())],
        1..40,
    )
    .prop_map(|lines| lines.iter().map(|line| format!("{line}\n")).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_difference_applied_to_the_old_text_is_the_new_one(old in text(), new in text(), mix in any::<u64>()) {
        // Half of the old lines survive, so that changes have neighbours.
        let mut lines: Vec<&str> = old.lines().collect();
        for (index, line) in new.lines().enumerate().take(8) {
            let at = (mix.rotate_left(index as u32 * 7) as usize) % (lines.len() + 1);
            if mix >> index & 1 == 0 || at == lines.len() { lines.insert(at, line) } else { lines[at] = line }
        }
        let new: String = lines.iter().map(|line| format!("{line}\n")).collect();
        prop_assume!(old != new);
        let patch = diff(&old, &new);
        let applied = apply(&old, &hunks(&patch).expect(&patch));
        prop_assert_eq!(applied.as_deref(), Ok(new.as_str()), "{}", patch);

        // The same in a file with other line ends, and without the last; two lines at least, or no end would be left to learn from.
        prop_assume!(old.lines().count() > 1);
        let other = |text: &str| text.replace('\n', "\r\n").trim_end_matches("\r\n").to_owned();
        let applied = apply(&other(&old), &hunks(&patch).expect(&patch));
        prop_assert_eq!(applied, Ok(other(&new)));
    }

    #[test]
    fn garbage_is_refused_in_words(patch in r"(\*\*\* (Begin Patch|End Patch|Add File: a|Update File: b|Delete File: c|Move to: d|End of File)|@@[ a-z]{0,3}|[-+ ]?[a-z*@\r]{0,4})(\n(\*\*\* (Begin Patch|End Patch|Add File: a|Update File: b|Move to: d|End of File)|@@[ a-z]{0,3}|[-+ ]?[a-z*@\r]{0,4})){0,12}", file in ".{0,40}") {
        let patch = format!("*** Begin Patch\n{patch}\n*** End Patch");
        for change in parse(&patch).unwrap_or_default() {
            if let FileChange::Update { hunks, .. } = change {
                let _ = apply(&file, &hunks);
            }
        }
    }

    #[test]
    fn any_text_at_all_is_parsed_or_refused(patch in any::<String>()) {
        let _ = parse(&patch);
    }
}
