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

CREATE  FUNCTION oidc."end_identity"(
	"provider" TEXT, 
	"subject" TEXT, 
	"revoked" bool 
) RETURNS INT 
STRICT VOLATILE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'end_identity_wrapper';

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

CREATE  FUNCTION oidc."explain_facts"(
	"provider" TEXT, 
	"claims" TEXT, 
	"login_user" TEXT, 
	"database" TEXT, 
	"client" inet, 
	"replication" bool, 
	"at" timestamp with time zone 
) RETURNS TABLE (
	"step" INT,  
	"name" TEXT,  
	"passed" TEXT,  
	"detail" TEXT  
)
VOLATILE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'explain_facts_wrapper';

COMMENT ON TABLE oidc.audit_log IS 'Logins, accepted and refused, sessions that were ended, and changes of providers, rules and revocations. Only superusers may change it; rows older than "pg_oidc.audit_retention" are deleted';

COMMENT ON COLUMN oidc.audit_log.event IS '''login'', ''session_end''; or provider_, rule_ or revocation_ and created, changed, deleted or truncated (one event for a TRUNCATE, without rows)';

COMMENT ON COLUMN oidc.audit_log.outcome IS '''accepted'' or ''refused'' for a login, ''ended'' for a session, ''done'' for a change';

COMMENT ON COLUMN oidc.audit_log.reason IS 'Why a login was refused or a session was ended, as in the server log';

COMMENT ON COLUMN oidc.audit_log.provider IS 'The provider, or the provider of the rule or revocation; null for a login whose token names no issuer of the policy';

COMMENT ON COLUMN oidc.audit_log.subject IS 'The claim "sub" of a token whose signature was verified; the subject of the revocation';

COMMENT ON COLUMN oidc.audit_log.identity IS 'The identity of a token whose signature was verified';

COMMENT ON COLUMN oidc.audit_log.requested_user IS 'The user that the client asked for';

COMMENT ON COLUMN oidc.audit_log.role IS 'The role of an accepted login, or of the rule';

COMMENT ON COLUMN oidc.audit_log.rule_id IS 'The rule that gave the role or denied the login; the id of the changed rule';

COMMENT ON COLUMN oidc.audit_log.database IS 'The database of the session, or that the client asked for';

COMMENT ON COLUMN oidc.audit_log.tls IS 'Whether the connection is encrypted by TLS';

COMMENT ON COLUMN oidc.audit_log.kid IS 'The provider''s key that fits the token, by its "kid"';

COMMENT ON COLUMN oidc.audit_log.token_id IS 'The claim "jti" of a token whose signature was verified, if it has one';

COMMENT ON COLUMN oidc.audit_log.pid IS 'The process of the session, or that refused it';

-- The checks of the policy's tables, of the providers and of their keys.
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

CREATE  FUNCTION oidc."stat_rows"() RETURNS TABLE (
	"metric" TEXT,  
	"provider" TEXT,  
	"outcome" TEXT,  
	"reason" TEXT,  
	"value" bigint  
)
STRICT VOLATILE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'stat_rows_wrapper';

-- Figures since the server started, for monitoring. Whoever is to read it needs EXECUTE on oidc.stat_rows() too.
CREATE VIEW oidc.stat AS
    SELECT metric, provider, outcome, reason, value FROM oidc.stat_rows();

COMMENT ON VIEW oidc.stat IS 'Figures since the server started: logins by provider, outcome and reason, waits, the audit queue, the shared memory';

