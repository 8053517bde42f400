//! Tests of `pg_oidc_core` from outside, one file for each group of inputs that must be refused (the number in a test's
//! name is that input's), and one for what holds all together.
//!
//! ```text
//! structure   B1   n001 to n018: encoding and JSON
//! signature   B2   n019 to n032: algorithms and signatures
//! header      B3   n034 to n048: header parameters
//! jwks        B4   n049 to n065: key sets
//! account          what the audit may keep of a token
//! kept             keys that outlive a restart
//! claims      B5   n066 to n095: claims other than times
//! oauth_line  B5   n068 and n095: what a line of the HBA file asks of a token
//! times       B5   n077 to n086: exp, nbf, iat
//! mapping     B6   n098 to n103: rules
//! language    B5   n090 and n095: the language of match against an obvious evaluator
//! patterns    B6   n096: expressions and globs against an obvious matcher (oracle)
//! deny        B6   n097 and n099: rules that deny, and the order of rules
//! derived     B6   n102 to n108: roles made of a token
//! naming      B6   n102 to n105: names of people's own roles
//! people      B6   n098, n110, n114: identity logins
//! confines    B7   n123: databases, addresses, replication, validity
//! condition        a match in words
//! rows             what compile_provider accepts and refuses
//! rule_rows   B6   n102 and n103: what compile_rule accepts and refuses
//! documents        discovery, pg_hba.conf, one claim as text
//! bounds           every limit at its value and one above
//! lookup           the index finds what a scan finds; 100,000 rules
//! images           changed bytes are refused or decide without panic
//! vectors          Wycheproof and the JOSE cookbook, run inside the crate; fixtures/whitelist.json
//! sessions         session limits, revocations, what keeps a session
//! refusals         every reason is provoked; nothing of a token is shown
//! fuzzed           what must hold for any bytes (`fuzz/`), on inputs that proptest makes up
//! ```
//! A test that accepts has near misses beside it that are refused.

mod account;
mod bounds;
mod claims;
mod common;
mod condition;
mod confines;
mod deny;
mod derived;
mod documents;
mod fuzz;
mod fuzzed;
mod header;
mod images;
mod jwks;
mod kept;
mod language;
mod lookup;
mod mapping;
mod naming;
mod oauth_line;
mod oracle;
mod patterns;
mod people;
mod refusals;
mod rows;
mod rule_rows;
mod sessions;
mod signature;
mod structure;
mod times;
