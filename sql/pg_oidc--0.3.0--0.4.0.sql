-- From 0.3.0 to 0.4.0: sessions that end, revocation; logins in the audit table, figures.

-- Providers that are there keep what they have.
ALTER TABLE oidc.provider ALTER COLUMN session_limit SET DEFAULT '8 hours';

DROP TRIGGER refuse_change ON oidc.revocation;

COMMENT ON COLUMN oidc.provider.session_limit IS 'When sessions end: an interval after the login, ''token'' (with the token), ''none'' (never by time)';

COMMENT ON COLUMN oidc.role_mapping.session_limit IS 'As the provider''s; the tighter of the two holds; null: the provider''s';

COMMENT ON TABLE oidc.revocation IS 'Identities whose tokens are refused; written by oidc.revoke, oidc.reinstate and oidc.end_sessions';

COMMENT ON COLUMN oidc.revocation.provider IS 'The provider of the identity';

COMMENT ON COLUMN oidc.revocation.subject IS 'The claim "sub" of the identity';

COMMENT ON COLUMN oidc.revocation.reason IS 'Why';

COMMENT ON COLUMN oidc.revocation.until IS 'Every token is refused until then; in the past: none for this';

COMMENT ON COLUMN oidc.revocation.tokens_before IS 'Tokens issued until then are refused, and those without iat; null: none for this';

COMMENT ON COLUMN oidc.revocation.created_by IS 'Who revoked it';

COMMENT ON COLUMN oidc.revocation.created_at IS 'When';

CREATE  FUNCTION oidc."session_rows"() RETURNS TABLE (
	"pid" INT,  
	"provider" TEXT,  
	"subject" TEXT,  
	"identity" TEXT,  
	"role" TEXT,  
	"since" timestamp with time zone,  
	"ends_at" timestamp with time zone,  
	"database" TEXT,  
	"client_address" inet  
)
STRICT VOLATILE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'session_rows_wrapper';

CREATE  FUNCTION oidc."end_identity"(
	"provider" TEXT, 
	"subject" TEXT, 
	"revoked" bool 
) RETURNS INT 
STRICT VOLATILE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'end_identity_wrapper';

CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE ON oidc.revocation
    FOR EACH ROW EXECUTE FUNCTION oidc.policy_changed();

ALTER TABLE oidc.revocation ENABLE ALWAYS TRIGGER policy_changed;

CREATE TRIGGER policy_truncated AFTER TRUNCATE ON oidc.revocation
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.policy_changed();

ALTER TABLE oidc.revocation ENABLE ALWAYS TRIGGER policy_truncated;

-- Every live token session. Whoever is to read it needs EXECUTE on oidc.session_rows() too.
CREATE VIEW oidc.session AS
    SELECT pid, provider, subject, identity, role, since, ends_at, database, client_address FROM oidc.session_rows();

COMMENT ON VIEW oidc.session IS 'Live token sessions of the whole server; pid joins with pg_stat_activity';

COMMENT ON COLUMN oidc.session.pid IS 'The backend''s process';

COMMENT ON COLUMN oidc.session.provider IS 'The provider of its token';

COMMENT ON COLUMN oidc.session.subject IS 'The claim "sub" of its token';

COMMENT ON COLUMN oidc.session.identity IS 'The identity that its token names';

COMMENT ON COLUMN oidc.session.role IS 'The role that it logged in with';

COMMENT ON COLUMN oidc.session.since IS 'When it logged in';

COMMENT ON COLUMN oidc.session.ends_at IS 'When session_limit ends it; null: not by time. The time of its rule may be over earlier';

COMMENT ON COLUMN oidc.session.database IS 'Its database; empty for physical replication';

COMMENT ON COLUMN oidc.session.client_address IS 'The client''s address; null for a Unix-domain socket';

COMMENT ON FUNCTION oidc.session_rows() IS 'The rows of oidc.session';

COMMENT ON FUNCTION oidc.end_identity(text, text, boolean) IS 'Ends the live sessions of an identity, for oidc.revoke and oidc.end_sessions';

