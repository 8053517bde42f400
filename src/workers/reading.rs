//! The policy as the tables hold it, read in one snapshot and compiled.

use super::keeping;
use crate::pg::startup;
use crate::rows;
use pg_oidc_core::image::PolicyImage;
use pg_oidc_core::limits;
use pg_oidc_core::people::{Binding, Granted};
use pg_oidc_core::provider::Provider;
use pg_oidc_core::revocation::Revocation;
use pg_oidc_core::row::RowError;
use pg_oidc_core::rules::{Rule, RuleRow, compile_rule};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

/// What the tables hold, compiled.
pub(crate) struct Reading {
    pub(crate) generation: i64,
    pub(crate) image: Result<PolicyImage, String>,
    /// What is wrong with single rows, until they are mended.
    pub(crate) complaints: Vec<Complaint>,
}

/// A row that does not compile.
pub(crate) struct Complaint {
    pub(crate) row: String,
    /// What comes of it.
    pub(crate) consequence: &'static str,
    pub(crate) error: RowError,
}

/// What the database holds.
pub(crate) enum Found {
    /// No extension.
    Nothing,
    /// The generation that is published already.
    Same,
    Policy(Reading),
}

/// The rules that compile, and those that deny and do not, by provider and id.
#[derive(Default)]
struct Rules {
    compiled: Vec<Rule>,
    broken_denials: Vec<(String, i64)>,
}

/// All of the policy, of one moment: the transaction is REPEATABLE READ.
pub(crate) fn read(known: Option<i64>) -> Result<Found, String> {
    Spi::connect(|client| {
        let there = client
            .select("SELECT 1 FROM pg_extension WHERE extname = 'pg_oidc'", Some(1), &[])
            .map_err(sql)?;
        if there.is_empty() {
            return Ok(Found::Nothing);
        }
        let generation = client
            .select("SELECT generation FROM oidc.policy_state", Some(1), &[])
            .map_err(sql)?
            .first()
            .get_one::<i64>()
            .map_err(sql)?
            .unwrap_or(0);
        if known == Some(generation) {
            return Ok(Found::Same);
        }
        let mut complaints = Vec::new();
        let mut providers = providers(client, &mut complaints)?;
        keeping::give_back(client, &mut providers)?;
        let rules = rules(client, &mut complaints)?;
        let revocations = revocations(client)?;
        let (bindings, granted) = people_of(client)?;
        let image = PolicyImage::build(providers, rules.compiled)
            .and_then(|image| image.with_revocations(revocations))
            .and_then(|mut image| image.set_people(bindings, granted).map(|()| image))
            .map_err(|error| error.to_string());
        let image = image.map(|image| {
            rules.broken_denials.iter().fold(image, |image, (name, id)| image.with_broken_denial(name, *id))
        });
        Ok(Found::Policy(Reading { generation, image, complaints }))
    })
}

fn providers(client: &spi::SpiClient<'_>, complaints: &mut Vec<Complaint>) -> Result<Vec<Provider>, String> {
    let table =
        client.select("SELECT p.name, oidc.provider_row(p) FROM oidc.provider p", None, &[]).map_err(sql)?;
    let mut compiled = Vec::with_capacity(table.len());
    for tuple in table {
        let name: String = tuple.get(1).map_err(sql)?.unwrap_or_default();
        let row: String = tuple.get(2).map_err(sql)?.unwrap_or_default();
        match rows::provider(&row) {
            Ok(provider) => compiled.push(provider),
            Err(error) => complaints.push(Complaint {
                row: format!("OIDC provider {name:?}"),
                consequence: "gives nothing",
                error,
            }),
        }
    }
    Ok(compiled)
}

/// Those that have any effect.
const REVOCATIONS: &str = "SELECT r.provider, r.subject, r.until, r.tokens_before FROM oidc.revocation r \
  WHERE r.until > now() OR r.tokens_before IS NOT NULL";

fn revocations(client: &spi::SpiClient<'_>) -> Result<Vec<Revocation>, String> {
    let table = client.select(REVOCATIONS, None, &[]).map_err(sql)?;
    let mut revocations = Vec::with_capacity(table.len());
    for tuple in table {
        revocations.push(revocation(&tuple).map_err(sql)?);
    }
    Ok(revocations)
}

fn revocation(tuple: &spi::SpiHeapTupleData<'_>) -> Result<Revocation, spi::Error> {
    let time = |column| tuple.get::<TimestampWithTimeZone>(column).map(|time| time.map(startup::micros));
    Ok(Revocation {
        provider: tuple.get(1)?.unwrap_or_default(),
        subject: tuple.get(2)?.unwrap_or_default(),
        until: time(3)?.unwrap_or(i64::MAX),
        tokens_before: time(4)?,
    })
}

/// The columns of a rule, each as its own value: 100,000 rows take 0.3 s so, and 5 s as JSON.
const RULES: &str = "SELECT m.id, m.provider, m.match::text, m.role, coalesce(m.role_oid::bigint, 0), m.effect, m.priority, \
        m.databases, m.replication, m.addresses::text[], m.valid_from, m.valid_until, m.session_limit, m.allow_privileged \
   FROM oidc.role_mapping m WHERE m.enabled";

