-- Every key, usable or not. Whoever is to read it needs EXECUTE on oidc.key_rows() too.
CREATE VIEW oidc.key AS
    SELECT provider, kid, kty, alg, usable, problem, origin, fetched_at,
           pg_catalog.now() OPERATOR(pg_catalog.-) fetched_at AS age, next_fetch_at, last_error
      FROM oidc.key_rows();
COMMENT ON VIEW oidc.key IS 'Keys of each provider: whether they are used and if not why, where they come from, how old they are';
COMMENT ON COLUMN oidc.key.provider IS 'Name of the provider';
COMMENT ON COLUMN oidc.key.kid IS 'The key''s identifier in its set';
COMMENT ON COLUMN oidc.key.kty IS 'Kind of key: RSA, EC, OKP, oct';
COMMENT ON COLUMN oidc.key.alg IS 'The one algorithm that the key declares';
COMMENT ON COLUMN oidc.key.usable IS 'Whether tokens are verified with it; null where the provider has no key at all';
COMMENT ON COLUMN oidc.key.problem IS 'Why it is not usable';
COMMENT ON COLUMN oidc.key.origin IS 'The URL it was fetched from; ''jwks'' for static keys, ''cache'' for keys kept across a restart';
COMMENT ON COLUMN oidc.key.fetched_at IS 'When the set was last fetched; null for static keys';
COMMENT ON COLUMN oidc.key.age IS 'How long ago that was';
COMMENT ON COLUMN oidc.key.next_fetch_at IS 'When it is fetched next; null for static keys and while it is being fetched';
COMMENT ON COLUMN oidc.key.last_error IS 'Why the last attempt to fetch failed; null if it did not';
COMMENT ON FUNCTION oidc.key_rows() IS 'The rows of oidc.key';
COMMENT ON FUNCTION oidc.refresh_keys(text) IS 'Asks for the keys of a provider, or of all, to be fetched now; returns at once';
