//! What an identity login costs beside a role login: `cargo bench -p pg_oidc_test --bench people`.
//!
//! One server, over the unix socket and without TLS, so that nothing but the login counts. Interleaved, so that the noise
//! of the machine meets all alike. Prints medians and their ratio to the role login's. Asserts nothing about time.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::extension::Server;
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::psql::Way;
use pg_oidc_test::token::{AUDIENCE, ISSUER, Token};
use pg_oidc_test::wire::{Heard, Wire};
use serde_json::json;

const ROUNDS: usize = 400;

fn main() -> Result<()> {
    let cluster = Cluster::builder(Server::shared()?).guarded("local all all trust").start()?;
    cluster.admin("CREATE EXTENSION pg_oidc; CREATE ROLE job LOGIN")?;
    let jwks = jwks(&[&keys().ec]);
    cluster.admin(&format!(
        "INSERT INTO oidc.provider (name, issuer, audiences, jwks, identity_pattern, identity_role, auto_provision) \
         VALUES ('corp', '{ISSUER}', '{{{AUDIENCE}}}', '{jwks}', '(.*)', '\\1', true); \
         INSERT INTO oidc.role_mapping (provider, match, role) VALUES ('corp', '{{\"sub\": \"job\"}}', 'job')"
    ))?;
    for number in 0..10 {
        cluster.admin(&format!(
            "CREATE ROLE role{number}; INSERT INTO oidc.role_mapping (provider, match, role) \
             VALUES ('corp', '{{\"groups\": \"group{number}\"}}', 'role{number}')"
        ))?;
    }
    let groups: Vec<String> = (0..10).map(|number| format!("group{number}")).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let (few, all) = (groups.get(..1).unwrap_or_default(), groups.as_slice());
    let mut times: [(&str, Vec<Duration>); 4] = [
        ("role login", vec![]),
        ("identity login, 1 role", vec![]),
        ("identity login, 10 roles", vec![]),
        ("first identity login, 1 role", vec![]),
    ];
    for round in 0..ROUNDS + 20 {
        let new = format!("new{round}");
        let logins = [("job", all), ("one", few), ("ten", all), (new.as_str(), few)];
        for ((_, times), (user, groups)) in times.iter_mut().zip(logins) {
            let began = Instant::now();
            login(&cluster, user, groups)?;
            if round >= 20 {
                times.push(began.elapsed());
            }
        }
    }
    println!("\n{:<42} {:>12} {:>10}", format!("median of {ROUNDS} interleaved logins"), "login", "ratio");
    let mut first = None;
    for (name, times) in &mut times {
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let first = *first.get_or_insert(median);
        println!("{name:<42} {:>9.2} ms {:>10.3}", ms(median), ms(median) / ms(first));
    }
    Ok(())
}

fn login(cluster: &Cluster, user: &str, groups: &[&str]) -> Result<()> {
    let token = Token::for_user(user).claim("groups", json!(groups)).sign(&keys().ec);
    let heard = Wire::log_in(cluster, Way::Socket, user, &token)?;
    ensure!(heard == Heard::Ready, "{user}: {heard:?}");
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
