-- From 0.1.0 to 0.2.0: keys are shown, fetched on demand and kept across restarts.

-- A provider that has kept keys can be renamed like one that has none.
ALTER TABLE oidc.jwks_cache DROP CONSTRAINT jwks_cache_provider_fkey;
ALTER TABLE oidc.jwks_cache ADD CONSTRAINT jwks_cache_provider_fkey
    FOREIGN KEY (provider) REFERENCES oidc.provider (name) ON UPDATE CASCADE ON DELETE CASCADE;
COMMENT ON TABLE oidc.jwks_cache IS 'Last good keys of each provider, kept across restarts';

-- Whoever writes a key there lets tokens in that it signs.
CREATE TRIGGER check_rights BEFORE INSERT OR UPDATE OR DELETE ON oidc.jwks_cache
    FOR EACH ROW EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.jwks_cache ENABLE ALWAYS TRIGGER check_rights;
CREATE TRIGGER check_rights_to_truncate BEFORE TRUNCATE ON oidc.jwks_cache
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.jwks_cache ENABLE ALWAYS TRIGGER check_rights_to_truncate;

CREATE FUNCTION oidc."refresh_keys"(
	"provider" TEXT DEFAULT NULL
) RETURNS void
VOLATILE
LANGUAGE c
AS 'MODULE_PATHNAME', 'refresh_keys_wrapper';
COMMENT ON FUNCTION oidc.refresh_keys(text) IS 'Asks for the keys of a provider, or of all, to be fetched now; returns at once';

CREATE FUNCTION oidc."key_rows"() RETURNS TABLE (
	"provider" TEXT,
	"kid" TEXT,
	"kty" TEXT,
	"alg" TEXT,
	"usable" bool,
	"problem" TEXT,
	"origin" TEXT,
	"fetched_at" timestamp with time zone,
	"next_fetch_at" timestamp with time zone,
	"last_error" TEXT
)
STRICT VOLATILE
LANGUAGE c
AS 'MODULE_PATHNAME', 'key_rows_wrapper';
COMMENT ON FUNCTION oidc.key_rows() IS 'The rows of oidc.key';

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

-- Nobody but the owner, whatever ALTER DEFAULT PRIVILEGES of the one who runs this grants. What a DBA has granted on the
-- older objects stays.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('REVOKE ALL ON %s FROM %s', n.object,
                      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
          FROM (SELECT 'TABLE oidc.key' AS object, c.relacl AS acl, c.relowner AS owner
                  FROM pg_catalog.pg_class c WHERE c.oid = 'oidc.key'::pg_catalog.regclass
                UNION ALL
                SELECT 'FUNCTION ' || p.oid::pg_catalog.regprocedure::text,
                       coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), p.proowner
                  FROM pg_catalog.pg_proc p
                 WHERE p.oid IN ('oidc.refresh_keys(text)'::pg_catalog.regprocedure,
                                 'oidc.key_rows()'::pg_catalog.regprocedure)) n,
               pg_catalog.aclexplode(n.acl) a
         WHERE a.grantee <> n.owner
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;
