//! Examples of commands: words in a list, or one text that is split as a shell would.

/// Splits a text into words; `None` where a quote is not closed.
pub(super) fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(|character| matches!(character, ' ' | '\t' | '\n')).is_some() {}
        match characters.peek() {
            None => return Some(words),
            Some('#') => while characters.next_if(|character| *character != '\n').is_some() {},
            Some(_) => {
                let mut word = String::new();
                while let Some(character) = characters.next_if(|character| !matches!(character, ' ' | '\t' | '\n')) {
                    match character {
                        '\'' => loop {
                            match characters.next()? {
                                '\'' => break,
                                inner => word.push(inner),
                            }
                        },
                        '"' => loop {
                            match characters.next()? {
                                '"' => break,
                                '\\' => match characters.next()? {
                                    '\n' => {}
                                    escaped @ ('$' | '`' | '"' | '\\') => word.push(escaped),
                                    other => word.extend(['\\', other]),
                                },
                                inner => word.push(inner),
                            }
                        },
                        '\\' => match characters.next()? {
                            '\n' => {}
                            escaped => word.push(escaped),
                        },
                        other => word.push(other),
                    }
                }
                words.push(word);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn examples_are_split_like_shell_words() {
        let cases: &[(&str, Option<&[&str]>)] = &[
            ("", Some(&[])),
            ("git  status", Some(&["git", "status"])),
            ("a 'b c' \"d e\"f", Some(&["a", "b c", "d ef"])),
            (r#"a\ b "c\"d" "e\f""#, Some(&["a b", "c\"d", "e\\f"])),
            ("a '' b", Some(&["a", "", "b"])),
            ("a # b", Some(&["a"])),
            ("a#b", Some(&["a#b"])),
            ("a 'b", None),
            ("a \"b", None),
            ("a \\", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|words| words.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(split(text), expected, "{text}");
        }
    }
}
