//! People log in as themselves: with roles of their own, which are made for them, and in roles that rules give.
//!
//! 1. coming.rs: the first login makes the role, binds it and grants what the rules give; later ones write nothing
//! 2. bounds.rs: a session has the roles of its own decision, and of nobody else's
//! 3. bindings.rs: whose role is whose
//! 4. sweeping.rs: what no rule gives any more is taken away, what others granted is not

mod coming;
mod handover;

use std::sync::LazyLock;

use anyhow::Result;
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::psql::Login;
use pg_oidc_test::token::{AUDIENCE, ISSUER, Token};
use serde_json::json;

use crate::stage::{Shared, builder, share, shared};

static CLUSTER: Shared = LazyLock::new(|| share(stage));

/// A cluster whose only provider makes roles of the identities `…@corp.example`, and whose rules give the roles
/// `analyst`, `writer` and `auditor` to the groups of these names.
fn stage() -> Result<Cluster> {
    let cluster = builder()?.start()?;
    furnish(&cluster)?;
    Ok(cluster)
}

/// As [`stage`], on a cluster that has started.
pub(crate) fn furnish(cluster: &Cluster) -> Result<()> {
    cluster.admin("CREATE EXTENSION pg_oidc")?;
    cluster.admin("CREATE ROLE analyst; CREATE ROLE writer; CREATE ROLE auditor; CREATE ROLE base")?;
    let jwks = jwks(&[&keys().ec]);
    cluster.admin(&format!(
        "INSERT INTO oidc.provider (name, issuer, audiences, jwks, identity_claim, groups_claim, identity_pattern, \
                                    identity_role, auto_provision) \
         VALUES ('corp', '{ISSUER}', '{{{AUDIENCE}}}', '{jwks}', 'upn', 'groups', '^(.*)@corp\\.example$', '\\1', true)"
    ))?;
    cluster.admin(
        "INSERT INTO oidc.role_mapping (provider, match, role) \
         SELECT 'corp', jsonb_build_object('groups', r), r FROM unnest('{analyst,writer,auditor}'::text[]) r",
    )?;
    Ok(())
}

fn cluster() -> Result<&'static Cluster> {
    shared(&CLUSTER)
}

/// The token of a person who is in these groups.
pub(crate) fn token(person: &str, groups: &[&str]) -> String {
    of(person, groups).sign(&keys().ec)
}

fn of(person: &str, groups: &[&str]) -> Token {
    Token::for_user(&format!("sub-{person}"))
        .claim("upn", json!(format!("{person}@corp.example")))
        .groups(groups)
}

/// The login of a person as herself.
fn login<'a>(cluster: &'a Cluster, person: &str, groups: &[&str]) -> Login<'a> {
    cluster.login(person).password(token(person, groups))
}
