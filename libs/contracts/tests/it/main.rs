//! The schemas under version control are those of the code, and no change breaks a reader.

use std::{fs, path::PathBuf};

use stampede_contracts::schema;

#[test]
fn the_committed_schemas_are_those_of_the_code() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let renew = std::env::var_os("RENEW_SCHEMAS").is_some();
    for published in schema::all() {
        let path = folder.join(format!("{}.json", published.name));
        let code = published.schema;
        let committed = fs::read_to_string(&path).ok().map(|text| serde_json::from_str(&text).unwrap());
        if let Some(committed) = &committed {
            let broken = schema::breaking(committed, &code);
            assert!(broken.is_empty(), "{}: make a new version instead: {broken:#?}", published.name);
        }
        if renew {
            fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&code).unwrap())).unwrap();
        } else {
            assert_eq!(
                committed.as_ref(),
                Some(&code),
                "{}: run with RENEW_SCHEMAS=1 and commit",
                published.name
            );
        }
    }
}

#[test]
fn every_schema_file_has_a_type() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let names: Vec<_> = schema::all().iter().map(|published| format!("{}.json", published.name)).collect();
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&name), "{name} belongs to no type; published versions are not taken away");
    }
}