COMMENT ON COLUMN oidc.stat.metric IS '''logins'', or another figure, which has neither provider nor outcome nor reason';

COMMENT ON COLUMN oidc.stat.provider IS 'Name of the provider; null where the token named no issuer of the policy';

COMMENT ON COLUMN oidc.stat.outcome IS '''accepted'' or ''refused''';

COMMENT ON COLUMN oidc.stat.reason IS 'Code of the refusal; null where the login was accepted';

COMMENT ON COLUMN oidc.stat.value IS 'How many, or how many bytes';

COMMENT ON FUNCTION oidc.stat_rows() IS 'The rows of oidc.stat';

CREATE OR REPLACE FUNCTION oidc.doctor_workers()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH board AS MATERIALIZED (SELECT * FROM oidc.board_facts()),
        workers AS MATERIALIZED (
            SELECT worker, hired, (SELECT min(pid) FROM pg_stat_activity WHERE backend_type = worker) AS pid
              FROM board, LATERAL (VALUES ('pg_oidc registry', registry_hired), ('pg_oidc keyring', keyring_hired))
                       w (worker, hired)
        ),
        images AS MATERIALIZED (
            SELECT image, what, bytes, capacity,
                   -- Twice the room that the image takes now, rounded up.
                   ceil((SELECT setting::numeric FROM pg_settings s WHERE s.name = 'pg_oidc.shared_memory')
                        / 1024 * bytes / capacity * 2) AS megabytes
              FROM board, LATERAL (VALUES ('policy_size', 'policy takes', policy_bytes, policy_capacity),
                                          ('keyring_size', 'keys take', keyring_bytes, keyring_capacity))
                       i (image, what, bytes, capacity)
        )
        SELECT r.* FROM oidc.check_result('workers', 'fail',
            (SELECT array_agg(CASE WHEN hired THEN format('Worker "%s" is not running.', worker)
                                   ELSE format('Worker "%s" has no slot to run in.', worker) END)
               FROM workers WHERE pid IS NULL),
            (SELECT CASE WHEN bool_and(hired) THEN 'The server starts it again every two seconds; its log says why it ends.'
                         ELSE format('Raise "max_worker_processes" (now %s) and restart the server.',
                                     current_setting('max_worker_processes')) END
               FROM workers),
            (SELECT 'Both run: ' || string_agg(format('%s with pid %s', worker, pid), ', ') || '.' FROM workers)) r
         WHERE EXISTS (SELECT FROM board)
        UNION ALL
        SELECT r.* FROM board, oidc.check_result('policy_published', 'fail',
            CASE WHEN state = 'overflow' THEN ARRAY[
                'The policy is over a limit and is not published: every token is refused.']
            WHEN state = 'absent' THEN ARRAY[
                'The registry worker finds no extension in the policy database: every token is refused.']
            WHEN state = 'starting' THEN ARRAY['No policy was published since the server started.']
            WHEN behind THEN ARRAY['The last committed change is not published yet: logins wait for it, then are refused.']
            END,
            CASE WHEN state = 'overflow' THEN 'See the rows "policy_size", "provider_count", "rule_count" and "pattern_rules".'
                 WHEN state = 'absent' THEN 'Run CREATE EXTENSION pg_oidc in the policy database.'
                 ELSE 'The server log says what the registry worker waits for, such as a lock on a policy table.' END,
            format('Published: %s providers, %s rules.', providers, rules)) r
        UNION ALL
        SELECT r.* FROM images, oidc.check_result(image, CASE WHEN bytes > capacity THEN 'fail' ELSE 'warn' END,
            CASE WHEN bytes * 5 >= capacity * 4 THEN ARRAY[format(
                'The %s %s of the %s bytes that there are.', what, bytes, capacity)] END,
            format('Set "pg_oidc.shared_memory" to %sMB and restart the server.', megabytes),
            format('%s of %s bytes are in use.', bytes, capacity)) r
        UNION ALL
        SELECT r.* FROM board,
            LATERAL (SELECT coalesce(max(value) FILTER (WHERE metric = 'audit_events_dropped'), 0) AS dropped,
                            coalesce(max(value) FILTER (WHERE metric = 'audit_events_waiting'), 0) AS waiting,
                            coalesce(max(value) FILTER (WHERE metric = 'audit_queue_bytes'), 0) * 2
                                >= max(value) FILTER (WHERE metric = 'audit_queue_capacity') AS half_full
                       FROM oidc.stat_rows() WHERE state IS NOT NULL) queue,
            oidc.check_result('audit_queue', 'warn',
            CASE WHEN dropped > 0 THEN ARRAY[format(
                '%s logins since the server started are not in oidc.audit_log, only in the server log.', dropped)] END
            || CASE WHEN half_full THEN ARRAY[format(
                '%s logins wait to be written to oidc.audit_log, which takes half of the room for them.', waiting)] END,
            'The server log says why oidc.audit_log could not be written, or there were more logins than it could take.',
            format('%s logins wait to be written.', waiting)) r
    $$;

COMMENT ON COLUMN oidc.audit_log.facts IS 'Of a login whose token passed the checks of the provider: claims, those that the provider and its rules look at, up to 8 kB. Of a change: token, the provider, subject and identity of the token that opened the session, where one did';

-- What a login of the audit would meet today, at its time and from its place.
CREATE FUNCTION oidc.explain_login(audit_id bigint)
    RETURNS TABLE (step integer, name text, passed text, detail text)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        login record;
    BEGIN
        SELECT a.* INTO login FROM oidc.audit_log a WHERE a.id = audit_id AND a.event = 'login';
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no login with the number % in oidc.audit_log', audit_id
                USING ERRCODE = 'no_data_found';
        ELSIF login.facts->'claims' IS NOT NULL THEN
            RETURN QUERY SELECT e.step, e.name, e.passed, e.detail
              FROM oidc.explain_facts(login.provider, (login.facts->'claims')::text, login.requested_user,
                       login.database, login.client_address,
                       coalesce((login.facts->'replication')::boolean, false), login."time") e;
        ELSE
            RETURN QUERY SELECT 1, 'login'::text, CASE login.outcome WHEN 'refused' THEN 'no' ELSE 'yes' END,
                format('It was %s. No claims were kept: the token did not pass the checks of a provider, or they were too long.',
                       CASE login.outcome WHEN 'refused' THEN 'refused: ' || login.reason ELSE 'accepted' END);
        END IF;
    END
    $$;

COMMENT ON FUNCTION oidc.explain_login(bigint) IS 'Each step that a login of oidc.audit_log would meet with the policy of today, at its time';

COMMENT ON FUNCTION oidc.explain_facts(text, text, text, text, inet, boolean, timestamptz) IS 'The rows of oidc.explain_login';

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
                  FROM pg_catalog.pg_class c
                 WHERE c.oid IN ('oidc.session'::pg_catalog.regclass, 'oidc.stat'::pg_catalog.regclass)
                UNION ALL
                SELECT 'FUNCTION ' || p.oid::pg_catalog.regprocedure::text,
                       coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), p.proowner
                  FROM pg_catalog.pg_proc p
                 WHERE p.pronamespace = 'oidc'::pg_catalog.regnamespace
                   AND p.proname IN (
                                'end_identity', 'end_sessions', 'explain_facts', 'explain_login', 'reinstate', 'revoke',
                                'session_rows', 'stat_rows')) n,
               pg_catalog.aclexplode(n.acl) a
         WHERE a.grantee <> n.owner
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;
