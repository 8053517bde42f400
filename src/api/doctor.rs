//! Facts that `oidc.doctor()` judges. They are to be had also where the library is not preloaded and in a database
//! without the policy; what is not known there is null, or no row.

use crate::board::{self, Staff, State};
use crate::pg::catalog;
use crate::{hba_file, rows, settings};
use pg_oidc_core::{hba, limits};

#[pgrx::pg_schema]
mod oidc {
    use super::*;
    use pgrx::prelude::*;

    /// Whether the library is preloaded: only then anything is guarded.
    #[pg_extern(stable)]
    fn is_preloaded() -> bool {
        board::exists()
    }

    /// The version of the library that runs.
    #[pg_extern(stable)]
    fn library_version() -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    /// The guarded HBA file (null: none), and what stands in the server's own.
    #[pg_extern(volatile)]
    #[allow(clippy::type_complexity, reason = "the columns of the row")]
    fn hba_facts() -> TableIterator<
        'static,
        (
            name!(guarded_file, Option<String>),
            name!(native_file, Option<String>),
            name!(trust_lines, Option<Vec<i32>>),
            name!(include_lines, Option<Vec<i32>>),
            name!(problem, Option<String>),
        ),
    > {
        let numbers =
            |lines: Vec<usize>| lines.into_iter().filter_map(|line| i32::try_from(line).ok()).collect();
        let guarded = hba_file::guarded().map(|path| path.display().to_string());
        let native = hba_file::native();
        let text = native.as_deref().map(std::fs::read_to_string);
        let (text, problem) = match text {
            Some(Ok(text)) => (Some(text), None),
            Some(Err(error)) => (None, Some(error.to_string())),
            None => (None, None),
        };
        let trust = text.as_deref().map(|text| numbers(hba::trust_lines(text)));
        let includes = text.as_deref().map(|text| numbers(hba::include_lines(text)));
        let native = native.map(|path| path.display().to_string());
        TableIterator::once((guarded, native, trust, includes, problem))
    }

    /// What the board holds; no row where there is none. Waits, bounded as a login, for the last committed change.
    #[pg_extern(volatile)]
    #[allow(clippy::type_complexity, reason = "the columns of the row")]
    fn board_facts() -> TableIterator<
        'static,
        (
            name!(state, String),
            name!(behind, bool),
            name!(providers, Option<i64>),
            name!(rules, Option<i64>),
            name!(policy_bytes, i64),
            name!(policy_capacity, i64),
            name!(keyring_bytes, i64),
            name!(keyring_capacity, i64),
            name!(registry_hired, bool),
            name!(keyring_hired, bool),
        ),
    > {
        if !board::exists() {
            return TableIterator::empty();
        }
        let (registry_hired, keyring_hired) = (board::hired(Staff::Registry), board::hired(Staff::Keyring));
        let reached = registry_hired && crate::api::await_policy();
        let state = match board::state() {
            State::Starting => "starting",
            State::Absent => "absent",
            State::Present => "present",
            State::Overflow => "overflow",
        };
        let published = board::read(|policy, _| (policy.providers().count(), policy.rule_count()));
        // After the state: an image is weighed before it is called too large.
        let Some([policy, keyring]) = board::fills() else { return TableIterator::empty() };
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        TableIterator::once((
            state.to_owned(),
            !reached,
            published.map(|(providers, _)| count(providers)),
            published.map(|(_, rules)| count(rules)),
            count(policy.bytes),
            count(policy.capacity),
            count(keyring.bytes),
            count(keyring.capacity),
            registry_hired,
            keyring_hired,
        ))
    }

    /// How many providers, rules and rules with a regex or glob a policy may have.
    #[pg_extern(immutable)]
    fn policy_limits()
    -> TableIterator<'static, (name!(providers, i64), name!(rules, i64), name!(pattern_rules, i64))> {
        TableIterator::once((limits::PROVIDERS as i64, limits::RULES as i64, limits::PATTERN_RULES as i64))
    }

    /// Why a row of `oidc.provider` (as `oidc.provider_row` gives it) does not compile; null if it does.
    #[pg_extern(stable)]
    fn provider_problem(row: &str) -> Option<String> {
        rows::provider(row).err().map(|error| rows::sentence(&error))
    }

    /// Why a row of `oidc.role_mapping` (as `oidc.rule_row` gives it) does not compile; null if it does.
    #[pg_extern(stable)]
    fn rule_problem(row: &str) -> Option<String> {
        rows::rule(row).err().map(|error| rows::sentence(&error))
    }

    /// Why a token does not open a session in a role that a rule gives; null if it does.
    #[pg_extern(stable)]
    fn role_problem(role: &str, role_oid: Option<pg_sys::Oid>, allow_privileged: bool) -> Option<String> {
        let oid = role_oid.map_or(0, |oid| oid.to_u32());
        crate::api::admit(role, Some(oid), allow_privileged).err().map(|refusal| refusal.detail())
    }

    /// Why a role is privileged; null if it is not, and where there is none.
    #[pg_extern(stable)]
    fn role_privilege(role: &str) -> Option<String> {
        catalog::role(role, &settings::database()).and_then(|found| found.privilege)
    }
}
