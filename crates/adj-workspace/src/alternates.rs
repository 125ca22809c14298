//! Git's list of object folders to borrow from: read recursively, written with quoting.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Git itself follows no deeper chain than this.
const DEPTH: usize = 5;
const FOLDERS: usize = 64;
const FILE_CAP_BYTES: u64 = 1 << 20;

/// `objects` and every folder that it borrows from, nearest first, each once.
///
/// A folder that is not there is left out, as git does.
pub(crate) fn object_dirs(objects: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![objects.to_owned()];
    let mut layer = found.clone();
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for folder in layer {
            for borrowed in read(&folder)? {
                let Ok(borrowed) = folder.join(borrowed).canonicalize() else {
                    continue;
                };
                if !borrowed.is_dir() || found.contains(&borrowed) {
                    continue;
                }
                if found.len() == FOLDERS {
                    return Err(io::Error::other(format!("more than {FOLDERS} object folders are chained")));
                }
                if borrowed.to_str().is_none() {
                    return Err(io::Error::other(format!("the path {} is not valid UTF-8", borrowed.display())));
                }
                found.push(borrowed.clone());
                next.push(borrowed);
            }
        }
        layer = next;
    }
    Ok(found)
}

fn read(objects: &Path) -> io::Result<Vec<PathBuf>> {
    let file = match std::fs::File::open(objects.join("info/alternates")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(FILE_CAP_BYTES).read_to_end(&mut text)?;
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#');
    Ok(lines.map(|line| PathBuf::from(OsString::from_vec(unquote(line)))).collect())
}

/// The content of an `alternates` file that names `folders`.
pub(crate) fn text<'a>(folders: impl IntoIterator<Item = &'a Path>) -> Vec<u8> {
    let mut text = Vec::new();
    for folder in folders {
        let bytes = folder.as_os_str().as_bytes();
        if bytes.iter().all(|&byte| byte > b' ' && byte != b'"' && byte != b'\\' && byte < 0x7f) {
            text.extend_from_slice(bytes);
        } else {
            text.push(b'"');
            for &byte in bytes {
                text.extend_from_slice(format!("\\{byte:03o}").as_bytes());
            }
            text.push(b'"');
        }
        text.push(b'\n');
    }
    text
}

/// Undoes C-style quoting, which git uses when a line starts with a quote; other lines are as they are.
fn unquote(line: &[u8]) -> Vec<u8> {
    let Some(inner) = line.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return line.to_vec();
    };
    let mut plain = Vec::new();
    let mut rest = inner.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        match rest.next() {
            Some(high @ b'0'..=b'3') => {
                let digits = [Some(high), rest.next(), rest.next()];
                let value = digits.into_iter().flatten().fold(0u32, |sum, digit| sum * 8 + u32::from(digit & 7));
                plain.push(value as u8);
            }
            Some(letter) => plain.push(match letter {
                b'a' => 7,
                b'b' => 8,
                b't' => b'\t',
                b'n' => b'\n',
                b'v' => 11,
                b'f' => 12,
                b'r' => b'\r',
                other => other,
            }),
            None => plain.push(b'\\'),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let home = tempfile::tempdir().expect("a folder");
        let home = home.path().canonicalize().expect("it exists");
        for name in ["plain", "with space", "line\nbreak", "quote\"d", "back\\slash", "ünï", "#hash"] {
            let first = home.join(format!("{name}-first"));
            let second = home.join(name);
            std::fs::create_dir_all(first.join("info")).expect("made");
            std::fs::create_dir_all(&second).expect("made");
            std::fs::write(first.join("info/alternates"), text([second.as_path()])).expect("written");
            assert_eq!(object_dirs(&first).expect("read"), [first, second], "{name:?}");
        }
    }

    #[test]
    fn chains_and_circles_end() {
        let home = tempfile::tempdir().expect("a folder");
        let home = home.path().canonicalize().expect("it exists");
        let folders: Vec<PathBuf> = (0..3).map(|number| home.join(number.to_string())).collect();
        for folder in &folders {
            std::fs::create_dir_all(folder.join("info")).expect("made");
        }
        // Relative lines count from the objects folder; a comment and a missing folder are skipped.
        std::fs::write(folders[0].join("info/alternates"), "# words\n../1\n../gone\n").expect("written");
        std::fs::write(folders[1].join("info/alternates"), "../2\n").expect("written");
        std::fs::write(folders[2].join("info/alternates"), "../0\n").expect("written");
        assert_eq!(object_dirs(&folders[0]).expect("read"), folders);
    }
}
