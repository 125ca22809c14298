//! Compares the table of allowed arrows in ARCHITECTURE.md with what the rooms really depend on.

use super::Outcome;
use crate::repository::{Package, Repository};
use anyhow::{Context, Result, bail, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

const PAGE: &str = "ARCHITECTURE.md";
const FENCE: &str = "```arrows";

/// An allowed dependency of one room on another; `*` as the room means every room.
type Arrow = (String, String);

/// The table as it is written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Table {
    layers: BTreeMap<String, u32>,
    /// Rooms that only serve development, outside the layers.
    development: BTreeSet<String>,
    normal: BTreeSet<Arrow>,
    dev: BTreeSet<Arrow>,
}

pub fn check(repository: &Repository) -> Result<Outcome> {
    let page = repository.root.join(PAGE);
    let text = fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let table = parse(&text)?;
    let problems = compare(&table, &repository.packages()?);
    Ok(Outcome::of(problems, format!("{} arrows", table.normal.len())))
}

fn parse(page: &str) -> Result<Table> {
    let mut lines = page.lines().enumerate().skip_while(|(_, line)| line.trim() != FENCE).skip(1);
    let mut table = Table::default();
    loop {
        let Some((index, line)) = lines.next() else {
            bail!("{PAGE} has no table of arrows: a block that starts with {FENCE} and is closed");
        };
        let line = line.trim();
        if line == "```" {
            break;
        }
        table.read(line).with_context(|| format!("{PAGE}:{}: cannot read `{line}`", index + 1))?;
    }
    ensure!(!table.layers.is_empty(), "the table of arrows in {PAGE} names no layer");
    Ok(table)
}

impl Table {
    fn read(&mut self, line: &str) -> Result<()> {
        if line.is_empty() {
            return Ok(());
        }
        if let Some((from, to)) = line.split_once(" -dev-> ") {
            return add(&mut self.dev, from, to);
        }
        if let Some((from, to)) = line.split_once(" -> ") {
            ensure!(from.trim() != "*", "a normal arrow starts at one room");
            return add(&mut self.normal, from, to);
        }
        let (kind, rooms) =
            line.split_once(':').context("expected `layer N: ROOMS`, `development: ROOMS` or an arrow")?;
        for room in rooms.split_whitespace() {
            let is_new = match kind.strip_prefix("layer ") {
                Some(number) => self.layers.insert(room.to_owned(), number.trim().parse()?).is_none(),
                None if kind == "development" => self.development.insert(room.to_owned()),
                None => bail!("`{kind}` is neither a layer nor `development`"),
            };
            ensure!(is_new, "{room} is named twice");
        }
        Ok(())
    }
}

fn add(arrows: &mut BTreeSet<Arrow>, from: &str, to: &str) -> Result<()> {
    for room in to.split(',') {
        let arrow = (from.trim().to_owned(), room.trim().to_owned());
        ensure!(!arrow.0.is_empty() && !arrow.1.is_empty(), "an arrow has a room at each end");
        ensure!(arrows.insert(arrow), "{} is named twice", room.trim());
    }
    Ok(())
}

fn compare(table: &Table, packages: &[Package]) -> Vec<String> {
    let rooms: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut problems = Vec::new();
    let placed = table.layers.keys().chain(&table.development);
    problems.extend(
        placed
            .filter(|room| !rooms.contains(room.as_str()))
            .map(|room| format!("{room} is in the table, but there is no such room")),
    );
    for room in &rooms {
        match (table.layers.contains_key(*room), table.development.contains(*room)) {
            (false, false) => problems.push(format!("{room} has no layer in the table")),
            (true, true) => problems.push(format!("{room} is in a layer and in `development`")),
            _ => {}
        }
    }

    let (mut normal, mut dev) = (BTreeSet::new(), BTreeSet::new());
    for package in packages {
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
            let arrow = (package.name.clone(), dependency.name.clone());
            match dependency.kind.as_deref() {
                Some("dev") => dev.insert(arrow),
                _ => normal.insert(arrow),
            };
        }
    }
    problems.extend(normal.difference(&table.normal).map(|(from, to)| format!("{from} -> {to} is not in the table")));
    problems.extend(
        table
            .normal
            .difference(&normal)
            .map(|(from, to)| format!("{from} -> {to} is in the table, but does not exist")),
    );
    problems.extend(normal.union(&table.normal).filter_map(|arrow| points_up(table, arrow)));

    // A test may use what the room itself uses: that is no new knowledge.
    let is_allowed = |(from, to): &&Arrow| {
        let everywhere = ("*".to_owned(), to.clone());
        let named = (from.clone(), to.clone());
        table.dev.contains(&everywhere) || table.dev.contains(&named) || normal.contains(&named)
    };
    problems.extend(
        dev.iter()
            .filter(|arrow| !is_allowed(arrow))
            .map(|(from, to)| format!("{from} -dev-> {to} is not in the table")),
    );
    let is_used = |(from, to): &&Arrow| dev.iter().any(|(user, used)| used == to && (from == "*" || from == user));
    problems.extend(
        table
            .dev
            .iter()
            .filter(|arrow| !is_used(arrow))
            .map(|(from, to)| format!("{from} -dev-> {to} is in the table, but does not exist")),
    );
    problems
}

