//! Which characters and which variables are harmless in a command line.

/// Returns the first character that a reader of the line would not see as what it is.
pub(super) fn is_plain_text(text: &str) -> Result<(), char> {
    match text.chars().find(|character| !is_visible(*character)) {
        None => Ok(()),
        Some(character) => Err(character),
    }
}

/// Control characters, spaces other than the usual one, and what turns or hides text, are not visible.
fn is_visible(character: char) -> bool {
    match character {
        '\n' | '\t' | ' '..='~' => true,
        _ if character.is_control() || character.is_whitespace() => false,
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' => false,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' => false,
        '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{ffff}' => false,
        // Tags, supplementary variation selectors, private use.
        '\u{e0000}'..='\u{10ffff}' => false,
        '\u{1d173}'..='\u{1d17a}' => false,
        _ => true,
    }
}

pub(super) fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(is_name_start) && characters.all(is_name_part)
}

pub(super) fn is_name_start(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_'
}

pub(super) fn is_name_part(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Tells whether a variable changes what later words mean or which code programs load, or is more to the shell than a text.
pub(super) fn is_dangerous_variable(name: &str) -> bool {
    const NAMES: &str = " AR AS BROWSER CC CDPATH CLASSPATH COPROC CPP CXX DIRSTACK EMACS ENV EUID EXECIGNORE FCEDIT FIGNORE FPATH \
         FUNCNAME FUNCNEST GCONV_PATH GLOBIGNORE GLOBSORT GOFLAGS GOROOT GROUPS HOME HOSTALIASES HOSTFILE IFS IGNOREEOF INPUTRC \
         INSIDE_EMACS KUBECONFIG LD LESSCLOSE LESSOPEN LINENO LOCPATH MAIL MAILCHECK MAILPATH MAKE MAKEFILES MAKEFLAGS MFLAGS \
         NLSPATH OPENSSL_CONF OPTARG OPTERR OPTIND PATH POSIXLY_CORRECT PPID PROMPT_DIRTRIM PS0 PS1 PS2 PS3 PS4 RANDOM RANLIB \
         RIPGREP_CONFIG_PATH SECONDS SHELL SHELLOPTS SRANDOM TIMEFORMAT TMOUT UID VISUAL ZDOTDIR _ ";
    const BEGINNINGS: &[&str] = &[
        "AWS_",
        "BASH",
        "CARGO_",
        "COMP_",
        "DOCKER_",
        "DYLD_",
        "EPOCH",
        "GIT_",
        "HIST",
        "LD_",
        "NODE_",
        "NPM_",
        "PERL",
        "PIP_",
        "PYTHON",
        "READLINE_",
        "RUBY",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "SSH_",
        "SUDO_",
        "UV_",
        "XDG_",
        "npm_",
    ];
    const ENDS: &[&str] = &[
        "PAGER",
        "EDITOR",
        "_ASKPASS",
        "_COMMAND",
        "_LAUNCHER",
        "_OPTIONS",
        "_PRELOAD",
        "_RSH",
        "_RUNNER",
        "_SSH",
        "_WRAPPER",
        "OPT",
    ];
    /// Some of those above that only change what is printed or written.
    const HARMLESS: &[&str] = &[
        "CARGO_INCREMENTAL",
        "CARGO_NET_OFFLINE",
        "CARGO_TERM_COLOR",
        "GIT_AUTHOR_DATE",
        "GIT_AUTHOR_EMAIL",
        "GIT_AUTHOR_NAME",
        "GIT_COMMITTER_DATE",
        "GIT_COMMITTER_EMAIL",
        "GIT_COMMITTER_NAME",
        "GIT_TERMINAL_PROMPT",
        "NODE_ENV",
        "PIP_NO_INPUT",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHASHSEED",
        "PYTHONIOENCODING",
        "PYTHONUNBUFFERED",
        "PYTHONUTF8",
    ];
    let is_suspicious = NAMES.split_whitespace().any(|known| known == name)
        || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || ENDS.iter().any(|end| name.ends_with(end));
    is_suspicious && !HARMLESS.contains(&name)
}

/// Tells whether an assignment could do more than to set a text.
pub(super) fn is_harmless_assignment(name: &str, value: Option<&str>) -> bool {
    // A shell may evaluate a value again where it wants a number, and then runs the substitutions in it.
    let evaluated = value.is_some_and(|value| value.contains("$(") || value.contains('`') || value.contains("${"));
    is_name(name) && !is_dangerous_variable(name) && !evaluated
}
