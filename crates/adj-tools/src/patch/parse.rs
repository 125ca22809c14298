//! The text of a patch → what it asks for.

/// What a patch does to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileChange {
    Add { path: String, lines: Vec<String> },
    Delete { path: String },
    Update { path: String, move_to: Option<String>, hunks: Vec<Hunk> },
}

/// One place of a file that changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hunk {
    /// Lines somewhere above the change, the outermost first.
    pub anchors: Vec<String>,
    pub lines: Vec<HunkLine>,
    pub is_at_end: bool,
    /// Where in the patch it starts, counted from 1.
    pub patch_line: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HunkLine {
    Keep(String),
    Remove(String),
    Add(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("the patch must start with the line \"*** Begin Patch\"")]
    NoBegin,
    #[error("the patch must end with the line \"*** End Patch\"; it was probably cut off")]
    NoEnd,
    #[error("the patch changes nothing")]
    Empty,
    #[error(
        "line {line} of the patch: expected *** Add File: PATH, *** Delete File: PATH or *** Update File: PATH, found \"{found}\""
    )]
    NotASection { line: usize, found: String },
    #[error("line {line} of the patch: the path is missing")]
    NoPath { line: usize },
    #[error("line {line} of the patch: every line of an added file starts with \"+\", found \"{found}\"")]
    NotAdded { line: usize, found: String },
    #[error(
        "line {line} of the patch: lines of an update start with a space, \"-\", \"+\" or \"@@\", found \"{found}\""
    )]
    NotAChange { line: usize, found: String },
    #[error("line {line} of the patch: this change neither adds nor removes a line")]
    NoChange { line: usize },
    #[error("line {line} of the patch: nothing is to be changed in {path}")]
    NothingToDo { line: usize, path: String },
    #[error("the patch names more than {most} files")]
    TooMany { most: usize },
}

const MOST_FILES: usize = 1_000;
const END_OF_FILE: &str = "*** End of File";

pub(crate) fn parse(patch: &str) -> Result<Vec<FileChange>, ParseError> {
    let mut lines = unwrapped(patch)?;
    let mut changes = Vec::new();
    while let Some((number, line)) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        let path_after = |prefix: &str| line.trim_end().strip_prefix(prefix).map(str::trim);
        let (path, kind) = if let Some(path) = path_after("*** Add File:") {
            (path, 'A')
        } else if let Some(path) = path_after("*** Delete File:") {
            (path, 'D')
        } else if let Some(path) = path_after("*** Update File:") {
            (path, 'U')
        } else {
            return Err(ParseError::NotASection { line: number, found: start_of(line) });
        };
        if path.is_empty() {
            return Err(ParseError::NoPath { line: number });
        }
        let path = path.to_owned();
        changes.push(match kind {
            'A' => FileChange::Add { path, lines: added(&mut lines)? },
            'D' => FileChange::Delete { path },
            _ => updated(path, number, &mut lines)?,
        });
        if changes.len() > MOST_FILES {
            return Err(ParseError::TooMany { most: MOST_FILES });
        }
    }
    if changes.is_empty() { Err(ParseError::Empty) } else { Ok(changes) }
}

struct Numbered<'p> {
    lines: std::iter::Peekable<std::vec::IntoIter<(usize, &'p str)>>,
}

impl<'p> Numbered<'p> {
    fn next(&mut self) -> Option<(usize, &'p str)> {
        self.lines.next()
    }

    /// The next line, unless a new section starts with it.
    fn next_in_section(&mut self) -> Option<(usize, &'p str)> {
        self.lines.next_if(|(_, line)| !line.starts_with("*** ") || line.trim_end() == END_OF_FILE)
    }
}

/// The lines between the first and the last; models sometimes wrap a patch as if for a shell or for a page.
fn unwrapped(patch: &str) -> Result<Numbered<'_>, ParseError> {
    let mut lines: Vec<(usize, &str)> = patch
        .split('\n')
        .enumerate()
        .map(|(index, line)| (index + 1, line.strip_suffix('\r').unwrap_or(line)))
        .collect();
    let begin = lines.iter().position(|(_, line)| line.trim() == "*** Begin Patch").ok_or(ParseError::NoBegin)?;
    let is_wrapping = |line: &str| line.trim().is_empty() || line.starts_with("```") || line.contains("<<");
    if !lines[..begin].iter().all(|(_, line)| is_wrapping(line)) {
        return Err(ParseError::NoBegin);
    }
    let end = lines.iter().position(|(_, line)| line.trim_end() == "*** End Patch").ok_or(ParseError::NoEnd)?;
    if end < begin {
        return Err(ParseError::NoBegin);
    }
    lines.truncate(end);
    lines.drain(..=begin);
    Ok(Numbered { lines: lines.into_iter().peekable() })
}

