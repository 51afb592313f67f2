//! Files that are made from the code: written by `TEMPO_GENERATE=1`, and compared otherwise.

use std::path::Path;

/// Compares a file of the repository with what it should hold, or writes it.
pub(crate) fn assert_fresh(path: &str, content: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let file = root.join(path);
    if std::env::var_os("TEMPO_GENERATE").is_some() {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(&file, content).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    if found != content {
        let line = found
            .lines()
            .zip(content.lines())
            .position(|(a, b)| a != b)
            .unwrap_or(found.lines().count().min(content.lines().count()));
        panic!(
            "{path} is not what the code makes, from line {} on:\n  file: {:?}\n  code: {:?}\nrun `make generate`, and look at the difference",
            line + 1,
            found.lines().nth(line),
            content.lines().nth(line)
        );
    }
}
