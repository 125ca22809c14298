//! Who sits at this machine: the name under which answers and grants are remembered.

use rustix::process::getuid;

/// The name of the account that runs this process.
pub fn name() -> String {
    let user = getuid().as_raw();
    let known = std::fs::read_to_string("/etc/passwd").ok().and_then(|text| name_of(&text, user));
    // Accounts of a directory service are in no file; the number says who it is all the same.
    known.unwrap_or_else(|| format!("user {user}"))
}

fn name_of(passwd: &str, user: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with(['+', '-', '#']))?;
        let number = fields.nth(1)?;
        (number.parse() == Ok(user)).then(|| name.chars().filter(|c| !c.is_control()).take(64).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn an_account_is_found_by_its_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\n+nis\nbroken\nme:x:1000:1000::/home/me:/bin/sh\n";
        for (user, expected) in [(0, Some("root")), (1000, Some("me")), (1, None)] {
            assert_eq!(name_of(passwd, user).as_deref(), expected, "{user}");
        }
    }
}