fn added(lines: &mut Numbered<'_>) -> Result<Vec<String>, ParseError> {
    let mut added = Vec::new();
    // Models forget the plus of an empty line; at the end of a file's part it is layout of the patch.
    let mut bare_lines = 0;
    while let Some((number, line)) = lines.next_in_section() {
        match line.strip_prefix('+') {
            Some(text) => {
                added.extend(std::iter::repeat_n(String::new(), std::mem::take(&mut bare_lines)));
                added.push(text.to_owned());
            }
            None if line.trim().is_empty() => bare_lines += 1,
            None => {
                return Err(ParseError::NotAdded { line: number, found: start_of(line) });
            }
        }
    }
    Ok(added)
}

fn updated(path: String, header: usize, lines: &mut Numbered<'_>) -> Result<FileChange, ParseError> {
    let move_to = match lines.lines.next_if(|(_, line)| line.starts_with("*** Move to:")) {
        Some((number, line)) => {
            let target = line["*** Move to:".len()..].trim();
            if target.is_empty() {
                return Err(ParseError::NoPath { line: number });
            }
            Some(target.to_owned())
        }
        None => None,
    };
    let mut hunks: Vec<Hunk> = Vec::new();
    let mut hunk = Hunk::default();
    let mut bare_lines = 0;
    while let Some((number, line)) = lines.next_in_section() {
        if line.trim_end() == END_OF_FILE {
            hunk.is_at_end = true;
            finish(&mut hunks, &mut hunk, &mut bare_lines)?;
            continue;
        }
        if let Some(anchor) = line.strip_prefix("@@") {
            if !hunk.lines.is_empty() {
                finish(&mut hunks, &mut hunk, &mut bare_lines)?;
            }
            start(&mut hunk, number);
            if let Some(anchor) = anchor_text(anchor) {
                hunk.anchors.push(anchor.to_owned());
            }
            continue;
        }
        start(&mut hunk, number);
        let mut letters = line.chars();
        let line = match letters.next() {
            None => HunkLine::Keep(String::new()),
            Some(' ') => HunkLine::Keep(letters.as_str().to_owned()),
            Some('-') => HunkLine::Remove(letters.as_str().to_owned()),
            Some('+') => HunkLine::Add(letters.as_str().to_owned()),
            Some(_) => {
                return Err(ParseError::NotAChange { line: number, found: start_of(line) });
            }
        };
        let is_bare = matches!(&line, HunkLine::Keep(text) if text.is_empty());
        bare_lines = if is_bare { bare_lines + 1 } else { 0 };
        hunk.lines.push(line);
    }
    finish(&mut hunks, &mut hunk, &mut bare_lines)?;
    if hunks.is_empty() && move_to.is_none() {
        return Err(ParseError::NothingToDo { line: header, path });
    }
    Ok(FileChange::Update { path, move_to, hunks })
}

fn start(hunk: &mut Hunk, number: usize) {
    if hunk.patch_line == 0 {
        hunk.patch_line = number;
    }
}

fn finish(hunks: &mut Vec<Hunk>, hunk: &mut Hunk, bare_lines: &mut usize) -> Result<(), ParseError> {
    let mut hunk = std::mem::take(hunk);
    // Empty lines at the end of a change are more often layout of the patch than context; without them it still finds its place.
    hunk.lines.truncate(hunk.lines.len() - *bare_lines);
    *bare_lines = 0;
    if hunk.lines.is_empty() && hunk.anchors.is_empty() && !hunk.is_at_end {
        return Ok(());
    }
    if !hunk.lines.iter().any(|line| !matches!(line, HunkLine::Keep(_))) {
        return Err(ParseError::NoChange { line: hunk.patch_line.max(1) });
    }
    hunks.push(hunk);
    Ok(())
}

/// The text of an `@@` line; the line numbers of a unified diff say nothing here, since they are often wrong.
fn anchor_text(after: &str) -> Option<&str> {
    let text = after.strip_prefix(' ').unwrap_or(after).trim_end();
    let is_range = text.starts_with('-') && text.ends_with("@@") || text.starts_with('-') && text.contains(" @@ ");
    (!text.trim().is_empty() && !is_range).then_some(text)
}

fn start_of(line: &str) -> String {
    line.chars().take(80).collect()
}
