//! Refuses texts whose mere reading would be deep, before anything reads them.

use super::Fault;

const MAX_BRACKETS: usize = 64;
/// Signs and words that make one expression deeper, in one statement.
const MAX_OPERATORS: usize = 256;
const MAX_INDENTATION: usize = 64;
const MAX_BRANCHES: usize = 64;
const MAX_FORMAT_BYTES: usize = 1024;

/// Checks the shape of a file of rules.
pub(super) fn check(text: &str) -> Result<(), Fault> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let (mut brackets, mut operators, mut branches, mut indentation) = (0_usize, 0, 0, 0);
    let mut line_begins = true;
    let mut before = b'\n';
    while let Some(byte) = bytes.get(at).copied() {
        match byte {
            b'\n' => {
                if brackets == 0 {
                    operators = 0;
                    line_begins = true;
                    indentation = 0;
                }
                at += 1;
                continue;
            }
            b' ' | b'\t' | b'\r' => {
                indentation += usize::from(line_begins);
                at += 1;
                continue;
            }
            b'#' => {
                at += bytes[at..].iter().take_while(|byte| **byte != b'\n').count();
                continue;
            }
            _ => {}
        }
        if line_begins && indentation > MAX_INDENTATION {
            return Err(Fault::new(at, format!("the line is indented by more than {MAX_INDENTATION}")));
        }
        line_begins = false;
        match byte {
            b'"' | b'\'' => at = skip_text(bytes, at),
            b'\\' => at += 2,
            b'(' | b'[' | b'{' => {
                brackets += 1;
                operators += usize::from(matches!(before, b')' | b']' | b'}'));
                at += 1;
            }
            b')' | b']' | b'}' => {
                brackets = brackets.saturating_sub(1);
                at += 1;
            }
            _ if byte.is_ascii_alphabetic() || byte == b'_' => {
                let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
                let length = bytes[at..].iter().take_while(is_part).count();
                let word = &bytes[at..at + length];
                at += length;
                match word {
                    b"not" | b"and" | b"or" | b"in" | b"if" | b"else" | b"for" | b"lambda" => operators += 1,
                    b"elif" => branches += 1,
                    _ if matches!(bytes.get(at), Some(b'"' | b'\'')) && word.contains(&b'f') => {
                        let end = skip_text(bytes, at);
                        if end - at > MAX_FORMAT_BYTES {
                            return Err(Fault::new(at, format!("a format is longer than {MAX_FORMAT_BYTES} bytes")));
                        }
                        at = end;
                    }
                    _ => {}
                }
            }
            b'0'..=b'9' | b',' | b'=' | b':' | b';' => at += 1,
            _ => {
                operators += 1;
                at += 1;
            }
        }
        before = byte;
        let too_deep = [
            (brackets > MAX_BRACKETS, "brackets stand too deep in one another"),
            (operators > MAX_OPERATORS, "one statement has too many operators"),
            (branches > MAX_BRANCHES, "the file has too many `elif`"),
        ];
        if let Some((_, message)) = too_deep.into_iter().find(|(is_so, _)| *is_so) {
            return Err(Fault::new(at, message));
        }
    }
    Ok(())
}

/// Returns where the text ends that begins here.
fn skip_text(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let is_long = bytes[start..].starts_with(&[quote; 3]);
    let mut at = start + if is_long { 3 } else { 1 };
    while let Some(byte) = bytes.get(at).copied() {
        match byte {
            b'\\' => at += 2,
            // A text that is not closed is the parser's business; what follows is looked at as code.
            b'\n' if !is_long => return at,
            _ if byte == quote && !is_long => return at + 1,
            _ if is_long && bytes[at..].starts_with(&[quote; 3]) => return at + 3,
            _ => at += 1,
        }
    }
    bytes.len()
}
