//! The bounds of everything that comes from outside, each with its reason.
//!
//! A value equal to the constant is accepted, one above it is refused.

/// Bytes of a token where `pg_oidc.max_token_size` is not set: twice what the largest tokens seen in practice need
/// (Entra with 200 groups: about 9 kB), and small enough that a refused login costs nothing worth counting.
pub const TOKEN_BYTES: usize = 16 * 1024;

/// Bytes of a password message on the wire: PostgreSQL's own `PG_MAX_AUTH_TOKEN_LENGTH` (libpq/auth.c). No setting
/// can raise the token size above it.
pub const WIRE_BYTES: usize = 65_535;

/// Bytes of a secret that may be tried as a role's password: far more than anybody types or a generator makes, and less
/// than nearly any token has.
pub const PASSWORD_BYTES: usize = 256;

/// Bytes of the decoded JOSE header: it holds `alg`, `kid` and `typ`, and in real tokens at most one certificate
/// chain (`x5c`), which is never read.
pub const HEADER_BYTES: usize = 4096;

/// Levels of arrays and objects in any JSON document, the outermost counted: real tokens have 4, and the parser
/// recurses once a level, so this bounds its stack.
pub const JSON_DEPTH: usize = 32;

/// Characters of one number as written in JSON: a 256-bit integer has 78.
pub const NUMBER_BYTES: usize = 128;

/// Largest exponent, either way, of a number in JSON: above a double's 308, and far below what PostgreSQL's
/// `numeric` holds, so that `oidc.claims()` can always give the claims as `jsonb`.
pub const NUMBER_EXPONENT: i64 = 1000;

/// Object members in one token, all levels together: Keycloak with many clients has some 100.
pub const CLAIM_MEMBERS: usize = 512;

/// Elements of one array in a token. Entra stops at 200 groups and Keycloak has no bound; more than this is a
/// directory, not a token, and each element costs a look-up in the rules.
pub const GROUPS: usize = 2000;

/// Bytes of a `kid`, in a token or a key set: thumbprints have 43; it is copied and compared under the board lock.
pub const KID_BYTES: usize = 256;

/// Bytes of an issuer: the common bound of URLs in browsers and proxies.
pub const ISSUER_BYTES: usize = 2048;

/// Bytes of any other URL in a provider.
pub const URL_BYTES: usize = 2048;

/// Bytes of `sub` and of the identity. OpenID Connect Core 2 allows 255, but SPIFFE IDs have up to 2048.
pub const SUBJECT_BYTES: usize = 2048;

/// Algorithms in a provider's list: there are nine that this crate verifies.
pub const ALGORITHMS: usize = 9;

/// Audiences, and accepted types, of one provider: both are compared one by one under no lock, at every login.
pub const AUDIENCES: usize = 64;

/// Bytes of one audience, of one accepted type, and of the name or pointer of a claim.
pub const NAME_BYTES: usize = 2048;

/// Bytes of a token's `jti` that the audit keeps: a UUID has 36, and nobody compares longer ones.
pub const TOKEN_ID_BYTES: usize = 256;

/// Bytes of the claims that the audit keeps of one login, as JSON: 200 groups by their UUIDs.
pub const FACTS_BYTES: usize = 8 * 1024;

/// Claims that the audit keeps because a rule of the provider names them; further ones are left out.
pub const FACT_CLAIMS: usize = 64;

/// Providers in a policy: their keys must fit in shared memory (a key takes about 600 bytes).
pub const PROVIDERS: usize = 1000;

/// Keys in one JWKS: real sets hold 2 to 10; every one is checked with public key arithmetic.
pub const KEYS_PER_PROVIDER: usize = 100;

/// Object members, and elements of one array, in one JWKS: 100 keys with 20 members each, and room.
pub const JWKS_MEMBERS: usize = 10_000;

/// Bytes of one JWKS: 100 keys of RSA 8192 with a certificate each.
pub const JWKS_BYTES: usize = 256 * 1024;

