CREATE FUNCTION oidc.claims() RETURNS jsonb STABLE PARALLEL SAFE
    RETURN oidc.claims_text()::jsonb;

-- PUBLIC may ask who it is, and nobody anything else. Taken away from everyone by name, because ALTER DEFAULT PRIVILEGES
-- of the one who runs CREATE EXTENSION could have granted more.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('REVOKE ALL ON SCHEMA oidc FROM %s', grantee)
          FROM (SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
                  FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
                 WHERE n.nspname = 'oidc' AND a.grantee <> n.nspowner) g
        UNION
        SELECT format('REVOKE ALL ON %s FROM %s', object, grantee)
          FROM (SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::regclass::text AS object,
                       CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
                  FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
                 WHERE c.relnamespace = 'oidc'::regnamespace AND c.relkind IN ('r', 'S', 'v') AND a.grantee <> c.relowner) g
        UNION
        SELECT format('REVOKE ALL ON FUNCTION %s FROM %s', object, grantee)
          FROM (SELECT p.oid::regprocedure::text AS object,
                       CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
                  FROM pg_catalog.pg_proc p,
                       pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
                 WHERE p.pronamespace = 'oidc'::regnamespace AND a.grantee <> p.proowner) g
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;
GRANT USAGE ON SCHEMA oidc TO PUBLIC;
GRANT EXECUTE ON FUNCTION oidc.identity(), oidc.provider(), oidc.claims(), oidc.claims_text(), oidc.claim(text) TO PUBLIC;
-- Reads nothing but its argument; the view oidc.access calls it with the rights of whoever may read the view.
GRANT EXECUTE ON FUNCTION oidc.condition_text(text) TO PUBLIC;

COMMENT ON FUNCTION oidc.identity() IS 'Identity of the token that opened this session; null without a token';
COMMENT ON FUNCTION oidc.provider() IS 'Provider of the token that opened this session; null without a token';
COMMENT ON FUNCTION oidc.claims() IS 'All claims of the token that opened this session; null without a token';
COMMENT ON FUNCTION oidc.claims_text() IS 'All claims of the token that opened this session, as JSON text; null without a token';
COMMENT ON FUNCTION oidc.claim(text) IS 'One claim as text, by name or JSON Pointer (RFC 6901); null where there is none';
COMMENT ON FUNCTION oidc.judge_provider(text) IS 'Raises an error where a provider cannot be compiled';
COMMENT ON FUNCTION oidc.judge_rule(text) IS 'Raises an error where a rule cannot be compiled';
COMMENT ON FUNCTION oidc.check_rights() IS 'Trigger: who may change the policy, and in which database';
COMMENT ON FUNCTION oidc.policy_changed() IS 'Trigger: makes a committed change count from the next login on';