-- Whoever has EXECUTE on these three may end anybody's sessions; they write oidc.revocation with the owner's rights.
CREATE FUNCTION oidc.revoke(provider text, subject text, reason text DEFAULT NULL, until timestamptz DEFAULT 'infinity')
    RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF $4 <= clock_timestamp() THEN
            RAISE invalid_parameter_value USING MESSAGE = '"until" must be in the future';
        END IF;
        INSERT INTO oidc.revocation AS r (provider, subject, reason, until) VALUES ($1, $2, $3, $4)
            ON CONFLICT ON CONSTRAINT revocation_pkey
            DO UPDATE SET reason = EXCLUDED.reason, until = EXCLUDED.until,
                          created_by = EXCLUDED.created_by, created_at = EXCLUDED.created_at;
        RETURN oidc.end_identity($1, $2, true);
    END
    $$;

COMMENT ON FUNCTION oidc.revoke(text, text, text, timestamptz) IS 'Refuses every token of an identity, and ends its live sessions; gives how many were signalled';

CREATE FUNCTION oidc.reinstate(provider text, subject text)
    RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        revoked boolean;
    BEGIN
        SELECT r.until > clock_timestamp() INTO revoked FROM oidc.revocation r
         WHERE r.provider = $1 AND r.subject = $2 FOR UPDATE;
        DELETE FROM oidc.revocation r WHERE r.provider = $1 AND r.subject = $2 AND r.tokens_before IS NULL;
        -- That its sessions were once ended still counts for the tokens of before.
        UPDATE oidc.revocation r SET until = '-infinity', reason = NULL
         WHERE r.provider = $1 AND r.subject = $2 AND r.until > '-infinity';
        RETURN coalesce(revoked, false);
    END
    $$;

COMMENT ON FUNCTION oidc.reinstate(text, text) IS 'Takes a revocation back; gives whether there was one';

CREATE FUNCTION oidc.end_sessions(provider text, subject text)
    RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        INSERT INTO oidc.revocation AS r (provider, subject, until, tokens_before)
            VALUES ($1, $2, '-infinity', clock_timestamp())
            ON CONFLICT ON CONSTRAINT revocation_pkey DO UPDATE SET tokens_before = EXCLUDED.tokens_before;
        RETURN oidc.end_identity($1, $2, false);
    END
    $$;

COMMENT ON FUNCTION oidc.end_sessions(text, text) IS 'Ends the live sessions of an identity and refuses its tokens issued until now; gives how many were signalled';