fn rules(client: &spi::SpiClient<'_>, complaints: &mut Vec<Complaint>) -> Result<Rules, String> {
    let table = client.select(RULES, i64::try_from(limits::RULES + 1).ok(), &[]).map_err(sql)?;
    let mut rules = Rules { compiled: Vec::with_capacity(table.len()), ..Rules::default() };
    for tuple in table {
        let row = rule(&tuple).map_err(sql)?;
        let error = match compile_rule(&row) {
            Ok(rule) => {
                rules.compiled.push(rule);
                continue;
            }
            Err(error) => error,
        };
        // Whatever is not plainly a rule that allows may have been meant to deny.
        let consequence = if row.effect == "allow" {
            "gives nothing"
        } else {
            rules.broken_denials.push((row.provider, row.id));
            "refuses every login of its provider"
        };
        complaints.push(Complaint { row: format!("OIDC rule {}", row.id), consequence, error });
    }
    Ok(rules)
}

fn rule(tuple: &spi::SpiHeapTupleData<'_>) -> Result<RuleRow, spi::Error> {
    let time = |column| tuple.get::<TimestampWithTimeZone>(column).map(|time| time.map(startup::micros));
    let session_limit: Option<String> = tuple.get(13)?;
    Ok(RuleRow {
        id: tuple.get(1)?.unwrap_or_default(),
        provider: tuple.get(2)?.unwrap_or_default(),
        matches: tuple.get(3)?.unwrap_or_default(),
        role: tuple.get(4)?,
        role_oid: tuple.get::<i64>(5)?.and_then(|oid| u32::try_from(oid).ok()).unwrap_or_default(),
        effect: tuple.get(6)?.unwrap_or_default(),
        priority: tuple.get(7)?.unwrap_or_default(),
        databases: tuple.get(8)?,
        replication: tuple.get(9)?,
        addresses: tuple.get(10)?,
        valid_from: time(11)?,
        valid_until: time(12)?,
        session_limit_us: session_limit.as_deref().and_then(rows::session_limit_us),
        session_limit,
        allow_privileged: tuple.get(14)?.unwrap_or_default(),
        enabled: true,
    })
}

/// Who has which role of her own, and which memberships were granted.
pub(super) type People = (Vec<Binding>, Vec<Granted>);

/// As the tables have them now.
pub(super) fn people() -> Result<People, String> {
    Spi::connect(people_of)
}

fn people_of(client: &spi::SpiClient<'_>) -> Result<People, String> {
    if !has_column(client, "oidc.identity_role", "role_oid").map_err(sql)? {
        return Ok((Vec::new(), Vec::new()));
    }
    Ok((bindings(client).map_err(sql)?, granted(client).map_err(sql)?))
}

/// Whether the table has the column. Not before ALTER EXTENSION UPDATE: the library goes on with an older script.
pub(super) fn has_column(client: &spi::SpiClient<'_>, table: &str, column: &str) -> Result<bool, spi::Error> {
    let query =
        "SELECT 1 FROM pg_attribute WHERE attrelid = $1::regclass AND attname = $2 AND NOT attisdropped";
    Ok(!client.select(query, Some(1), &[table.into(), column.into()])?.is_empty())
}

fn bindings(client: &spi::SpiClient<'_>) -> Result<Vec<Binding>, spi::Error> {
    let query = "SELECT i.provider, i.subject, i.role, i.role_oid::bigint FROM oidc.identity_role i";
    let table = client.select(query, None, &[])?;
    let mut bindings = Vec::with_capacity(table.len());
    for tuple in table {
        bindings.push(Binding {
            provider: tuple.get(1)?.unwrap_or_default(),
            subject: tuple.get(2)?.unwrap_or_default(),
            role: tuple.get(3)?.unwrap_or_default(),
            role_oid: oid(tuple.get(4)?),
        });
    }
    Ok(bindings)
}

fn granted(client: &spi::SpiClient<'_>) -> Result<Vec<Granted>, spi::Error> {
    let query = "SELECT g.member_oid::bigint, g.role_oid::bigint FROM oidc.granted_membership g";
    let table = client.select(query, None, &[])?;
    let mut granted = Vec::with_capacity(table.len());
    for tuple in table {
        granted.push(Granted { member: oid(tuple.get(1)?), role: oid(tuple.get(2)?) });
    }
    Ok(granted)
}

/// 0 for null.
fn oid(oid: Option<i64>) -> u32 {
    oid.and_then(|oid| u32::try_from(oid).ok()).unwrap_or_default()
}

/// A text that another one follows when people come or go. A standby looks at it: the primary's own changes of bindings
/// and memberships do not move the generation.
pub(super) fn people_mark() -> Result<String, String> {
    let query = "SELECT concat_ws(' ', (SELECT concat_ws(' ', count(*), max(i.last_login)) FROM oidc.identity_role i), \
                                       (SELECT concat_ws(' ', count(*), max(g.granted_at)) FROM oidc.granted_membership g))";
    Spi::get_one::<String>(query).map(Option::unwrap_or_default).map_err(sql)
}

fn sql(error: spi::Error) -> String {
    error.to_string()
}
