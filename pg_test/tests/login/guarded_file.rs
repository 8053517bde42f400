//! The guarded HBA file: where it is, that it stays, and what the server does without it.
//!
//! 1. It is the server's hba_file, by a relative or an absolute path, over every reload; a changed one counts
//!    after a reload, a changed pg_hba.conf does not.
//! 2. With hba_file in postgresql.conf itself, as Debian has it: a relative path is beside that file, reloads
//!    say nothing of hba_file, nothing waits for a restart, pg_file_settings shows no error.
//! 3. A file that is gone or broken at a reload: the rules of before stay.
//! 4. `trust` in pg_hba.conf is a WARNING at start, and none where there is none.
//! 5. No pg_oidc.hba_file: the server behaves as before.
//! 6. `postgres --single` runs.
//! 7. `-c shared_preload_libraries=` is the way in when nothing else is.

use std::fs;

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::{Cluster, GUARDED_FILE};
use pg_oidc_test::program;
use pg_oidc_test::psql::Way;
use pg_oidc_test::wire::{ASKED, Heard, Wire};

use crate::stage::{
    accepted, admit, builder, calm, core_refuses, furnished, good, install, lets_in, reasons, token,
};

/// What a user with a stored password, or a token on such a line, hears.
const NO_PASSWORD: &str = "password authentication failed";
const NO_ENTRY: &str = "no pg_hba.conf entry for host";

fn path(cluster: &Cluster, name: &str) -> String {
    cluster.file(name).display().to_string()
}

#[test]
fn it_is_the_hba_file_and_stays() -> Result<()> {
    let cluster = furnished(builder()?, &["guest"])?;
    let guarded = path(&cluster, &format!("data/{GUARDED_FILE}"));
    for _ in 0..3 {
        assert_eq!(cluster.admin_value("SHOW hba_file")?, guarded);
        lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
        cluster.reload()?;
    }
    // pg_hba.conf rules nobody: not what is added to it, not what it lacks.
    cluster.write_native("hostnossl all guest 127.0.0.1/32 trust")?;
    cluster.reload()?;
    let plain = || good(&cluster, "guest").way(Way::Plain);
    core_refuses(&cluster, &plain(), "guest", NO_ENTRY)?;
    // The guarded file rules from the reload on, not before.
    cluster.write_guarded("hostssl all guest 127.0.0.1/32 reject\nhostssl all all 127.0.0.1/32 trust\n")?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    cluster.reload()?;
    core_refuses(&cluster, &good(&cluster, "guest"), "guest", "pg_hba.conf rejects connection")?;
    cluster.write_guarded("hostssl all all 127.0.0.1/32 trust\n")?;
    cluster.reload()?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    // SQL cannot move it either.
    let seen = cluster.login("postgres").way(Way::Socket).run("SET hba_file = 'pg_hba.conf'")?;
    ensure!(seen.stderr.contains("cannot be changed without restarting the server"), "{seen:?}");
    cluster.restart()?;
    assert_eq!(cluster.admin_value("SHOW hba_file")?, guarded);
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    calm(&cluster, &[])
}

#[test]
fn an_absolute_path() -> Result<()> {
    let cluster = builder()?.build()?;
    let guarded = path(&cluster, "elsewhere.conf");
    cluster
        .write("elsewhere.conf", "local all postgres peer map=admin\nhostssl all all 127.0.0.1/32 trust\n")?;
    fs::remove_file(cluster.file(&format!("data/{GUARDED_FILE}")))?;
    cluster.set("pg_oidc.hba_file", &guarded)?;
    cluster.start()?;
    install(&cluster)?;
    admit(&cluster, "guest")?;
    cluster.reload()?;
    assert_eq!(cluster.admin_value("SHOW hba_file")?, guarded);
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    calm(&cluster, &[])
}