CREATE OR REPLACE FUNCTION oidc.doctor_tables()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH extension AS MATERIALIZED (
            SELECT oid, extowner FROM pg_extension WHERE extname = 'pg_oidc'
        ),
        members AS MATERIALIZED (
            SELECT classid, objid FROM pg_depend d, extension e
             WHERE refclassid = 'pg_extension'::regclass AND refobjid = e.oid AND deptype = 'e'
        ),
        relations AS MATERIALIZED (
            SELECT c.oid, c.oid::regclass::text AS table_name, c.relkind, c.relowner, c.relacl
              FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
             WHERE c.relkind IN ('r', 'S', 'v')
        ),
        triggers AS MATERIALIZED (
            SELECT r.table_name, t.tgname, t.tgfoid, t.tgenabled,
                   EXISTS (SELECT FROM members m WHERE m.classid = 'pg_proc'::regclass AND m.objid = t.tgfoid) AS ours
              FROM relations r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
        ),
        rights AS MATERIALIZED (
            SELECT 'pg_class'::regclass AS classid, oid AS objid, 0 AS objsubid, table_name AS object, relacl AS acl
              FROM relations
            UNION ALL
            SELECT 'pg_class'::regclass, oid, attnum, format('column "%s" of %s', attname, table_name), attacl
              FROM relations JOIN pg_attribute ON attrelid = oid AND attnum > 0
            UNION ALL
            SELECT 'pg_proc'::regclass, p.oid, 0, p.oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner))
              FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
            UNION ALL
            SELECT 'pg_namespace'::regclass, oid, 0, 'schema oidc', nspacl FROM pg_namespace WHERE nspname = 'oidc'
        ),
        needed AS MATERIALIZED (
            SELECT table_name, trigger_name
              FROM (VALUES
                ('{oidc.provider,oidc.role_mapping,oidc.revocation,oidc.identity_role,oidc.granted_membership,oidc.policy_state,oidc.jwks_cache,oidc.audit_log}'::text[],
                 '{check_rights,check_rights_to_truncate}'::text[]),
                ('{oidc.provider,oidc.role_mapping}', '{check_row,check_stored_row}'),
                ('{oidc.provider,oidc.role_mapping,oidc.revocation}', '{policy_changed,policy_truncated}'),
                ('{oidc.provider,oidc.role_mapping,oidc.revocation}', '{audit,audit_truncate}'),
                ('{oidc.identity_role,oidc.granted_membership}', '{refuse_change}')
              ) n (table_names, trigger_names), unnest(table_names) table_name, unnest(trigger_names) trigger_name
        )
        SELECT r.* FROM oidc.check_result('table_triggers', 'fail',
            (SELECT array_agg(sentence ORDER BY sentence)
               FROM (SELECT format('Table %s has no trigger "%s" of the extension.', table_name, trigger_name) AS sentence
                       FROM needed n
                      WHERE NOT EXISTS (SELECT FROM triggers t WHERE t.ours AND t.table_name = n.table_name
                                                                 AND t.tgname = n.trigger_name)
                     UNION ALL
                     SELECT format('Trigger "%s" of table %s is not enabled ALWAYS.', tgname, table_name)
                       FROM triggers WHERE ours AND tgenabled <> 'A'
                     UNION ALL
                     SELECT format('Trigger "%s" of table %s is not of the extension.', tgname, table_name)
                       FROM triggers WHERE NOT ours) found),
            'Run ALTER TABLE … ENABLE ALWAYS TRIGGER for one that is disabled; drop one that is not of the extension. One '
                || 'that is missing comes back only with DROP and CREATE EXTENSION, so dump the policy first.',
            'All triggers are in place.') r
        UNION ALL
        SELECT r.* FROM oidc.check_result('table_owners', 'fail',
            (SELECT array_agg(sentence ORDER BY sentence)
               FROM (SELECT format('%s belongs to role "%s", not to the owner of the extension, "%s".', table_name,
                                   pg_get_userbyid(relowner), pg_get_userbyid(extowner)) AS sentence
                       FROM relations, extension WHERE relowner <> extowner
                     UNION ALL
                     SELECT format('%s has the child table %s, whose rows count as rules of the policy.', table_name,
                                   inhrelid::regclass)
                       FROM relations JOIN pg_inherits ON inhparent = oid
                     UNION ALL
                     SELECT format('%s has the rewrite rule "%s".', table_name, w.rulename)
                       FROM relations r JOIN pg_rewrite w ON w.ev_class = r.oid AND r.relkind = 'r') found),
            'Give the table back with ALTER TABLE … OWNER TO; drop what is not of the extension.',
            (SELECT format('All tables belong to role "%s", and nothing is attached to them.', pg_get_userbyid(extowner))
               FROM extension)) r
        UNION ALL
        SELECT r.* FROM oidc.check_result('public_rights', 'fail',
            (SELECT array_agg(sentence ORDER BY sentence)
               FROM (SELECT format('PUBLIC has %s on %s.', a.privilege_type, object) AS sentence
                       FROM rights r, aclexplode(r.acl) a
                      WHERE a.grantee = 0
                        -- What the extension's script itself granted.
                        AND NOT EXISTS (SELECT FROM pg_init_privs i, aclexplode(i.initprivs) b
                                         WHERE i.classoid = r.classid AND i.objoid = r.objid AND i.objsubid = r.objsubid
                                           AND b.grantee = 0 AND b.privilege_type = a.privilege_type)) found),
            'Take it back with REVOKE … FROM PUBLIC.',
            'PUBLIC may ask who it is, and nothing else.') r
    $$;

-- Nobody but the owner, whatever ALTER DEFAULT PRIVILEGES of the one who runs this grants. What a DBA has granted on the
-- older objects stays.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('REVOKE ALL ON %s FROM %s', n.object,
                      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
          FROM (SELECT 'TABLE ' || c.oid::pg_catalog.regclass::text AS object, c.relacl AS acl, c.relowner AS owner
                  FROM pg_catalog.pg_class c WHERE c.oid = 'oidc.session'::pg_catalog.regclass
                UNION ALL
                SELECT 'FUNCTION ' || p.oid::pg_catalog.regprocedure::text,
                       coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), p.proowner
                  FROM pg_catalog.pg_proc p
                 WHERE p.pronamespace = 'oidc'::pg_catalog.regnamespace
                   AND p.proname IN ('end_identity', 'end_sessions', 'reinstate', 'revoke', 'session_rows')) n,
               pg_catalog.aclexplode(n.acl) a
         WHERE a.grantee <> n.owner
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;
