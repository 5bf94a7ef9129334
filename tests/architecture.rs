//! Guards what `src/ARCHITECTURE.md` promises: which module may use which, and that every file says
//! what it owns.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of `src` and those they may use, besides themselves.
const MAY_USE: [(&str, &[&str]); 11] = [
    ("budget", &[]),
    ("storage", &["budget"]),
    ("state", &[]),
    ("ingest", &["storage"]),
    ("promql", &["budget", "storage"]),
    ("db", &["budget", "storage", "state", "promql"]),
    ("yaml", &["promql"]),
    ("relabel", &["storage"]),
    ("rules", &["budget", "storage", "state", "promql", "relabel", "db", "yaml"]),
    ("notify", &["storage", "state", "promql", "relabel", "db", "rules"]),
    (
        "server",
        &["budget", "storage", "state", "promql", "relabel", "ingest", "db", "yaml", "rules", "notify"],
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The module below `src` that a file belongs to: `src/storage/head/mod.rs` and `src/db.rs` give
/// `storage` and `db`.
fn module_of(file: &Path) -> Option<String> {
    let inside = file.strip_prefix(root().join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    Some(first.trim_end_matches(".rs").to_owned())
}

#[test]
fn modules_use_only_the_layers_below_them() {
    let mut offences = Vec::new();
    for file in rust_files(&root().join("src")) {
        let Some(module) = module_of(&file) else { continue };
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let (_, allowed) = MAY_USE
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{module} is not in MAY_USE: say which layers it may use"));
        let text = fs::read_to_string(&file).expect("a source file is readable");
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for used in line.split("crate::").skip(1) {
                let used: String =
                    used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let known = MAY_USE.iter().any(|(name, _)| *name == used);
                if known && used != module && !allowed.contains(&used.as_str()) {
                    offences.push(format!("{}:{}: {module} uses {used}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(offences.is_empty(), "arrows must point down:\n{}", offences.join("\n"));
}

#[test]
fn every_file_says_what_it_owns() {
    let folders = ["src", "storage-format/src", "tests", "benches", "fuzz/fuzz_targets"];
    let silent: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
        .filter(|file| !fs::read_to_string(file).expect("a source file is readable").starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "these files do not open with //!: {silent:?}");
}

#[test]
fn the_map_names_only_places_that_exist() {
    let map = fs::read_to_string(root().join("src/ARCHITECTURE.md")).expect("the map is readable");
    let missing: Vec<&str> = map
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .flat_map(|line| line.split(" | ").next().unwrap_or("").split('`'))
        .map(|name| name.trim_matches([' ', ',', '|', '`']))
        .filter(|name| !name.is_empty())
        .filter(|name| {
            let places = [
                root().join(name),
                root().join("src").join(name),
                root().join(format!("src/{name}.rs")),
                root().join(format!("src/storage/{name}.rs")),
            ];
            !places.iter().any(|place| place.exists())
        })
        .collect();
    assert!(missing.is_empty(), "src/ARCHITECTURE.md names places that do not exist: {missing:?}");
}