#[test]
fn hba_file_in_postgresql_conf() -> Result<()> {
    let cluster = builder()?.build()?;
    // As Debian: the configuration in a folder of its own, and hba_file set to the file there.
    fs::create_dir(cluster.file("etc"))?;
    fs::set_permissions(cluster.file("etc"), fs::metadata(cluster.folder())?.permissions())?;
    fs::rename(cluster.file("data/pg_hba.conf"), cluster.file("etc/pg_hba.conf"))?;
    fs::rename(cluster.file(&format!("data/{GUARDED_FILE}")), cluster.file("etc/guarded.conf"))?;
    cluster.set("hba_file", &path(&cluster, "etc/pg_hba.conf"))?;
    cluster.set("pg_oidc.hba_file", "guarded.conf")?;
    cluster.start()?;
    install(&cluster)?;
    admit(&cluster, "guest")?;
    let mark = cluster.log_mark();
    for round in 0..3 {
        cluster.set("work_mem", &format!("{}MB", round + 5))?;
        cluster.reload()?;
        assert_eq!(cluster.admin_value("SHOW work_mem")?, format!("{}MB", round + 5), "it was a reload");
        assert_eq!(cluster.admin_value("SHOW hba_file")?, path(&cluster, "etc/guarded.conf"));
        let pending = "SELECT name FROM pg_settings WHERE pending_restart";
        assert_eq!(cluster.admin(pending)?, Vec::<Vec<String>>::new());
        let shown = "SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL OR NOT applied";
        assert_eq!(cluster.admin(shown)?, Vec::<Vec<String>>::new());
        lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    }
    let log = cluster.log_since(mark);
    ensure!(!log.contains("hba_file") && !log.contains("cannot be changed"), "{log}");
    ensure!(log.contains("parameter \"work_mem\" changed to"), "{log}");
    // The near miss: another setting of that kind is reported as ever.
    cluster.set("ident_file", &path(&cluster, "etc/pg_ident.conf"))?;
    cluster.reload()?;
    assert_eq!(cluster.admin("SELECT name FROM pg_settings WHERE pending_restart")?, [["ident_file"]]);
    ensure!(cluster.log_since(mark).contains("parameter \"ident_file\" cannot be changed"));
    calm(&cluster, &[])
}

#[test]
fn a_bad_file_at_reload_changes_nothing() -> Result<()> {
    let cluster = furnished(builder()?, &["guest"])?;
    let file = cluster.file(&format!("data/{GUARDED_FILE}"));
    let text = fs::read_to_string(&file)?;
    fs::remove_file(&file)?;
    let mark = cluster.log_mark();
    cluster.reload()?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    let log = cluster.log_since(mark);
    ensure!(log.contains(GUARDED_FILE) && log.contains("was not reloaded"), "{log}");
    cluster
        .write(&format!("data/{GUARDED_FILE}"), &format!("{text}hostssl all all everywhere! trustful\n"))?;
    cluster.reload()?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    core_refuses(&cluster, &good(&cluster, "guest").way(Way::Plain), "guest", NO_ENTRY)?;
    calm(&cluster, &[])
}

#[test]
fn trust_in_pg_hba_conf_is_a_warning() -> Result<()> {
    // Line 1 is the superuser's, line 2 a comment, so the trust line is the third.
    let near = "# local all all trust\nlocal \"trust\" trust peer map=trust";
    let cluster = furnished(builder()?.native(near), &["guest"])?;
    ensure!(!cluster.log().contains("WARNING"), "{}", cluster.log());
    cluster.write_native("# trust\nhostnossl all all 127.0.0.1/32 trust\n")?;
    let mark = cluster.log_mark();
    cluster.restart()?;
    let log = cluster.log_since(mark);
    ensure!(
        log.contains(&format!("WARNING:  \"{}\" has \"trust\" lines", path(&cluster, "data/pg_hba.conf"))),
        "{log}"
    );
    ensure!(log.contains("DETAIL:  Line 3."), "{log}");
    assert_eq!(log.matches("WARNING").count(), 1, "{log}");
    // It is only a warning: the server runs, by the guarded file.
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    core_refuses(&cluster, &good(&cluster, "guest").way(Way::Plain), "guest", NO_ENTRY)?;
    calm(&cluster, &[])
}

