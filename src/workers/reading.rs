//! The policy as the tables hold it, read in one snapshot and compiled.

use super::keeping;
use crate::rows;
use pg_oidc_core::image::PolicyImage;
use pg_oidc_core::provider::Provider;
use pg_oidc_core::row::RowError;
use pg_oidc_core::rules::Rule;
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
        let image = PolicyImage::build(providers, rules.compiled).map_err(|error| error.to_string());
        let image = image.map(|image| {
            rules.broken_denials.iter().fold(image, |image, (name, id)| image.with_broken_denial(name, *id))
        });
        Ok(Found::Policy(Reading { generation, image, complaints }))
    })
}

fn providers(client: &spi::SpiClient<'_>, complaints: &mut Vec<Complaint>) -> Result<Vec<Provider>, String> {
    let table = client
        .select("SELECT p.name, oidc.provider_row(p) FROM oidc.provider p", None, &[])
        .map_err(sql)?;
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

fn rules(client: &spi::SpiClient<'_>, complaints: &mut Vec<Complaint>) -> Result<Rules, String> {
    let query = "SELECT m.id, m.provider, m.effect, oidc.rule_row(m) FROM oidc.role_mapping m WHERE m.enabled";
    let table = client.select(query, None, &[]).map_err(sql)?;
    let mut rules = Rules { compiled: Vec::with_capacity(table.len()), ..Rules::default() };
    for tuple in table {
        let row: String = tuple.get(4).map_err(sql)?.unwrap_or_default();
        let error = match rows::rule(&row) {
            Ok(rule) => {
                rules.compiled.push(rule);
                continue;
            }
            Err(error) => error,
        };
        let id: i64 = tuple.get(1).map_err(sql)?.unwrap_or_default();
        let effect: String = tuple.get(3).map_err(sql)?.unwrap_or_default();
        // Whatever is not plainly a rule that allows may have been meant to deny.
        let consequence = if effect == "allow" {
            "gives nothing"
        } else {
            rules.broken_denials.push((tuple.get(2).map_err(sql)?.unwrap_or_default(), id));
            "refuses every login of its provider"
        };
        complaints.push(Complaint { row: format!("OIDC rule {id}"), consequence, error });
    }
    Ok(rules)
}

fn sql(error: spi::Error) -> String {
    error.to_string()
}
