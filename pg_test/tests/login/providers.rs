//! The README's statements for each provider, against tokens of the shape that the provider documents, signed by a key of
//! the tests. For each: who is let in as what, and the near misses that are not.

use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::token::{Token, now};
use pg_oidc_test::workspace;
use serde_json::{Value, json};

use crate::scene::{Stage, text};

/// One server with all the statements; the keys of each provider are the tests', as nothing can be fetched.
fn stage() -> &'static Stage {
    static STAGE: LazyLock<Stage> = LazyLock::new(|| build().expect("the server of the providers"));
    &STAGE
}

fn build() -> Result<Stage> {
    let stage = Stage::start()?;
    let admin = stage.admin()?;
    for role in ["analytics_read", "ingest_writer", "transformer", "reporting", "finance"] {
        admin.rows(&format!("CREATE ROLE {role} LOGIN"))?;
    }
    let statements = statements()?;
    ensure!(statements.len() == 6, "{} providers", statements.len());
    for statement in statements {
        admin.rows(&statement).with_context(|| statement.clone())?;
    }
    let set = text(&jwks(&[&keys().rsa]));
    admin.rows(&format!("UPDATE oidc.provider SET jwks = {set}"))?;
    Ok(stage)
}

fn statements() -> Result<Vec<String>> {
    let readme = std::fs::read_to_string(workspace().join("README.md"))?;
    let marked = readme.split_once("<!-- run by pg_test/tests/login/providers.rs -->").context("no mark")?.1;
    let marked = marked.split_once("<!-- end of what providers.rs runs -->").context("no end")?.0;
    Ok(marked
        .split("```sql\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .map(str::to_owned)
        .collect())
}

/// A token with these claims, `iat` and `exp` beside them, and these members of the header.
fn token(claims: &Value, header: &[(&str, Value)], change: &Value) -> String {
    let mut all = claims.clone();
    all["iat"] = json!(now() - 30);
    all["exp"] = json!(now() + 600);
    for (name, value) in change.as_object().into_iter().flatten() {
        all[name] = value.clone();
    }
    let mut token = Token::for_user("").without("sub").without("aud").without("iss");
    for (name, value) in all.as_object().into_iter().flatten() {
        if !value.is_null() {
            token = token.claim(name, value.clone());
        }
    }
    for (name, value) in header {
        token = token.header(name, value.clone());
    }
    token.sign(&keys().rsa)
}

/// What becomes of the claims with each change: a role, or the reason of the refusal.
fn outcomes(
    claims: &Value,
    header: &[(&str, Value)],
    cases: &[(Value, &str, Result<&str, &str>)],
) -> Result<()> {
    // The providers share roles, by which a refusal is found in the log.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = stage();
    for (change, role, wanted) in cases {
        let token = token(claims, header, change);
        match wanted {
            Ok(identity) => {
                let rows = stage.session(role, &token).with_context(|| format!("{change}"))?;
                let rows = rows.rows("SELECT current_user, oidc.identity()")?;
                ensure!(
                    rows == [[Some((*role).to_owned()), Some((*identity).to_owned())]],
                    "{change}: {rows:?}"
                );
            }
            Err(reason) => {
                let refused = stage.refusal(&stage.login(role, &token), role, change)?;
                ensure!(refused.reason == *reason, "{change}: {} instead of {reason}", refused.reason);
            }
        }
    }
    Ok(())
}

#[test]
fn okta() -> Result<()> {
    let claims = json!({
        "ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE", "iss": "https://corp.okta.com/oauth2/aus1a2b3c4",
        "aud": "api://warehouse", "cid": "nmdP1fcyvdVO11AL7ECm", "uid": "00ugrenMeqvYla4HW0g3",
        "scp": ["openid", "db.connect"], "sub": "ada@corp.example", "groups": ["Everyone", "Analytics Readers"],
    });
    outcomes(
        &claims,
        &[],
        &[
            (json!({}), "analytics_read", Ok("00ugrenMeqvYla4HW0g3")),
            (json!({"groups": ["Everyone"]}), "analytics_read", Err("no_rule")),
            (json!({"groups": null}), "analytics_read", Err("groups_missing")),
            (json!({"scp": ["openid"]}), "analytics_read", Err("required_claim_failed")),
            (json!({"aud": "api://default"}), "analytics_read", Err("audience_mismatch")),
            (json!({"iss": "https://corp.okta.com"}), "analytics_read", Err("issuer_unknown")),
            (json!({}), "finance", Err("user_not_mapped")),
        ],
    )
}

#[test]
fn entra_id() -> Result<()> {
    let tenant = "11111111-2222-3333-4444-555555555555";
    let claims = json!({
        "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
        "iss": format!("https://login.microsoftonline.com/{tenant}/v2.0"), "nbf": now() - 30, "aio": "AXQAi/8IAAAA",
        "azp": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "azpacr": "0", "name": "Ada Lovelace",
        "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474", "preferred_username": "ada@corp.example", "rh": "I",
        "roles": ["Analytics.Read"], "scp": "access_as_user", "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
        "tid": tenant, "uti": "fqiBqXLPj0eQa82S-IYFAA", "ver": "2.0",
    });
    let header = [("typ", json!("JWT")), ("x5t", json!("i6lGk3FZzxRcUb2C3nEQ7syHJlY"))];
    outcomes(
        &claims,
        &header,
        &[
            (json!({}), "analytics_read", Ok("690222be-ff1a-4d56-abd1-7e4f7d38e474")),
            (json!({"roles": null}), "analytics_read", Err("no_rule")),
            (json!({"roles": ["Analytics.ReadWrite"]}), "analytics_read", Err("no_rule")),
            (json!({"ver": "1.0"}), "analytics_read", Err("required_claim_failed")),
            (
                json!({"tid": "99999999-2222-3333-4444-555555555555"}),
                "analytics_read",
                Err("required_claim_failed"),
            ),
            (json!({"hasgroups": true}), "analytics_read", Err("groups_overage")),
            (json!({"_claim_names": {"groups": "src1"}}), "analytics_read", Err("groups_overage")),
            (
                json!({"aud": "00000003-0000-0000-c000-000000000000"}),
                "analytics_read",
                Err("audience_mismatch"),
            ),
        ],
    )
}

#[test]
fn google() -> Result<()> {
    let person = json!({
        "iss": "https://accounts.google.com", "azp": "warehouse.corp.example", "aud": "warehouse.corp.example",
        "sub": "110169484474386276334", "hd": "corp.example", "email": "ada@corp.example", "email_verified": true,
        "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q",
    });
    let header = [("typ", json!("JWT"))];
    outcomes(
        &person,
        &header,
        &[
            (json!({}), "analytics_read", Ok("110169484474386276334")),
            (json!({"hd": null}), "analytics_read", Err("no_rule")),
            (json!({"hd": "corp.example.evil"}), "analytics_read", Err("no_rule")),
            (json!({"email_verified": false}), "analytics_read", Err("required_claim_failed")),
            (json!({}), "ingest_writer", Err("user_not_mapped")),
            (
                json!({"aud": "32555940559.apps.googleusercontent.com"}),
                "analytics_read",
                Err("audience_mismatch"),
            ),
        ],
    )?;
    let service = json!({
        "iss": "https://accounts.google.com", "azp": "107517467455664443766", "aud": "warehouse.corp.example",
        "sub": "107517467455664443766", "email": "loader@corp-prod.iam.gserviceaccount.com", "email_verified": true,
    });
    outcomes(
        &service,
        &header,
        &[
            (json!({}), "ingest_writer", Ok("107517467455664443766")),
            (json!({"email": "loader@corp-dev.iam.gserviceaccount.com"}), "ingest_writer", Err("no_rule")),
            (json!({"email_verified": null}), "ingest_writer", Err("required_claim_failed")),
            (json!({}), "analytics_read", Err("user_not_mapped")),
        ],
    )
}

#[test]
fn keycloak() -> Result<()> {
    let claims = json!({
        "jti": "2d1e9c07-0bf0-4f9b-a6ee-8c1a6d4a4a7e", "iss": "https://sso.corp.example/realms/corp",
        "aud": ["warehouse", "account"], "sub": "5e5a3e4b-6a0c-4c9b-9c80-0f4ff1a4a2c1", "typ": "Bearer", "azp": "psql",
        "sid": "d9b0b5f4-6ed7-4a0e-8d9d-3a4b5c6d7e8f", "acr": "1", "realm_access": {"roles": ["offline_access", "dba"]},
        "resource_access": {"account": {"roles": ["view-profile"]}}, "scope": "openid email profile",
        "email_verified": false, "name": "Ada Lovelace", "groups": ["/teams/finance", "/teams/Legal", "/staff"],
        "preferred_username": "ada", "email": "ada@corp.example",
    });
    let header = [("typ", json!("JWT"))];
    let identity = "5e5a3e4b-6a0c-4c9b-9c80-0f4ff1a4a2c1";
    outcomes(
        &claims,
        &header,
        &[
            (json!({}), "finance", Ok(identity)),
            (json!({}), "reporting", Err("user_not_mapped")),
            (json!({"acr": "gold"}), "reporting", Ok(identity)),
            (
                json!({"acr": "2", "realm_access": {"roles": ["offline_access"]}}),
                "reporting",
                Err("user_not_mapped"),
            ),
            (json!({"groups": ["/staff"]}), "finance", Err("no_rule")),
            (json!({"groups": ["/teams/finance/interns"]}), "finance", Err("no_rule")),
            (json!({"groups": ["/teams/postgres"]}), "postgres", Err("role_privileged")),
            (json!({"typ": "ID"}), "finance", Err("required_claim_failed")),
            (json!({"iss": "https://sso.corp.example/realms/master"}), "finance", Err("issuer_unknown")),
        ],
    )
}

#[test]
fn kubernetes() -> Result<()> {
    let claims = json!({
        "aud": ["warehouse"], "iss": "https://oidc.eks.eu-central-1.amazonaws.com/id/0A1B2C3D4E5F",
        "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a",
        "kubernetes.io": {
            "namespace": "etl",
            "node": {"name": "ip-10-0-1-7", "uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1"},
            "pod": {"name": "dbt-28391", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3"},
            "serviceaccount": {"name": "dbt", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"}
        },
        "nbf": now() - 30, "sub": "system:serviceaccount:etl:dbt",
    });
    let reports = json!({"namespace": "reports-eu", "serviceaccount": {"name": "default"}});
    outcomes(
        &claims,
        &[],
        &[
            (json!({}), "transformer", Ok("system:serviceaccount:etl:dbt")),
            (json!({"sub": "system:serviceaccount:etl:default"}), "transformer", Err("no_rule")),
            (json!({"aud": ["https://kubernetes.default.svc"]}), "transformer", Err("audience_mismatch")),
            (
                json!({"sub": "system:serviceaccount:reports-eu:default", "kubernetes.io": reports}),
                "analytics_read",
                Ok("system:serviceaccount:reports-eu:default"),
            ),
            (
                json!({"sub": "system:serviceaccount:x:y", "kubernetes.io": {"namespace": "reports"}}),
                "analytics_read",
                Err("no_rule"),
            ),
            (json!({"exp": now() + 365 * 86_400}), "transformer", Err("lifetime_too_long")),
        ],
    )
}

#[test]
fn github_actions() -> Result<()> {
    let claims = json!({
        "jti": "example-id", "sub": "repo:octo-org/octo-repo:environment:prod", "environment": "prod", "aud": "warehouse",
        "ref": "refs/heads/main", "sha": "example-sha", "repository": "octo-org/octo-repo", "repository_owner": "octo-org",
        "actor_id": "12", "repository_visibility": "private", "repository_id": "74", "repository_owner_id": "65",
        "run_id": "example-run-id", "run_number": "10", "run_attempt": "2", "runner_environment": "github-hosted",
        "actor": "octocat", "workflow": "example-workflow", "head_ref": "", "base_ref": "",
        "event_name": "workflow_dispatch", "ref_type": "branch",
        "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
        "iss": "https://token.actions.githubusercontent.com", "nbf": now() - 600,
    });
    let header = [("typ", json!("JWT")), ("x5t", json!("example-thumbprint"))];
    let identity = "repo:octo-org/octo-repo:environment:prod";
    outcomes(
        &claims,
        &header,
        &[
            (json!({}), "transformer", Ok(identity)),
            (json!({"environment": "dev"}), "transformer", Err("no_rule")),
            (json!({"environment": null}), "transformer", Err("no_rule")),
            (json!({"repository_id": "75"}), "transformer", Err("no_rule")),
            (json!({"repository_owner_id": "66"}), "transformer", Err("no_rule")),
            (json!({"ref": "refs/heads/release-2"}), "analytics_read", Ok(identity)),
            (json!({"ref": "refs/heads/release-2"}), "transformer", Err("user_not_mapped")),
            (json!({"ref": "refs/heads/release-2/x"}), "analytics_read", Err("no_rule")),
            (
                json!({"ref": "refs/pull/7/merge", "event_name": "pull_request"}),
                "analytics_read",
                Err("no_rule"),
            ),
            (
                json!({"ref": "refs/heads/release-2", "event_name": "pull_request"}),
                "analytics_read",
                Err("no_rule"),
            ),
            (json!({"runner_environment": "self-hosted"}), "transformer", Err("denied_by_rule")),
            (json!({"runner_environment": null}), "transformer", Err("denied_by_rule")),
        ],
    )
}
