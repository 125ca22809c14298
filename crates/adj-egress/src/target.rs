//! Reads where a request wants to go: `host:port`, `http://host/path`, and paths that mean one thing only.

/// A host as it was written, not judged yet, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("the target is not an absolute http:// address, which is what a proxy is asked for")]
    NotAbsolute,
    #[error("the target has a scheme other than http; https goes through CONNECT")]
    Scheme,
    #[error("the target names a user, which a request must not")]
    User,
    #[error("the target has no port or a wrong one")]
    Port,
    #[error("the target has a fragment, which a request must not")]
    Fragment,
    #[error("the path does not begin with a slash")]
    NoSlash,
    #[error("the path can be read in more than one way ({0}), and this host is open for some paths only")]
    Ambiguous(&'static str),
}

/// Reads `host:port`; without `default_port` the port has to be there.
pub fn authority(text: &str, default_port: Option<u16>) -> Result<Authority, TargetError> {
    if text.contains('@') {
        return Err(TargetError::User);
    }
    // In an IPv6 literal the port comes after the bracket; the host is refused later, under its full name.
    let cut = match text.rfind(']') {
        Some(bracket) => text[bracket..].find(':').map(|colon| bracket + colon),
        None => text.find(':'),
    };
    let (host, port) = match cut {
        Some(colon) => (&text[..colon], Some(&text[colon + 1..])),
        None => (text, None),
    };
    let port = match port {
        Some(port) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok(),
        Some(_) => None,
        None => default_port,
    };
    match port {
        Some(port) if port > 0 => Ok(Authority { host: host.to_owned(), port }),
        _ => Err(TargetError::Port),
    }
}

/// Reads `http://host[:port]/path?query` into the authority and what to ask it for.
pub fn absolute_form(target: &str) -> Result<(Authority, String), TargetError> {
    if target.contains('#') {
        return Err(TargetError::Fragment);
    }
    let (scheme, rest) = target.split_once("://").ok_or(TargetError::NotAbsolute)?;
    if !scheme.eq_ignore_ascii_case("http") {
        let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        return Err(if is_scheme { TargetError::Scheme } else { TargetError::NotAbsolute });
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok((authority(host, Some(80))?, path))
}

/// The path without its query.
pub fn path_of(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// Checks a target (`/path?query`); a strict one has a path that every server understands alike.
pub fn strict_path(target: &str, is_strict: bool) -> Result<(), TargetError> {
    if !target.starts_with('/') {
        return Err(TargetError::NoSlash);
    }
    if target.contains('#') {
        return Err(TargetError::Fragment);
    }
    if !is_strict {
        return Ok(());
    }
    let path = path_of(target).to_ascii_lowercase();
    for (text, shown) in [
        ("//", "//"),
        ("\\", "\\"),
        ("%2e", "%2e"),
        ("%2f", "%2f"),
        ("%5c", "%5c"),
        ("%00", "%00"),
        // What is decoded twice may become any of the above.
        ("%25", "%25"),
    ] {
        if path.contains(text) {
            return Err(TargetError::Ambiguous(shown));
        }
    }
    // Some servers cut parameters off a segment before they look whether it is a dot.
    for segment in path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()) {
        if segment == ".." || segment == "." {
            return Err(TargetError::Ambiguous(if segment == "." { "/./" } else { "/../" }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_targets_are_cut_where_everybody_cuts_them() {
        let cases = [
            ("http://a.test/x?y", Ok(("a.test", 80, "/x?y"))),
            ("HTTP://A.test:8080", Ok(("A.test", 8080, "/"))),
            ("http://a.test?q=http://b.test/", Ok(("a.test", 80, "/?q=http://b.test/"))),
            ("http://[::1]:80/", Ok(("[::1]", 80, "/"))),
            ("http://a.test\\@b.test/", Err(TargetError::User)),
            ("http://user@a.test/", Err(TargetError::User)),
            ("http://user:pw@a.test/", Err(TargetError::User)),
            ("http://a.test:80:81/", Err(TargetError::Port)),
            ("http://a.test:/", Err(TargetError::Port)),
            ("http://a.test:+80/", Err(TargetError::Port)),
            ("http://a.test:0/", Err(TargetError::Port)),
            ("http://a.test:65536/", Err(TargetError::Port)),
            ("http://a.test/#f", Err(TargetError::Fragment)),
            ("https://a.test/", Err(TargetError::Scheme)),
            ("ftp://a.test/", Err(TargetError::Scheme)),
            ("file:///etc/passwd", Err(TargetError::Scheme)),
            ("/x", Err(TargetError::NotAbsolute)),
            ("*", Err(TargetError::NotAbsolute)),
            ("a.test:80", Err(TargetError::NotAbsolute)),
        ];
        for (target, expected) in cases {
            let found = absolute_form(target).map(|(to, path)| (to.host, to.port, path));
            let expected = expected.map(|(host, port, path)| (host.to_owned(), port, path.to_owned()));
            assert_eq!(found, expected, "{target}");
        }
        assert_eq!(authority("a.test", None), Err(TargetError::Port));
        assert_eq!(authority("a.test:443", None).map(|to| to.port), Ok(443));
    }

    #[test]
    fn strict_paths_mean_one_thing() {
        let cases = [
            ("/repos/a/b?x=../y//", true),
            ("/repos/a.b/..c/...", true),
            ("/repos/a%20b", true),
            ("/repos/../secret", false),
            ("/repos/..", false),
            ("/repos/..;x/secret", false),
            ("/repos/./x", false),
            ("/repos/%2e%2E/secret", false),
            ("/repos/%2Fx", false),
            ("/repos/%5cx", false),
            ("/repos/%252e", false),
            ("/repos//x", false),
            ("/repos\\..\\x", false),
            ("/repos/%00", false),
        ];
        for (target, expected) in cases {
            assert_eq!(strict_path(target, true).is_ok(), expected, "{target}");
            assert!(strict_path(target, false).is_ok(), "{target}");
        }
        assert!(strict_path("x", false).is_err());
        assert!(strict_path("*", false).is_err());
    }
}
