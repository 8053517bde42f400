//! 100 documents, each applied to what the one before it made. Beside the server goes a model that is slow and plain: it
//! takes lists of elements apart one by one.
//!
//! After each: the export says what the document says, the differences are those of the model, a dry run gave the same
//! rows, a second run gives none, and as many rows as the model leaves alone kept their place in the table.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{AWKWARD, Difference, applying, differences, document, exported, stage, with};

/// A fixed sequence (the constants of Knuth's MMIX), so that a failure can be looked at again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or_default() % bound
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Each member of the pool or not, at one of its values.
    fn members(&mut self, pool: &Value) -> Value {
        let mut chosen = json!({});
        for (name, values) in pool.as_object().into_iter().flatten() {
            let values = values.as_array().map(Vec::as_slice).unwrap_or_default();
            if self.below(3) == 0 {
                chosen[name] = self.one(values).clone();
            }
        }
        chosen
    }

    /// Some of what there was, and something new.
    fn document(&mut self, old: &Value) -> Value {
        let mut issuers: Vec<String> = (0..6).map(|number| format!("https://{number}.example")).collect();
        let mut providers: Vec<Value> = elements(old, "providers");
        providers.retain(|_| self.below(4) > 0);
        for provider in &providers {
            issuers.retain(|issuer| provider["issuer"] != *issuer);
        }
        for name in ["a", "B", "ä", "it's \"c\"", "d"] {
            if providers.iter().all(|known| known["name"] != name) && self.below(3) == 0 {
                let issuer = issuers.remove(self.below(issuers.len()));
                let needed = json!({ "name": name, "issuer": issuer, "audiences": ["w"] });
                providers.push(with(needed, &self.members(&provider_columns())));
            }
        }
        // Two change places now and then.
        if providers.len() > 1 && self.below(4) == 0 {
            let issuer = providers[0]["issuer"].clone();
            providers[0]["issuer"] = providers[1]["issuer"].clone();
            providers[1]["issuer"] = issuer;
        }
        let mut rules = elements(old, "rules");
        rules.retain(|rule| {
            providers.iter().any(|known| known["name"] == rule["provider"]) && self.below(4) > 0
        });
        let most = if providers.is_empty() { 1 } else { 8 };
        for _ in 0..self.below(most) {
            let rule = match rules.last() {
                // Once more, perhaps for another reason.
                Some(rule) if self.below(4) == 0 => rule.clone(),
                _ => self.rule(&providers),
            };
            let comment = json!({ "comment": self.one(&AWKWARD) });
            rules.push(if self.below(4) == 0 { with(rule, &comment) } else { rule });
        }
        // In any order.
        let turn = self.below(rules.len().max(1));
        rules.rotate_left(turn);
        document(&providers, &rules)
    }

    fn rule(&mut self, providers: &[Value]) -> Value {
        let rule = json!({ "provider": self.one(providers)["name"], "match": self.one(&claims()) });
        let columns = if self.below(2) == 0 { json!({}) } else { self.members(&rule_columns()) };
        let rule = with(rule, &columns);
        match self.below(6) {
            0 => with(rule, &json!({ "effect": "deny" })),
            1 => with(rule, &json!({ "effect": "deny", "replication": "both" })),
            _ => with(rule, &json!({ "role": self.one(&["analyst", "reader"]) })),
        }
    }
}

fn provider_columns() -> Value {
    json!({
        "audience_claim": ["aud", "client_id"],
        "jwks_uri": ["https://keys.example/1", "https://keys.example/2?x=%20"],
        "algorithms": [["RS256"], ["RS256", "ES256", "EdDSA"], ["EdDSA", "ES256", "RS256"]],
        "identity_claim": ["sub", "upn"],
        "groups_claim": [null, "groups", "/a/b~1c"],
        "max_stale": ["24:00:00", "1 day", "00:01:00.000001", "1 mon 2 days 03:04:05.6"],
        "accepted_typ": [["", "JWT"], ["at+jwt"], null],
        "required_claims": [{ "tier": 1 }, { "x": null }, {}],
        "clock_skew": ["00:00:30", "00:00:00", "00:05:00"],
        "max_token_age": ["01:00:00", "1 day", null],
        "enabled": [true, false],
        "comment": AWKWARD,
    })
}

fn rule_columns() -> Value {
    json!({
        "priority": [100, 1, -2_147_483_648, null],
        "databases": [["app"], ["app", "x,y"], [AWKWARD[0]], null],
        "addresses": [["10.0.0.0/8"], ["2001:db8::/32", "192.0.2.1/32"], null],
        "valid_from": ["2026-01-01T00:00:00+00:00", "-infinity", null],
        "valid_until": ["2030-06-30T12:34:56.789012+00:00", "infinity"],
        "replication": [true, false],
        "session_limit": ["none", null],
        "enabled": [true, false],
        "comment": AWKWARD,
    })
}

fn claims() -> Vec<Value> {
    let mut claims = vec![
        json!({}),
        json!({ "groups": "a" }),
        json!({ "a": { "any": ["x", { "glob": "y*" }] }, "b": { "not": null }, "c": { "exists": false } }),
        json!({ "n": 9_007_199_254_740_993_i64, "/x/y": true }),
    ];
    claims.extend(AWKWARD.map(|awkward| json!({ "claim": awkward })));
    claims
}

