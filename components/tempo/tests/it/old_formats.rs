//! Blocks of formats that went before vParquet4: told of once, and passed over.

use std::fs;

use tempo_testkit::{
    golden::Golden,
    http_client::{self, encode},
};

use crate::{
    golden,
    support::{copy_folder, on_bucket},
};

const OLD: [(&str, &str); 3] = [
    ("v2", "00000000-0000-4000-8000-000000000001"),
    ("vParquet2", "7fffffff-0000-4000-8000-000000000002"),
    ("vParquet3", "ffffffff-0000-4000-8000-000000000003"),
];

#[test]
fn old_blocks_are_told_of_once_and_the_others_answer() {
    let recorded = Golden::load();
    let bucket = tempfile::tempdir().unwrap();
    copy_folder(&recorded.folder.join("blocks/vparquet4"), bucket.path()).unwrap();
    let tenant = bucket.path().join("single-tenant");
    let block = fs::read_dir(&tenant)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.join("meta.json").exists())
        .unwrap();
    let meta: serde_json::Value =
        serde_json::from_slice(&fs::read(block.join("meta.json")).unwrap()).unwrap();
    for (format, id) in OLD {
        let old = tenant.join(id);
        fs::create_dir(&old).unwrap();
        let mut meta = meta.clone();
        meta["format"] = format.into();
        meta["blockID"] = id.into();
        fs::write(old.join("meta.json"), meta.to_string()).unwrap();
        // Whatever is in there, it is not read.
        fs::write(old.join("data.parquet"), b"unreadable").unwrap();
    }
    // Written by hand, so that the list of blocks is made anew.
    for index in ["index.json.gz", "index.pb.zst"] {
        let _ = fs::remove_file(tenant.join(index));
    }

    let tempo = on_bucket(bucket.path(), "");
    golden::check("beside old blocks", &tempo, &recorded);
    let search = format!("/api/search?q={}&{}", encode("{ }"), recorded.range());
    let answer = http_client::get(&tempo.http, &search).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());

    let log = fs::read_to_string(tempo.data().join("tempo.log")).unwrap();
    for (format, id) in OLD {
        let told: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(id) && line.contains("block skipped"))
            .collect();
        assert_eq!(told.len(), 1, "{format}: {told:?}");
        assert!(told[0].contains(format), "{}", told[0]);
    }
}