fn points_up(table: &Table, (from, to): &Arrow) -> Option<String> {
    if table.development.contains(to) && !table.development.contains(from) {
        return Some(format!("{from} -> {to} leads into a room that is for development only"));
    }
    let (lower, upper) = (table.layers.get(from)?, table.layers.get(to)?);
    (upper > lower).then(|| format!("{from} -> {to} points up, from layer {lower} to layer {upper}"))
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::repository::Dependency;

    const TABLE: &str = "text\n```arrows\nlayer 0: words\nlayer 1: store tools\ndevelopment: kit\n\nstore -> words\ntools -> words, store\n* -dev-> kit\n```\n";

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies = dependencies.iter().map(|(name, kind)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
            path: (*name != "serde").then(|| name.into()),
        });
        Package {
            name: name.to_owned(),
            manifest_path: format!("/{name}/Cargo.toml").into(),
            dependencies: dependencies.collect(),
        }
    }

    fn rooms() -> Vec<Package> {
        vec![
            package("kit", &[("serde", None)]),
            package("store", &[("words", None), ("words", Some("dev"))]),
            package("tools", &[("words", None), ("store", Some("build")), ("kit", Some("dev"))]),
            package("words", &[("serde", None)]),
        ]
    }

    fn check(change: impl FnOnce(&mut Vec<Package>), expected: &[&str]) {
        let mut packages = rooms();
        change(&mut packages);
        assert_eq!(compare(&parse(TABLE).unwrap(), &packages), expected);
    }

    #[test]
    fn rooms_as_in_the_table_are_right() {
        check(|_| {}, &[]);
    }

    #[test]
    fn every_difference_is_named() {
        check(|rooms| rooms[0] = package("kit", &[("words", None)]), &["kit -> words is not in the table"]);
        check(|rooms| rooms[1] = package("store", &[]), &["store -> words is in the table, but does not exist"]);
        check(
            |rooms| rooms[3] = package("words", &[("store", None)]),
            &["words -> store is not in the table", "words -> store points up, from layer 0 to layer 1"],
        );
        check(
            |rooms| rooms[3] = package("words", &[("kit", None)]),
            &["words -> kit is not in the table", "words -> kit leads into a room that is for development only"],
        );
        check(
            |rooms| rooms[3] = package("words", &[("tools", Some("dev"))]),
            &["words -dev-> tools is not in the table"],
        );
        check(|rooms| rooms.push(package("web", &[])), &["web has no layer in the table"]);
        check(
            |rooms| rooms[2] = package("tools", &[("words", None), ("store", None)]),
            &["* -dev-> kit is in the table, but does not exist"],
        );
        check(|rooms| drop(rooms.remove(0)), &["kit is in the table, but there is no such room"]);
    }

    #[test]
    fn a_table_that_cannot_be_read_is_an_error_with_its_line() {
        let cases = [
            ("no table", "has no table of arrows"),
            ("```arrows\nlayer 0: a\n", "has no table of arrows"),
            ("```arrows\n```\n", "names no layer"),
            ("\n```arrows\nlayer 0: a a\n```\n", "ARCHITECTURE.md:3: cannot read `layer 0: a a`: a is named twice"),
            ("```arrows\nlayer x: a\n```\n", ":2: cannot read"),
            ("```arrows\na b c\n```\n", "expected `layer N: ROOMS`"),
            ("```arrows\nroof: a\n```\n", "`roof` is neither a layer"),
            ("```arrows\n* -> a\n```\n", "starts at one room"),
            ("```arrows\na -> b, \n```\n", "a room at each end"),
        ];
        for (page, expected) in cases {
            let error = format!("{:#}", parse(page).unwrap_err());
            assert!(error.contains(expected), "{page:?}: {error}");
        }
    }
}