/// The element without what is null or a default.
fn plain(element: &Value) -> Value {
    let defaults = json!({
        "audience_claim": "aud", "algorithms": ["RS256", "ES256", "EdDSA"], "identity_claim": "sub",
        "max_stale": "24:00:00", "clock_skew": "00:00:30", "enabled": true, "priority": 100, "replication": false,
    });
    let mut plain = json!({});
    for (name, value) in element.as_object().into_iter().flatten() {
        if !value.is_null() && defaults.get(name) != Some(value) {
            plain[name] = value.clone();
        }
    }
    plain
}

fn elements(document: &Value, part: &str) -> Vec<Value> {
    document[part].as_array().into_iter().flatten().map(plain).collect()
}

/// What a provider or a rule is known by.
fn known(part: &str, element: &Value) -> Value {
    if part == "providers" {
        json!({ "name": element["name"] })
    } else {
        with(element.clone(), &json!({ "comment": null }))
    }
}

/// Takes the first for which `is` holds out of the list.
fn take(list: &mut Vec<Value>, is: impl Fn(&Value) -> bool) -> Option<Value> {
    let found = list.iter().position(is)?;
    Some(list.remove(found))
}

/// How many elements are the same, and what is to be done with each of the others, as sorted text.
fn model(old: &Value, new: &Value) -> (usize, Vec<String>) {
    let (mut same, mut steps) = (0, Vec::new());
    for part in ["providers", "rules"] {
        let (mut gone, mut left) = (elements(old, part), Vec::new());
        for element in elements(new, part) {
            match take(&mut gone, |other| *other == element) {
                Some(_) => same += 1,
                None => left.push(element),
            }
        }
        for element in left {
            let verb = match take(&mut gone, |other| known(part, other) == known(part, &element)) {
                Some(_) => "change",
                None => "create",
            };
            steps.push(format!("{verb} {element}"));
        }
        // Which of several equal rules is deleted cannot be told but by its comment, and need not be.
        steps.extend(gone.iter().map(|element| format!("delete {}", known(part, element))));
    }
    steps.sort();
    (same, steps)
}

fn steps(made: &[Difference]) -> Result<Vec<String>> {
    let mut steps = Vec::new();
    for made in made {
        let part = if made.object.starts_with("provider ") { "providers" } else { "rules" };
        let sides = (made.before.is_some(), made.after.is_some());
        let expected = (made.action != "create", made.action != "delete");
        ensure!(sides == expected, "{made:?}");
        let shown = match &made.after {
            Some(after) => after.clone(),
            None => known(part, made.before.as_ref().context("nothing")?),
        };
        steps.push(format!("{} {shown}", made.action));
    }
    steps.sort();
    Ok(steps)
}

#[test]
fn random_documents() -> Result<()> {
    let stage = stage()?;
    let admin = stage.admin()?;
    let rows = "SELECT 'p', name, xmin, ctid FROM oidc.provider UNION ALL SELECT 'r', id::text, xmin, ctid FROM oidc.role_mapping";
    let mut dice = Dice(20_260_101);
    let mut old = document(&[], &[]);
    let mut counted = [0; 4];
    for case in 0..100 {
        let new = dice.document(&old);
        let about = || format!("case {case}: {old}\n{new}");
        let before = admin.rows(rows)?;
        let dry = differences(&admin, &applying(&new, true)).with_context(about)?;
        ensure!(admin.rows(rows)? == before, "a dry run, {}", about());
        let made = differences(&admin, &applying(&new, false)).with_context(about)?;
        ensure!(made == dry, "{made:?}\n{dry:?}\n{}", about());
        let (same, expected) = model(&old, &new);
        ensure!(steps(&made)? == expected, "{made:#?}\n{expected:#?}\n{}", about());
        let after = admin.rows(rows)?;
        let kept = after.iter().filter(|row| before.contains(row)).count();
        ensure!(kept == same, "{kept} rows were left alone, not {same}, {}", about());

        let text = exported(&admin)?;
        let found: Value = serde_json::from_str(&text)?;
        for part in ["providers", "rules"] {
            let sorted = |document: &Value| {
                let mut all: Vec<String> = elements(document, part).iter().map(Value::to_string).collect();
                all.sort();
                all
            };
            ensure!(sorted(&found) == sorted(&new), "{text}\n{}", about());
            ensure!(
                elements(&found, part) == *found[part].as_array().context("no array")?,
                "not plain: {text}"
            );
        }
        ensure!(differences(&admin, &applying(&new, false))?.is_empty(), "again, {}", about());
        ensure!(differences(&admin, &applying(&found, false))?.is_empty(), "exported, {}", about());
        counted[0] += same;
        for (count, verb) in counted[1..].iter_mut().zip(["create", "change", "delete"]) {
            *count += expected.iter().filter(|step| step.starts_with(verb)).count();
        }
        old = new;
    }
    ensure!(counted.iter().all(|count| *count > 50), "too few of some kind: {counted:?}");
    Ok(())
}