#[test]
fn without_a_guarded_file_the_server_is_as_before() -> Result<()> {
    let builder = builder()?.native("hostnossl all trusted 127.0.0.1/32 trust");
    let cluster = builder.setting("pg_oidc.hba_file", "").start()?;
    install(&cluster)?;
    admit(&cluster, "guest")?;
    cluster.admin("CREATE ROLE trusted LOGIN; CREATE ROLE scrammed LOGIN PASSWORD 'secret'")?;
    let mark = cluster.log_mark();
    for round in 0..2 {
        assert_eq!(cluster.admin_value("SHOW hba_file")?, path(&cluster, "data/pg_hba.conf"));
        let rows =
            cluster.login("trusted").way(Way::Plain).run("SELECT current_user, oidc.identity()")?.rows();
        assert_eq!(rows, [["trusted", ""]], "a trust line of pg_hba.conf means what it says");
        let scrammed = cluster.login("scrammed").password("secret").run("SELECT current_user")?;
        assert_eq!(scrammed.rows(), [["scrammed"]]);
        core_refuses(&cluster, &good(&cluster, "guest"), "guest", NO_PASSWORD)?;
        let (_, first) = Wire::begin(&cluster, Way::Tls, "guest")?;
        assert_eq!(first, Heard::Authentication(10), "SASL");
        if round == 0 {
            // The default is the same as empty.
            cluster.unset("pg_oidc.hba_file")?;
            cluster.restart()?;
        }
    }
    ensure!(!cluster.log_since(mark).contains("OIDC login"), "{}", cluster.log_since(mark));
    calm(&cluster, &[])
}

#[test]
fn single_user_mode() -> Result<()> {
    let cluster = furnished(builder()?, &["guest"])?;
    let mark = cluster.log_mark();
    cluster.stop()?;
    let mut single = cluster.postgres(&["--single"])?;
    let seen =
        program::fed(single.arg("postgres"), "SELECT 6 * 7 AS answer;\nSHOW shared_preload_libraries;\n")?;
    let said = String::from_utf8_lossy(&seen.stdout).into_owned() + &String::from_utf8_lossy(&seen.stderr);
    ensure!(seen.status.success(), "{said}");
    ensure!(
        said.contains("answer = \"42\"") && said.contains("shared_preload_libraries = \"pg_oidc\""),
        "{said}"
    );
    // What the functions say there is what they say wherever nothing guards them.
    let mut single = cluster.postgres(&["--single"])?;
    let seen = program::fed(single.arg("postgres"), "SELECT oidc.identity();\n")?;
    let said = String::from_utf8_lossy(&seen.stderr).into_owned();
    ensure!(said.contains("pg_oidc must be loaded via shared_preload_libraries"), "{said}");
    cluster.start()?;
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    ensure!(cluster.log_since(mark).contains("OIDC login accepted"));
    calm(&cluster, &[])
}

#[test]
fn the_rescue() -> Result<()> {
    let cluster = furnished(builder()?, &["guest"])?;
    cluster.admin("CREATE ROLE scrammed LOGIN PASSWORD 'secret'")?;
    cluster.stop()?;
    fs::remove_file(cluster.file(&format!("data/{GUARDED_FILE}")))?;
    ensure!(cluster.start().is_err(), "the server starts without its guarded file");
    let mut pg_ctl = cluster.server().command("pg_ctl")?;
    pg_ctl.args(["-w", "-s", "start", "-o", "-c shared_preload_libraries="]);
    pg_ctl.arg("-D").arg(cluster.file("data")).arg("-l").arg(cluster.file("server.log"));
    let mark = cluster.log_mark();
    program::output(&mut pg_ctl)?;
    assert_eq!(cluster.admin_value("SHOW hba_file")?, path(&cluster, "data/pg_hba.conf"));
    let scrammed = cluster.login("scrammed").password("secret").run("SELECT current_user")?;
    assert_eq!(scrammed.rows(), [["scrammed"]]);
    for way in [Way::Tls, Way::Plain, Way::Socket] {
        core_refuses(&cluster, &good(&cluster, "guest").way(way), "guest", NO_PASSWORD)?;
        let seen = cluster.login("guest").way(way).run("SELECT 1")?;
        ensure!(!seen.ok(), "in without anything");
    }
    let seen = cluster.login("postgres").way(Way::Socket).run("SELECT oidc.identity()")?;
    ensure!(seen.stderr.contains("pg_oidc must be loaded via shared_preload_libraries"), "{seen:?}");
    assert_eq!((accepted(&cluster, mark, "guest"), reasons(&cluster, mark, "guest").len()), (0, 0));
    // The file is mended, the server started as ever: the door is back.
    cluster.write_guarded("hostssl all all 127.0.0.1/32 trust\n")?;
    cluster.restart()?;
    let (_, first) = Wire::begin(&cluster, Way::Tls, "guest")?;
    assert_eq!(first, ASKED);
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    calm(&cluster, &[&token("guest")])
}
