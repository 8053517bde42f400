//! Every reason that the door raises is provoked by a login test.
//!
//! Those of core are provoked in `src/core/tests/refusals.rs`, which also sees to it that each reason is either there or
//! in the list that is read here.

use anyhow::{Context, Result, ensure};
use pg_oidc_test::workspace;

/// The reasons of the door: code, file, test or why there is none.
const LIST: &str = include_str!("../../../../src/core/tests/fixtures/door_reasons.txt");

#[test]
fn every_reason_of_the_door_is_provoked() -> Result<()> {
    let folder = workspace().join("pg_test/tests/login");
    let mut unprovoked = Vec::new();
    for line in LIST.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let [code, file, test] = [words.next(), words.next(), words.next()].map(Option::unwrap_or_default);
        if file == "-" {
            unprovoked.push(code);
            continue;
        }
        let text = std::fs::read_to_string(folder.join(file)).with_context(|| line.to_owned())?;
        let (_, body) =
            text.split_once(&format!("#[test]\nfn {test}() ")).with_context(|| line.to_owned())?;
        let (body, _) = body.split_once("\n}\n").with_context(|| line.to_owned())?;
        // In an assertion, not in words about it.
        let mut said = body.lines().filter(|line| !line.trim_start().starts_with("//"));
        ensure!(
            said.any(|said| said.contains(&format!("\"{code}\"")) || said.contains(&format!("reason={code}"))),
            "{test} in {file} does not ask for {code}"
        );
    }
    // The two that nothing here can provoke; one more would be a reason without a test.
    assert_eq!(unprovoked, ["trust_from_included_file", "settings_failed"]);
    Ok(())
}
