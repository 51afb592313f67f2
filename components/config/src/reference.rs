//! The reference page of the configuration, made from the declarations.

use std::fmt::Write;

use crate::blocks::root::RawConfig;
use crate::render::Rendered;
use crate::value::{Block, Status, Value};

/// `docs/reference/configuration.md`.
pub fn reference_markdown() -> String {
    let root = RawConfig::default();
    let mut page = String::from(
        "# Configuration\n\
         \n\
         <!-- Made from components/config; do not edit. \
         `TEMPO_GENERATE=1 cargo test -p tempo-config` writes it anew. -->\n\
         \n\
         The file is YAML and the one of Grafana Tempo 3: every key of Tempo 3 is known, an unknown \
         key is an error. Defaults come first, then the file, then flags.\n\
         \n\
         - A **duration** is written as in Go: `1h30m`, `1.5s`, `500ms`, `0`. Where days, weeks and \
         years are allowed (`1d12h`), the type says so.\n\
         - **Bytes** are a whole number, or numbers with units: `1GiB`, `100MB`, `63KiB1023B`.\n\
         - `${VAR}`, `${VAR:-default}` and the like are replaced with `-config.expand-env`.\n\
         - Text that is secret is never shown.\n\
         \n\
         The last column says what a key does in this version:\n\
         **used** – it is honoured; **later** – it is known and checked, and belongs to a component \
         that does not exist yet; **ignored** – it is known and checked, and has no meaning here. \
         Keys that are set and not used are logged once at start.\n",
    );
    let fields = root.fields();
    let (single, blocks): (Vec<_>, Vec<_>) = fields
        .iter()
        .partition(|field| field.value.block().is_none());
    page.push_str("\n## Top level\n\n");
    table_head(&mut page);
    for field in single {
        rows(
            &mut page,
            field.key,
            field.value,
            field.meaning,
            field.status,
        );
    }
    for field in blocks {
        let Some(block) = field.value.block() else {
            continue;
        };
        let _ = writeln!(page, "\n## {}\n\n{}\n", field.key, words(block.meaning()));
        table_head(&mut page);
        block_rows(&mut page, field.key, block, field.status);
    }
    page
}

fn table_head(page: &mut String) {
    page.push_str("| Key | Type | Default | Meaning | |\n|---|---|---|---|---|\n");
}

fn block_rows(page: &mut String, path: &str, block: &dyn Block, status: Status) {
    for field in block.fields() {
        let path = format!("{path}.{}", field.key);
        rows(
            page,
            &path,
            field.value,
            field.meaning,
            status.max(field.status),
        );
    }
}

fn rows(page: &mut String, path: &str, value: &dyn Value, meaning: &[&str], status: Status) {
    if let Some(block) = value.block() {
        return block_rows(page, path, block, status);
    }
    let status_word = match status {
        Status::Used => "used",
        Status::Later => "later",
        Status::Ignored => "ignored",
    };
    let rendered = value.render();
    let inline = rendered.inline();
    let default = match (&rendered, inline.chars().count()) {
        (Rendered::List(items), 121..) => {
            format!("{} items, see `/status/config?mode=defaults`", items.len())
        }
        _ => format!("`{inline}`"),
    };
    let _ = writeln!(
        page,
        "| `{path}` | {} | {} | {} | {status_word} |",
        cell(&value.type_name()),
        cell(&default),
        cell(&words(meaning)),
    );
    if let Some((suffix, item)) = value.item()
        && let Some(block) = item.block()
    {
        block_rows(page, &format!("{path}{suffix}"), block, status);
    }
}

fn words(meaning: &[&str]) -> String {
    meaning
        .iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join(" ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