/// Bytes of a provider's CA certificates (PEM): a chain of ten.
pub const CERTIFICATE_BYTES: usize = 64 * 1024;

/// Rules in a policy: rebuilding and checking an image of this many takes well under a second.
pub const RULES: usize = 100_000;

/// Revocations in a policy: each takes the bytes of its subject and some 40 more.
pub const REVOCATIONS: usize = 100_000;

/// People with a role of their own: each takes the bytes of her subject and name, and some 60 more.
pub const BINDINGS: usize = 100_000;

/// Memberships that pg_oidc has granted: 8 bytes each.
pub const GRANTED: usize = 500_000;

/// Roles that one identity login gives: they are listed in its session slot, and each is a membership of the person's
/// role. A person in more groups than that is told apart by none of them.
pub const GIVEN_ROLES: usize = 128;

/// Members of one `match` or `required_claims`: each is one comparison a login.
pub const MATCH_MEMBERS: usize = 16;

/// Bytes of the JSON text of one `match` or `required_claims`: 16 members with a pointer and a value of 2 kB each.
pub const MATCH_BYTES: usize = 64 * 1024;

/// Rules with a regular expression or a glob in a policy: each may have to be tried on every value of a claim.
pub const PATTERN_RULES: usize = 1000;

/// Bytes that one compiled pattern may take, well below regex-lite's own bound of 10 MB. A login compiles and matches it
/// while the policy is being read: at this size the worst that could be built takes about 0.1 s against 8 kB of claim
/// (at 1 MB: 2.5 s), and a plain one some microseconds.
pub const PATTERN_BYTES: usize = 32 * 1024;

/// What matching patterns may cost in one decision, in bytes of text times bytes of compiled pattern: at the worst that
/// was measured (0.4 ns for each) about half a second, and far above what a thousand plain patterns and a token with
/// hundreds of groups take.
pub const PATTERN_EFFORT: u64 = 1 << 30;

/// Patterns of one `match` or `required_claims`: as many as members.
pub const PATTERNS: usize = MATCH_MEMBERS;

/// Bytes of a role name as PostgreSQL stores it: NAMEDATALEN - 1. Configured roles may use all of it.
pub const NAME_DATA_BYTES: usize = 63;

/// Bytes of a role name that is derived from a token: one less than [`NAME_DATA_BYTES`], since the user name in the
/// startup packet arrives already cut, and 63 bytes may be the stump of a longer name.
pub const ROLE_NAME_BYTES: usize = 62;

/// Bytes of the part of a name that a message shows: long enough to know it by, short enough for a log line.
pub const SHOWN_BYTES: usize = 128;

/// Microseconds in a second: the unit of every time in this crate is the microsecond, as in PostgreSQL.
pub const SECOND: i64 = 1_000_000;

/// Largest `clock_skew`, in microseconds: 300 s. Clocks further apart are broken, and the skew prolongs every token.
pub const CLOCK_SKEW_MAX: i64 = 300 * SECOND;

/// Smallest `max_stale`, in microseconds: 60 s. Keys are not fetched more often than that, so anything below would
/// refuse logins between two fetches.
pub const MAX_STALE_MIN: i64 = 60 * SECOND;

/// First microsecond after the year 9999, the end of RFC 3339 times: a token time at or after it is refused, long
/// before `timestamptz` ends (year 294276).
pub const TIME_END: i64 = 253_402_300_800 * SECOND;

/// Databases of one rule: more is better said by null, which means all of them.
pub const DATABASES: usize = 1000;

/// Networks of one rule: they are compared one by one.
pub const ADDRESSES: usize = 1000;

/// Between two fetches that logins ask for, per provider, in microseconds: a flood of tokens with keys that nobody has
/// costs the provider six requests a minute.
pub const FETCH_PAUSE: i64 = 10_000_000;

/// Providers whose keys logins can ask for at once; further ones are asked for by the next login.
pub const KEY_REQUESTS: usize = 64;
