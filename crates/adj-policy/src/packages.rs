//! Named groups of hosts, so that nobody has to know where a package manager gets its files.
//!
//! Every host is what the manager's own default configuration names, and what that host sends its clients on to.

use adj_domain::{HostPattern, HostRule};

/// The name of the group of package registries.
pub const PACKAGES: &str = "@packages";

pub(crate) const GROUPS: [&str; 1] = [PACKAGES];

const REGISTRIES: &[&str] = &[
    // npm, pnpm and Yarn: `npm config get registry`, and Yarn's alias of it.
    "registry.npmjs.org",
    "registry.yarnpkg.com",
    // pip, uv and Poetry: the simple index, and the host that its links lead to (PEP 503).
    "pypi.org",
    "files.pythonhosted.org",
    // Cargo: the sparse index, the API with `dl`, and the files (`config.json` of the index).
    "index.crates.io",
    "crates.io",
    "static.crates.io",
    // Go: GOPROXY and GOSUMDB as `go env` prints them. The storage host where the proxy keeps large modules takes uploads
    // of everybody, so it is not listed.
    "proxy.golang.org",
    "sum.golang.org",
    // Maven and Gradle: Maven Central in both spellings, and Gradle's own portal with the host of its files.
    "repo.maven.apache.org",
    "repo1.maven.org",
    "plugins.gradle.org",
    "plugins-artifacts.gradle.org",
    // RubyGems and Bundler: the default source and the compact index.
    "rubygems.org",
    "index.rubygems.org",
    // Composer: the default repository and its files' metadata.
    "packagist.org",
    "repo.packagist.org",
    // Debian and Ubuntu: the mirrors of a fresh sources.list, and the security ones.
    "deb.debian.org",
    "security.debian.org",
    "archive.ubuntu.com",
    "security.ubuntu.com",
    "ports.ubuntu.com",
    // NuGet: the v3 service index, which names the rest below it.
    "api.nuget.org",
    // Mix and Rebar: HEX_MIRROR's default, and Hex's API.
    "repo.hex.pm",
    "hex.pm",
    // cpan, cpanm: the mirror network, and the search that cpanm asks.
    "www.cpan.org",
    "cpan.metacpan.org",
    "fastapi.metacpan.org",
    "cpanmetadb.plackperl.org",
];

/// The hosts of a group; `None` where there is no such group.
pub fn group(name: &str) -> Option<Vec<HostRule>> {
    let rule = |host: &&str| HostRule::new(HostPattern::Exact((*host).to_owned()));
    (name == PACKAGES).then(|| REGISTRIES.iter().map(rule).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use adj_domain::host_name;

    #[test]
    fn every_registry_is_a_host_in_its_one_spelling() {
        for host in REGISTRIES {
            assert_eq!(host_name(host).as_deref(), Ok(*host));
        }
        let mut names = REGISTRIES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), REGISTRIES.len(), "no host twice");
        assert!(group("@nothing").is_none());
    }
}
