//! What newer versions of PostgreSQL add. On older ones the tests look at what these have instead.
//!
//! 1. 17 and later log `connection authenticated: … method=trust` before a token is asked for: on token lines that
//!    record is dropped, for good tokens and bad ones; on other lines, and for other methods, core's records stay.
//! 2. `n141` 16 and later: lines of a file that the guarded file includes work, but for its `trust` lines: they are
//!    refused, no question asked. 15 does not know `include`.

//! 3. `n101` 16 and later: a role counts as privileged if it has a privileged role by SET, by INHERIT or by ADMIN alone,
//!    directly or through others; a grant without any of them gives nothing and is no reason.

use std::fs;

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::GUARDED_FILE;
use pg_oidc_test::psql::Way;
use pg_oidc_test::wire::{ASKED, Heard, Wire};

use crate::stage::{
    accepted, admit, builder, calm, core_refuses, furnished, good, lets_in, line, reasons, refuses, token,
};

/// How core's record of an authenticated connection begins.
const AUTHENTICATED: &str = "connection authenticated: ";

#[test]
fn nobody_is_authenticated_by_trust() -> Result<()> {
    let builder = builder()?.setting("log_connections", "on");
    let builder = builder.guarded("hostssl all scrammed 127.0.0.1/32 scram-sha-256");
    let cluster = furnished(builder, &["guest"])?;
    cluster.admin("CREATE ROLE scrammed LOGIN PASSWORD 'secret'")?;
    let mark = cluster.log_mark();
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    refuses(&cluster, &cluster.login("guest").password("x"), "guest", "token_malformed")?;
    let (_, asked) = Wire::begin(&cluster, Way::Tls, "guest")?;
    assert_eq!(asked, ASKED);
    let log = cluster.log_since(mark);
    ensure!(log.contains("connection authorized: user=guest"), "{log}");
    ensure!(!log.contains("method=trust"), "{log}");
    // Core's own records of other methods stay.
    let mark = cluster.log_mark();
    let scrammed = cluster.login("scrammed").password("secret").run("SELECT current_user")?;
    assert_eq!(scrammed.rows(), [["scrammed"]]);
    let record = format!("{AUTHENTICATED}identity=\"scrammed\" method=scram-sha-256");
    ensure!(cluster.log_since(mark).contains(&record), "{}", cluster.log_since(mark));
    // Without the guarded file a trust line is core's, and so is its record.
    cluster.set("pg_oidc.hba_file", "")?;
    cluster.write_native("hostssl all guest 127.0.0.1/32 trust\n")?;
    cluster.restart()?;
    let mark = cluster.log_mark();
    assert_eq!(cluster.login("guest").run("SELECT current_user")?.rows(), [["guest"]]);
    let record = cluster.log_since(mark).contains(&format!("{AUTHENTICATED}user=\"guest\" method=trust"));
    assert_eq!(record, cluster.server().major() >= 17, "{}", cluster.log_since(mark));
    calm(&cluster, &[&token("guest")])
}

#[test]
fn n141_included_lines() -> Result<()> {
    let cluster = furnished(builder()?, &["guest"])?;
    cluster.admin("CREATE ROLE scrammed LOGIN PASSWORD 'secret'")?;
    admit(&cluster, "included")?;
    cluster.write(
        "data/more_hba.conf",
        "hostssl all scrammed 127.0.0.1/32 scram-sha-256\nhostssl all included 127.0.0.1/32 trust\n",
    )?;
    let own = fs::read_to_string(cluster.file(&format!("data/{GUARDED_FILE}")))?;
    cluster.write(&format!("data/{GUARDED_FILE}"), &format!("include more_hba.conf\n{own}"))?;
    let mark = cluster.log_mark();
    cluster.reload()?;
    if cluster.server().major() < 16 {
        // The file is not loaded, and the one before stays.
        cluster.await_log_since(mark, "was not reloaded", crate::stage::SOON)?;
        return lets_in(&cluster, &good(&cluster, "included"), "included");
    }
    let scrammed = || cluster.login("scrammed");
    assert_eq!(scrammed().password("secret").run("SELECT current_user")?.rows(), [["scrammed"]]);
    let failed = "password authentication failed for user \"scrammed\"";
    core_refuses(&cluster, &scrammed().password("wrong"), "scrammed", failed)?;
    let mark = cluster.log_mark();
    let (mut wire, first) = Wire::begin(&cluster, Way::Tls, "included")?;
    let Heard::Error(refused) = first else { anyhow::bail!("{first:?} instead of a refusal") };
    assert_eq!(refused.field('M'), line("included"));
    assert_eq!(wire.hear_all()?, []);
    assert_eq!(reasons(&cluster, mark, "included").len(), 1);
    assert_eq!(accepted(&cluster, mark, "included"), 0);
    // The guarded file's own token line, further down, is asked as ever.
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    calm(&cluster, &[&token("included"), &token("guest")])
}

#[test]
fn n101_memberships_with_one_option() -> Result<()> {
    let cluster = furnished(builder()?, &[])?;
    if cluster.server().major() < 16 {
        return Ok(()); // there a membership has no options but ADMIN
    }
    cluster.admin("CREATE ROLE powers CREATEROLE; CREATE ROLE between")?;
    cluster.admin("GRANT powers TO between WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")?;
    let none = "ADMIN FALSE, INHERIT FALSE, SET FALSE";
    for option in ["ADMIN", "INHERIT", "SET"] {
        for parent in ["powers", "between"] {
            let role = format!("{}_{parent}", option.to_lowercase());
            admit(&cluster, &role)?;
            cluster.admin(&format!("GRANT {parent} TO {role} WITH {none}"))?;
            lets_in(&cluster, &good(&cluster, &role), &role)?;
            cluster.admin(&format!("GRANT {parent} TO {role} WITH {option} TRUE"))?;
            refuses(&cluster, &good(&cluster, &role), &role, "role_privileged")?;
        }
    }
    // Of two grants of the same role, one is enough.
    admit(&cluster, "twice")?;
    cluster.admin("CREATE ROLE other SUPERUSER")?;
    cluster.admin(&format!("GRANT powers TO twice WITH {none}"))?;
    lets_in(&cluster, &good(&cluster, "twice"), "twice")?;
    cluster.admin("GRANT powers TO other WITH ADMIN TRUE")?;
    cluster.admin("GRANT powers TO twice WITH ADMIN FALSE, INHERIT FALSE, SET TRUE GRANTED BY other")?;
    refuses(&cluster, &good(&cluster, "twice"), "twice", "role_privileged")?;
    calm(&cluster, &[])
}
