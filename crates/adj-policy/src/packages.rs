//! Named groups of hosts, so that nobody has to know where a package manager gets its files.
//!
//! Every host is what the manager's own default configuration names, and what that host sends its clients on to.

use adj_domain::{HostPattern, HostRule};

/// The name of the group of package registries.
pub const PACKAGES: &str = "@packages";

pub(crate) const GROUPS: [&str; 1] = [PACKAGES];

/// The hosts of each domain; an empty one is the domain itself.
const REGISTRIES: &[(&str, &[&str])] = &[
    // npm, pnpm and Yarn: `npm config get registry`, and Yarn's alias of it.
    ("npmjs.org", &["registry"]),
    ("yarnpkg.com", &["registry"]),
    // pip, uv and Poetry: the simple index, and the host that its links lead to (PEP 503).
    ("pypi.org", &[""]),
    ("pythonhosted.org", &["files"]),
    // Cargo: the sparse index, the API with `dl`, and the files (`config.json` of the index).
    ("crates.io", &["", "index", "static"]),
    // Go: GOPROXY and GOSUMDB as `go env` prints them. The storage host where the proxy keeps large modules takes uploads
    // of everybody, so it is not listed.
    ("golang.org", &["proxy", "sum"]),
    // Maven and Gradle: Maven Central in both spellings, and Gradle's own portal with the host of its files.
    ("maven.apache.org", &["repo"]),
    ("maven.org", &["repo1"]),
    ("gradle.org", &["plugins", "plugins-artifacts"]),
    // RubyGems and Bundler: the default source and the compact index.
    ("rubygems.org", &["", "index"]),
    // Composer: the default repository and its files' metadata.
    ("packagist.org", &["", "repo"]),
    // Debian and Ubuntu: the mirrors of a fresh sources.list, and the security ones.
    ("debian.org", &["deb", "security"]),
    ("ubuntu.com", &["archive", "security", "ports"]),
    // NuGet: the v3 service index, which names the rest below it.
    ("nuget.org", &["api"]),
    // Mix and Rebar: HEX_MIRROR's default, and Hex's API.
    ("hex.pm", &["", "repo"]),
    // cpan, cpanm: the mirror network, and the search that cpanm asks.
    ("cpan.org", &["www"]),
    ("metacpan.org", &["cpan", "fastapi"]),
    ("plackperl.org", &["cpanmetadb"]),
];

fn registries() -> impl Iterator<Item = String> {
    let names = |(domain, hosts): &'static (&str, &[&str])| {
        hosts.iter().map(move |host| if host.is_empty() { (*domain).to_owned() } else { format!("{host}.{domain}") })
    };
    REGISTRIES.iter().flat_map(names)
}

/// The hosts of a group; `None` where there is no such group.
pub fn group(name: &str) -> Option<Vec<HostRule>> {
    (name == PACKAGES).then(|| registries().map(|host| HostRule::new(HostPattern::Exact(host))).collect())
}

/// The rules as people write them: a group that is there whole by its name.
pub(crate) fn grouped(rules: &[HostRule]) -> Vec<String> {
    let mut texts = Vec::new();
    let mut rest = rules.to_vec();
    for name in GROUPS {
        let members = group(name).unwrap_or_default();
        if members.iter().all(|member| rules.contains(member)) {
            texts.push(name.to_owned());
            rest.retain(|rule| !members.contains(rule));
        }
    }
    texts.extend(rest.iter().map(HostRule::to_string));
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use adj_domain::host_name;

    #[test]
    fn every_registry_is_a_host_in_its_one_spelling() {
        let mut names: Vec<String> = registries().collect();
        for host in &names {
            assert_eq!(host_name(host).as_deref(), Ok(host.as_str()));
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "no host twice");
        assert!(group("@nothing").is_none());
    }

    #[test]
    fn a_group_that_is_there_whole_is_called_by_its_name() {
        let other = HostRule::new(HostPattern::Exact("example.org".to_owned()));
        let mut rules = group(PACKAGES).expect("it is there");
        rules.insert(1, other);
        assert_eq!(grouped(&rules), [PACKAGES, "example.org"]);
        rules.remove(0);
        assert_eq!(grouped(&rules).len(), rules.len());
    }
}
