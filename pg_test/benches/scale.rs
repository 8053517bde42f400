//! What a large policy costs: `cargo bench -p pg_oidc_test --bench scale`.
//!
//! Four servers, of which each login goes to one after the other, so that the noise of the machine meets all alike:
//! 10 rules; 100,000 rules, 1,000 of them with patterns; 1,000 providers; 10 rules and a token with 2,000 groups.
//! Prints medians and their ratio to the first, and how long 100,000 rules take from commit to the login that they
//! admit. Asserts nothing about time.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::extension::Server;
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::psql::Way;
use pg_oidc_test::token::Token;
use pg_oidc_test::wire::{Heard, Wire};

const ROUNDS: usize = 400;
const PUBLICATIONS: usize = 7;

struct Case {
    name: &'static str,
    cluster: Cluster,
    token: String,
    times: Vec<Duration>,
}

fn main() -> Result<()> {
    let few: Vec<String> = (0..20).map(|number| format!("group-{number}")).collect();
    let many: Vec<String> = (0..2000).map(|number| format!("group-{number}")).collect();
    let mut cases = [
        case("10 rules", 10, 1, &few)?,
        case("100,000 rules, 1,000 of them patterns", 100_000 - PUBLICATIONS as u32, 1, &few)?,
        case("1,000 providers with 10 rules each", 10, 1000, &few)?,
        case("10 rules, a token with 2,000 groups", 10, 1, &many)?,
    ];
    for case in &cases {
        for _ in 0..20 {
            login(&case.cluster, &case.token)?;
        }
    }
    for _ in 0..ROUNDS {
        for case in &mut cases {
            let began = Instant::now();
            login(&case.cluster, &case.token)?;
            case.times.push(began.elapsed());
        }
    }
    println!("\n{:<42} {:>12} {:>10}", format!("median of {ROUNDS} interleaved logins"), "login", "ratio");
    let mut first = None;
    for case in &mut cases {
        let median = median(&mut case.times);
        let first = *first.get_or_insert(median);
        println!("{:<42} {:>9.2} ms {:>10.3}", case.name, ms(median), ms(median) / ms(first));
    }
    publications(&cases[1])
}

/// From the return of COMMIT until the login that needs the new rule is in.
fn publications(case: &Case) -> Result<()> {
    let admin = case.cluster.admin_session()?;
    let mut times = Vec::new();
    for number in 0..PUBLICATIONS {
        let group = format!("new-{number}");
        let token = token(std::slice::from_ref(&group));
        let began = Instant::now();
        admin.rows(&format!(
            "INSERT INTO oidc.role_mapping (provider, match, role) VALUES ('p0', '{{\"groups\": \"{group}\"}}', 'reader')"
        ))?;
        let committed = Instant::now();
        login(&case.cluster, &token)?;
        times.push((committed - began, committed.elapsed()));
    }
    let mut insert: Vec<Duration> = times.iter().map(|(insert, _)| *insert).collect();
    let mut wait: Vec<Duration> = times.iter().map(|(_, wait)| *wait).collect();
    println!("\n{:<42} {:>9.2} ms", "one INSERT beside 100,000 rules", ms(median(&mut insert)));
    println!("{:<42} {:>9.2} ms", "from its commit to the login it admits", ms(median(&mut wait)));
    println!("{:<42} {:>9.2} ms", "the longest of them", ms(wait.iter().copied().max().unwrap_or_default()));
    Ok(())
}

fn case(name: &'static str, rules: u32, providers: u32, groups: &[String]) -> Result<Case> {
    let cluster = Cluster::builder(Server::shared()?)
        .setting("pg_oidc.shared_memory", "128MB")
        .setting("pg_oidc.wait_timeout", "30s")
        .setting("pg_oidc.max_token_size", "65535")
        .guarded("local all reader trust")
        .start()?;
    cluster.admin("CREATE EXTENSION pg_oidc")?;
    cluster.admin("CREATE ROLE reader LOGIN; CREATE ROLE other LOGIN")?;
    let set = jwks(&[&keys().rsa]);
    let began = Instant::now();
    cluster.admin(&format!(
        "INSERT INTO oidc.provider (name, issuer, audiences, jwks)
         SELECT 'p' || n, 'https://p' || n || '.example', '{{{}}}', '{set}' FROM generate_series(0, {} - 1) n",
        pg_oidc_test::token::AUDIENCE,
        providers
    ))?;
    // All share one member, as in a house where every rule also asks for the tenant; 1 in 100 of many is a pattern.
    cluster.admin(&format!(
        "INSERT INTO oidc.role_mapping (provider, match, role)
         SELECT 'p' || p, CASE WHEN n % 100 = 99 THEN jsonb_build_object('groups', jsonb_build_object(
                    CASE WHEN n % 200 = 99 THEN 'regex' ELSE 'glob' END,
                    CASE WHEN n % 200 = 99 THEN 'team-' || n || '-(.+)' ELSE 'team-' || n || '-*' END))
                ELSE jsonb_build_object('tenant', 't', 'groups', 'group-' || n) END,
                CASE n WHEN 7 THEN 'reader' ELSE 'other' END
           FROM generate_series(0, {providers} - 1) p, generate_series(0, {rules} - 1) n"
    ))?;
    println!("{name}: written in {:.1} s", began.elapsed().as_secs_f64());
    let case = Case { name, cluster, token: token(groups), times: Vec::new() };
    let began = Instant::now();
    login(&case.cluster, &case.token)?;
    println!("{name}: first login {:.1} ms after the commit", ms(began.elapsed()));
    Ok(case)
}

fn token(groups: &[String]) -> String {
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    Token::for_user("somebody")
        .issuer("https://p0.example")
        .groups(&groups)
        .claim("tenant", "t".into())
        .sign(&keys().rsa)
}

fn login(cluster: &Cluster, token: &str) -> Result<()> {
    let heard = Wire::log_in(cluster, Way::Socket, "reader", token)?;
    ensure!(
        heard == Heard::Ready,
        "{heard:?}\n{}",
        cluster.log().lines().rev().take(3).collect::<Vec<_>>().join("\n")
    );
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
