//! Counts why the two libraries disagree: `cargo run --example disagreements -- FOLDER` reads a corpus of the target
//! `differential`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = PathBuf::from(env::args_os().nth(1).expect("usage: disagreements FOLDER"));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for file in fs::read_dir(folder)? {
        *counts.entry(pg_oidc_fuzz::disagreement(&fs::read(file?.path())?)).or_default() += 1;
    }
    for (why, count) in counts {
        println!("{count:6}  {why}");
    }
    Ok(())
}
