-- From 0.3.0 to 0.4.0: sessions that end, revocation; people with roles of their own; logins in the audit table, figures.

-- Providers that are there keep what they have.
ALTER TABLE oidc.provider ALTER COLUMN session_limit SET DEFAULT '8 hours';

-- These tables take rows now.
DROP TRIGGER refuse_change ON oidc.revocation;
DROP TRIGGER refuse_change ON oidc.identity_role;
DROP TRIGGER refuse_change ON oidc.granted_membership;
DROP FUNCTION oidc.refuse_change();
ALTER TABLE oidc.revocation ADD COLUMN role_locked boolean NOT NULL DEFAULT false;
ALTER TABLE oidc.identity_role ADD COLUMN role_oid oid;
ALTER TABLE oidc.granted_membership ADD COLUMN role_oid oid, ADD COLUMN member_oid oid;

COMMENT ON COLUMN oidc.provider.identity_pattern IS 'Regular expression, anchored at both ends, for identities that have a role of their own; null: only those that are bound in oidc.identity_role have one';

COMMENT ON COLUMN oidc.provider.identity_role IS 'Name of a person''s own role; \1 in it is what group 1 of identity_pattern matched';

COMMENT ON COLUMN oidc.provider.session_limit IS 'When sessions end: an interval after the login, ''token'' (with the token), ''none'' (never by time)';

COMMENT ON COLUMN oidc.provider.auto_provision IS 'True: a person''s own role is made when she first logs in; false: only roles that are bound in oidc.identity_role let persons in';

COMMENT ON COLUMN oidc.provider.base_role IS 'A role that every person''s own role is made a member of, to carry CONNECT (from PostgreSQL 16 on, where it is inherited); null: none';

COMMENT ON COLUMN oidc.role_mapping.session_limit IS 'As the provider''s; the tighter of the two holds; null: the provider''s';

COMMENT ON TABLE oidc.revocation IS 'Identities whose tokens are refused; written by oidc.revoke, oidc.reinstate and oidc.end_sessions';

COMMENT ON COLUMN oidc.revocation.provider IS 'The provider of the identity';

COMMENT ON COLUMN oidc.revocation.subject IS 'The claim "sub" of the identity';

COMMENT ON COLUMN oidc.revocation.reason IS 'Why';

COMMENT ON COLUMN oidc.revocation.until IS 'Every token is refused until then; in the past: none for this';

COMMENT ON COLUMN oidc.revocation.tokens_before IS 'Tokens issued until then are refused, and those without iat; null: none for this';

COMMENT ON COLUMN oidc.revocation.created_by IS 'Who revoked it';

COMMENT ON COLUMN oidc.revocation.created_at IS 'When';

COMMENT ON COLUMN oidc.revocation.role_locked IS 'The person''s own role, made by pg_oidc, was set NOLOGIN for this; it is set LOGIN again when the revocation ends';

COMMENT ON TABLE oidc.identity_role IS 'Which person has which role of her own: only she logs in with it. Rows of the administrator bind roles that exist';

COMMENT ON COLUMN oidc.identity_role.provider IS 'The provider of the identity';

COMMENT ON COLUMN oidc.identity_role.subject IS 'The claim "sub" of the identity';

COMMENT ON COLUMN oidc.identity_role.role IS 'Her own role';

COMMENT ON COLUMN oidc.identity_role.made_by_us IS 'The role was made by pg_oidc, at her first login';

COMMENT ON COLUMN oidc.identity_role.last_login IS 'When she last logged in, to the hour; null: never, or not since a restore';

COMMENT ON COLUMN oidc.identity_role.role_oid IS 'The role''s oid when the row was written, kept by a trigger: a role made anew under the same name is not hers';

COMMENT ON TABLE oidc.granted_membership IS 'Memberships that pg_oidc granted to people''s own roles, and takes away when no rule gives them any more. A membership that is not here was granted by somebody else';

COMMENT ON COLUMN oidc.granted_membership.role IS 'The role that was granted';

COMMENT ON COLUMN oidc.granted_membership.member IS 'The person''s own role';

COMMENT ON COLUMN oidc.granted_membership.keep IS 'True: it is never taken away; sessions may use it only if their token gives the role';

COMMENT ON COLUMN oidc.granted_membership.granted_at IS 'When it was granted';

COMMENT ON COLUMN oidc.granted_membership.role_oid IS 'The oid of the role when the row was written, kept by a trigger';

COMMENT ON COLUMN oidc.granted_membership.member_oid IS 'The oid of the member when the row was written, kept by a trigger';

CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE ON oidc.revocation
    FOR EACH ROW EXECUTE FUNCTION oidc.policy_changed();

ALTER TABLE oidc.revocation ENABLE ALWAYS TRIGGER policy_changed;

CREATE TRIGGER policy_truncated AFTER TRUNCATE ON oidc.revocation
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.policy_changed();

ALTER TABLE oidc.revocation ENABLE ALWAYS TRIGGER policy_truncated;

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

COMMENT ON COLUMN oidc.stat.metric IS '''logins'', ''password_logins'' (those by pg_oidc.password_fallback, without a provider), or another figure, which has neither provider nor outcome nor reason';

COMMENT ON COLUMN oidc.stat.provider IS 'Name of the provider; null where the token named no issuer of the policy';

COMMENT ON COLUMN oidc.stat.outcome IS '''accepted'' or ''refused'', by pg_oidc; ''failed'': accepted, and then not let in by the server itself';

COMMENT ON COLUMN oidc.stat.reason IS 'Code of the refusal, or ''turned_away'' of a login that failed; null where the login was accepted';

COMMENT ON COLUMN oidc.stat.value IS 'How many, or how many bytes';

COMMENT ON FUNCTION oidc.stat_rows() IS 'The rows of oidc.stat';

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

-- SECURITY DEFINER: what it looks at is only for superusers, and so is this function until EXECUTE is granted to
-- somebody, who then sees its answer and nothing else. It takes no argument, and writes nothing.
CREATE OR REPLACE FUNCTION oidc.doctor()
    RETURNS TABLE (name text, status text, detail text, hint text)
    -- Compiling these queries takes longer than running them.
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
    DECLARE
        part text;
        parts text[] := '{library,workers,hba,hba_lines}';
    BEGIN
        -- In another database there are the same tables, but nobody acts on them.
        IF NOT oidc.is_preloaded() OR current_database() = current_setting('pg_oidc.database') THEN
            parts := parts || '{tables,providers,keys,rules,rule_roles,rule_matches,people}'::text[];
        END IF;
        FOREACH part IN ARRAY parts LOOP
            -- One part that cannot be looked at must not hide the others.
            BEGIN
                RETURN QUERY EXECUTE format('SELECT * FROM oidc.doctor_%s()', part);
            EXCEPTION WHEN OTHERS THEN
                RETURN QUERY SELECT part, 'fail', format('This could not be checked: %s.', SQLERRM),
                                    'Mend that, then call oidc.doctor() again.';
            END;
        END LOOP;
    END
    $$;

COMMENT ON FUNCTION oidc.doctor() IS 'Checks of the server, its HBA files, the workers, the keys, the rules and people''s own roles: ok, warn or fail, and what to do';

-- The checks of the server: library, workers, what is published, settings, HBA files. They need no policy.
CREATE OR REPLACE FUNCTION oidc.doctor_library()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH facts AS MATERIALIZED (
            SELECT oidc.is_preloaded() AS preloaded,
                   oidc.library_version() AS library,
                   (SELECT extversion FROM pg_extension WHERE extname = 'pg_oidc') AS extension,
                   (SELECT default_version FROM pg_available_extensions a WHERE a.name = 'pg_oidc') AS installed,
                   coalesce(current_setting('pg_oidc.database', true), '') AS policy_database,
                   current_setting('pg_oidc.allow_http', true) AS allow_http,
                   current_setting('pg_oidc.password_fallback', true) AS password_fallback,
                   (SELECT setting::bigint FROM pg_settings s WHERE s.name = 'pg_oidc.wait_timeout') AS wait_ms,
                   (SELECT setting::bigint * 1000 FROM pg_settings s WHERE s.name = 'authentication_timeout') AS login_ms
        )
        SELECT r.* FROM facts, oidc.check_result('library_preloaded', 'fail',
            CASE WHEN NOT preloaded THEN ARRAY[
                'The library is not preloaded: no token is accepted, and the guarded HBA file is not in use.'] END,
            'Add pg_oidc to "shared_preload_libraries" in postgresql.conf and restart the server.',
            'The library is preloaded.') r
        UNION ALL
        SELECT r.* FROM facts, oidc.check_result('library_version', 'fail',
            CASE WHEN installed <> library THEN ARRAY[format(
                'Version %s is installed, but the server still runs the library of version %s.', installed, library)]
            WHEN extension <> library THEN ARRAY[format(
                'The extension in database "%s" is of version %s, the library of version %s.',
                current_database(), extension, library)] END,
            CASE WHEN installed <> library THEN 'Restart the server, then run ALTER EXTENSION pg_oidc UPDATE.'
                 ELSE 'Run ALTER EXTENSION pg_oidc UPDATE.' END,
            format('Library and extension are of version %s.', library)) r
        UNION ALL
        SELECT r.* FROM facts, oidc.check_result('policy_database', 'fail',
            CASE WHEN NOT EXISTS (SELECT FROM pg_database WHERE datname = policy_database) THEN ARRAY[format(
                'Database "%s", which is to hold the policy, does not exist.', policy_database)]
            WHEN policy_database <> current_database() THEN ARRAY[format(
                'This is database "%s", the policy is in "%s": providers and rules are not checked here.',
                current_database(), policy_database)] END,
            CASE WHEN NOT EXISTS (SELECT FROM pg_database WHERE datname = policy_database)
                 THEN 'Create it and the extension in it, or change "pg_oidc.database" and restart the server.'
                 ELSE format('Connect to "%s" and call oidc.doctor() there.', policy_database) END,
            format('The policy is in this database, "%s".', policy_database)) r
         WHERE preloaded
        UNION ALL
        SELECT r.* FROM facts, oidc.check_result('wait_timeout', 'warn',
            CASE WHEN wait_ms * 2 > login_ms THEN ARRAY[format(
                '"pg_oidc.wait_timeout" is %s ms; only half of authentication_timeout, %s ms, counts.',
                wait_ms, login_ms / 2)] END,
            'Lower "pg_oidc.wait_timeout", or raise "authentication_timeout".',
            format('A login waits %s ms at most for policy or keys.', wait_ms)) r
         WHERE preloaded
        UNION ALL
        SELECT r.* FROM facts, oidc.check_result('allow_http', 'warn',
            CASE WHEN allow_http = 'on' THEN ARRAY[
                'Keys of issuers on the loopback interface may be fetched without TLS.'] END,
            'Set "pg_oidc.allow_http" to off and restart the server; on is for tests.',
            'Keys are fetched over https only.') r
         WHERE preloaded
        UNION ALL
        SELECT r.* FROM facts, oidc.check_result('password_fallback', 'warn',
            CASE WHEN password_fallback = 'on' THEN ARRAY[
                'Where a token is asked for, the stored password of a role opens a session too, whatever the policy says.'] END,
            'Set "pg_oidc.password_fallback" to off and reload the server once everybody comes with a token.',
            'Stored passwords are not accepted where a token is asked for.') r
         WHERE preloaded
    $$;

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

-- 18 keeps the plan of a function for the whole session: one made for a few rules, with nested loops, would take minutes
-- for many. Hence no nested loops where rules are joined with rules.
-- A role that is derived from the token (\1) is looked up at each login, so nothing can be said of it here.
CREATE OR REPLACE FUNCTION oidc.doctor_rule_roles()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_nestloop = off
    AS $$
        WITH rules AS MATERIALIZED (
            SELECT m.id, m.role, m.role_oid, m.allow_privileged, m.databases, m.replication,
                   -- People who come in as themselves are given it without a login of its own.
                   r.oid IS NOT NULL AND (NOT r.rolcanlogin OR r.rolvaliduntil <= now())
                       AND EXISTS (SELECT FROM oidc.provider p
                                    WHERE p.name = m.provider
                                      AND (p.auto_provision
                                           OR EXISTS (SELECT FROM oidc.identity_role i WHERE i.provider = p.name))) AS for_people
              FROM oidc.role_mapping m LEFT JOIN pg_roles r ON r.oid = m.role_oid AND r.rolname = m.role
             WHERE m.enabled AND m.effect = 'allow' AND position(E'\\1' IN m.role) = 0
        ),
        -- Each role once, however many rules give it. 0: the role was missing when the rule was written.
        roles AS MATERIALIZED (
            SELECT role, coalesce(role_oid, 0) AS role_oid, allow_privileged, for_people,
                   CASE WHEN NOT for_people THEN oidc.role_problem(role, role_oid, allow_privileged)
                        WHEN NOT allow_privileged THEN 'The role is privileged, and the rule does not say allow_privileged. The '
                                                       || oidc.role_privilege(role) || '.' END AS problem,
                   CASE WHEN allow_privileged THEN oidc.role_privilege(role) END AS power
              FROM rules GROUP BY role, role_oid, allow_privileged, for_people
        ),
        told AS MATERIALIZED (
            SELECT m.id, m.role, problem, m.allow_privileged, power
              FROM (SELECT * FROM roles WHERE problem IS NOT NULL OR allow_privileged) p
              JOIN rules m ON m.role = p.role AND coalesce(m.role_oid, 0) = p.role_oid
                          AND m.allow_privileged = p.allow_privileged AND m.for_people = p.for_people
        ),
        -- Physical replication needs no database.
        places AS MATERIALIZED (
            SELECT role_oid, databases, role, array_agg(id) AS ids
              FROM rules
             WHERE NOT (replication AND databases IS NULL) AND NOT for_people AND role_oid IN (SELECT oid FROM pg_roles)
             GROUP BY role_oid, databases, role
        ),
        closed AS MATERIALIZED (
            SELECT * FROM places p
             WHERE NOT EXISTS (SELECT FROM pg_database d
                                WHERE d.datallowconn AND (p.databases IS NULL OR d.datname = ANY (p.databases))
                                  AND has_database_privilege(p.role_oid, d.oid, 'CONNECT'))
        )
        SELECT r.* FROM oidc.check_result('rule_roles', 'fail',
            (SELECT array_agg(format('Rule %s gives nothing, for role "%s": %s', id, role, problem) ORDER BY id)
               FROM told WHERE problem IS NOT NULL),
            'Mend the role, then write the rule again: UPDATE oidc.role_mapping SET role = role WHERE id = …',
            'Every role that a rule gives is there and may log in.') r
        UNION ALL
        SELECT r.* FROM oidc.check_result('rule_privileges', 'warn',
            (SELECT array_agg(CASE
                WHEN power IS NULL THEN format('Rule %s says allow_privileged, which role "%s" does not need.', id, role)
                ELSE format('Rule %s gives a privileged role: %s.', id, power) END ORDER BY id)
               FROM told WHERE allow_privileged AND problem IS NULL),
            'Set "allow_privileged" to false, unless a token is really to open such a session.',
            'No rule gives a privileged role.') r
        UNION ALL
        SELECT r.* FROM oidc.check_result('rule_connect', 'fail',
            (SELECT array_agg(format('Rule %s gives nothing: role "%s" has CONNECT on none of its databases.', id, role)
                              ORDER BY id)
               FROM closed, unnest(ids) id),
            'GRANT CONNECT ON DATABASE … to the role.',
            'Every role that a rule gives may connect to a database of the rule.') r
    $$;

CREATE OR REPLACE FUNCTION oidc.doctor_rule_matches()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_nestloop = off
    AS $$
        WITH rules AS MATERIALIZED (SELECT * FROM oidc.role_mapping WHERE enabled),
        -- What an operator object says, in a member itself or in its "any"; under "not" it narrows the rule.
        patterns AS MATERIALIZED (
            SELECT m.id, kind, found #>> '{}' AS pattern
              FROM rules m, LATERAL (VALUES ('regex', jsonb_path_query_array(m.match, '$.*.regex')
                                                       || jsonb_path_query_array(m.match, '$.*.any[*].regex')),
                                            ('glob', jsonb_path_query_array(m.match, '$.*.glob')
                                                      || jsonb_path_query_array(m.match, '$.*.any[*].glob')))
                                      v (kind, list), jsonb_array_elements(list) found
             WHERE m.effect = 'allow' AND m.match::text ~ '"(regex|glob)":'
        ),
        repeats AS MATERIALIZED (
            SELECT (min(ARRAY[priority, id]))[2] AS first, array_agg(id) AS ids
              FROM rules
             GROUP BY provider, match, role, effect, databases, replication, addresses, valid_from, valid_until
            HAVING count(*) > 1
        )
        SELECT r.* FROM oidc.check_result('open_patterns', 'warn',
            (SELECT array_agg(format('Rule %s: %s "%s" fits whatever stands around it.', id, kind, pattern) ORDER BY id, kind, pattern)
               FROM patterns
              WHERE kind = 'regex' AND pattern ~ E'^[\\^(?:]*\\.[*+]' AND pattern ~ E'\\.[*+][?)$]*$'
                 OR kind = 'glob' AND (pattern ~ E'^\\*+$' OR pattern ~ E'^\\*\\*.*\\*\\*$')),
            'Write out the part that must be there at the beginning or at the end; {"exists": true} says "any value".',
            'Every pattern holds a value at its beginning or its end.') r
        UNION ALL
        SELECT r.* FROM oidc.check_result('repeated_rules', 'warn',
            (SELECT array_agg(format('Rule %s never decides: rule %s says the same and comes first.', id, first) ORDER BY id)
               FROM repeats, unnest(ids) id WHERE id <> first),
            'Delete one of the two.',
            'No rule says what an earlier one says.') r
        UNION ALL
        SELECT r.* FROM oidc.check_result('denied_rules', 'warn',
            (SELECT array_agg(format('Rule %s allows just what rule %s denies.', a.id, d.id) ORDER BY a.id, d.id)
               FROM rules a JOIN rules d ON d.provider = a.provider AND d.match = a.match
              WHERE a.effect = 'allow' AND d.effect = 'deny'),
            'A rule that denies always wins: delete one of the two, or limit the one that denies.',
            'No rule allows just what another denies.') r
        UNION ALL
        SELECT r.* FROM oidc.check_result('deny_all', 'warn',
            (SELECT array_agg(format('Rule %s matches every token of provider "%s" and denies.', id, provider) ORDER BY id)
               FROM rules WHERE effect = 'deny' AND match = '{}'),
            'If that is meant for good, disable the provider: UPDATE oidc.provider SET enabled = false WHERE name = …',
            'No rule denies everybody.') r
    $$;

-- Every change of the policy is an event, written in the transaction of the change; every login is one, written by the
-- registry worker soon after, and so is what becomes of keys.
COMMENT ON TABLE oidc.audit_log IS 'Logins, accepted, refused and failed, sessions that were ended, changes of providers, rules and revocations, and what became of the providers'' keys. Only superusers may change it; rows older than "pg_oidc.audit_retention" are deleted';

COMMENT ON COLUMN oidc.audit_log.event IS '''login'', ''password_login'' (see pg_oidc.password_fallback), ''session_end''; ''keys_changed'', ''keys_failed'' (the first failure in a row), ''keys_recovered'', ''keys_leaked''; or provider_, rule_ or revocation_ and created, changed, deleted or truncated (one event for a TRUNCATE, without rows)';

COMMENT ON COLUMN oidc.audit_log.outcome IS '''accepted'', ''refused'' or, after it was accepted, ''failed'' for a login, ''ended'' for a session, ''done'' for the others';

COMMENT ON COLUMN oidc.audit_log.reason IS 'Why a login was refused or a session was ended, as in the server log; ''turned_away'' for a login that the server itself did not let in after all; why keys could not be fetched, or must not be in a key set';

COMMENT ON COLUMN oidc.audit_log.provider IS 'The provider, or the provider of the rule, revocation or keys; null for a login whose token names no issuer of the policy';

COMMENT ON COLUMN oidc.audit_log.subject IS 'The claim "sub" of a token whose signature was verified; the subject of the revocation';

COMMENT ON COLUMN oidc.audit_log.identity IS 'The identity of a token whose signature was verified';

COMMENT ON COLUMN oidc.audit_log.requested_user IS 'The user that the client asked for';

COMMENT ON COLUMN oidc.audit_log.role IS 'The role of an accepted login, or of the rule';

COMMENT ON COLUMN oidc.audit_log.rule_id IS 'The rule that gave the role or denied the login; the id of the changed rule';

COMMENT ON COLUMN oidc.audit_log.database IS 'The database of the session, or that the client asked for';

COMMENT ON COLUMN oidc.audit_log.tls IS 'Whether the connection is encrypted by TLS';

COMMENT ON COLUMN oidc.audit_log.kid IS 'The provider''s key that fits the token, by its "kid"';

COMMENT ON COLUMN oidc.audit_log.token_id IS 'Which token it was, once its signature was verified: the claim "jti", else a hash of the token that is the same in this cluster only';

COMMENT ON COLUMN oidc.audit_log.pid IS 'The process of the session, or that refused it, or that fetched the keys';

COMMENT ON COLUMN oidc.audit_log.before IS 'The row before the change; the "kid" of each usable key before it';

COMMENT ON COLUMN oidc.audit_log.after IS 'The row after the change; the "kid" of each usable key after it, or of those that must not be in a key set';

COMMENT ON COLUMN oidc.audit_log.facts IS 'Of a login whose token passed the checks of the provider: claims, those that the provider and its rules look at, up to 8 kB. Of a change: token, the provider, subject and identity of the token that opened the session, where one did. Of keys_failed: detail, what failed in words';

-- People's own roles. The registry worker makes them and grants them what the rules give; administrators bind roles that
-- exist. Names are text: a longer one than a role can have is refused instead of cut.
CREATE FUNCTION oidc.role_oid(role text) RETURNS oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT CASE WHEN octet_length($1) < 64 THEN to_regrole(quote_ident($1)) END::oid $$;

COMMENT ON FUNCTION oidc.role_oid(text) IS 'The oid of a role; null where there is none of that name';

CREATE FUNCTION oidc.check_binding() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF NEW.provider IS NULL OR NEW.subject IS NULL OR NEW.role IS NULL THEN
            RETURN NEW;
        ELSIF octet_length(NEW.role) NOT BETWEEN 1 AND 63 THEN
            RAISE EXCEPTION '"role" must have 1 to 63 bytes' USING ERRCODE = 'check_violation';
        ELSIF NEW.role IN ('public', 'none') OR NEW.role LIKE 'pg\_%' THEN
            RAISE EXCEPTION 'role name "%" is reserved', NEW.role USING ERRCODE = 'check_violation';
        ELSIF NEW.subject = '' OR octet_length(NEW.subject) > 2048 THEN
            RAISE EXCEPTION '"subject" must have 1 to 2048 bytes' USING ERRCODE = 'check_violation',
                HINT = 'It is the claim "sub" of the identity.';
        END IF;
        NEW.role_oid := oidc.role_oid(NEW.role);
        IF NEW.role_oid IS NULL THEN
            RAISE WARNING 'role "%" does not exist', NEW.role USING ERRCODE = 'undefined_object',
                DETAIL = 'Nobody logs in with it until the role exists and the row is written again.';
        END IF;
        RETURN NEW;
    END
    $$;

COMMENT ON FUNCTION oidc.check_binding() IS 'Trigger: keeps the oid of a person''s own role';

CREATE FUNCTION oidc.check_membership() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        NEW.role_oid := oidc.role_oid(NEW.role);
        NEW.member_oid := oidc.role_oid(NEW.member);
        RETURN NEW;
    END
    $$;

COMMENT ON FUNCTION oidc.check_membership() IS 'Trigger: keeps the oids of a granted membership';

-- When a person last logged in changes nothing that counts, and is no event.
CREATE TRIGGER check_row BEFORE INSERT OR UPDATE OF role, role_oid, subject ON oidc.identity_role
    FOR EACH ROW EXECUTE FUNCTION oidc.check_binding();

ALTER TABLE oidc.identity_role ENABLE ALWAYS TRIGGER check_row;

CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OF provider, subject, role, role_oid OR DELETE ON oidc.identity_role
    FOR EACH ROW EXECUTE FUNCTION oidc.policy_changed();

ALTER TABLE oidc.identity_role ENABLE ALWAYS TRIGGER policy_changed;

CREATE TRIGGER policy_truncated AFTER TRUNCATE ON oidc.identity_role
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.policy_changed();

ALTER TABLE oidc.identity_role ENABLE ALWAYS TRIGGER policy_truncated;

CREATE TRIGGER audit AFTER INSERT OR UPDATE OF provider, subject, role, role_oid, made_by_us OR DELETE ON oidc.identity_role
    FOR EACH ROW EXECUTE FUNCTION oidc.audit_change();

ALTER TABLE oidc.identity_role ENABLE ALWAYS TRIGGER audit;

CREATE TRIGGER audit_truncate AFTER TRUNCATE ON oidc.identity_role
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.audit_change();

ALTER TABLE oidc.identity_role ENABLE ALWAYS TRIGGER audit_truncate;

CREATE TRIGGER check_row BEFORE INSERT OR UPDATE OF role, member, role_oid, member_oid ON oidc.granted_membership
    FOR EACH ROW EXECUTE FUNCTION oidc.check_membership();

ALTER TABLE oidc.granted_membership ENABLE ALWAYS TRIGGER check_row;

CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OF role, member, role_oid, member_oid OR DELETE ON oidc.granted_membership
    FOR EACH ROW EXECUTE FUNCTION oidc.policy_changed();

ALTER TABLE oidc.granted_membership ENABLE ALWAYS TRIGGER policy_changed;

CREATE TRIGGER policy_truncated AFTER TRUNCATE ON oidc.granted_membership
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.policy_changed();

ALTER TABLE oidc.granted_membership ENABLE ALWAYS TRIGGER policy_truncated;

CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON oidc.granted_membership
    FOR EACH ROW EXECUTE FUNCTION oidc.audit_change();

ALTER TABLE oidc.granted_membership ENABLE ALWAYS TRIGGER audit;

CREATE TRIGGER audit_truncate AFTER TRUNCATE ON oidc.granted_membership
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.audit_change();

ALTER TABLE oidc.granted_membership ENABLE ALWAYS TRIGGER audit_truncate;

-- A revoked person's own role, if pg_oidc made it, cannot log in by any other way either. Only what was locked for a
-- revocation is unlocked with it. Only superusers and oidc.revoke() get here. A row that comes from a dump says what was
-- locked there.
CREATE FUNCTION oidc.lock_role() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        locks CONSTANT boolean := TG_OP <> 'DELETE' AND NEW.until > clock_timestamp();
        unlocks CONSTANT boolean := NOT locks AND CASE TG_OP WHEN 'INSERT' THEN NEW.role_locked ELSE OLD.role_locked END;
        own text;
    BEGIN
        -- Where INSERT … ON CONFLICT finds a row, the trigger comes again for the UPDATE.
        IF TG_OP = 'INSERT' AND EXISTS (SELECT FROM oidc.revocation r
                                         WHERE (r.provider, r.subject) = (NEW.provider, NEW.subject)) THEN
            RETURN NEW;
        END IF;
        IF locks OR unlocks THEN
            SELECT r.rolname INTO own FROM oidc.identity_role i JOIN pg_roles r ON r.oid = i.role_oid
             WHERE i.made_by_us AND r.rolcanlogin = locks
               AND i.provider = CASE TG_OP WHEN 'DELETE' THEN OLD.provider ELSE NEW.provider END
               AND i.subject = CASE TG_OP WHEN 'DELETE' THEN OLD.subject ELSE NEW.subject END;
            IF own IS NOT NULL THEN
                EXECUTE format('ALTER ROLE %I %s', own, CASE WHEN locks THEN 'NOLOGIN' ELSE 'LOGIN' END);
            END IF;
        END IF;
        IF TG_OP = 'DELETE' THEN
            RETURN OLD;
        END IF;
        NEW.role_locked := locks AND (NEW.role_locked OR own IS NOT NULL);
        RETURN NEW;
    END
    $$;

COMMENT ON FUNCTION oidc.lock_role() IS 'Trigger: sets the own role of a revoked person NOLOGIN, and LOGIN again afterwards';

CREATE TRIGGER lock_role BEFORE INSERT OR UPDATE OR DELETE ON oidc.revocation
    FOR EACH ROW EXECUTE FUNCTION oidc.lock_role();

ALTER TABLE oidc.revocation ENABLE ALWAYS TRIGGER lock_role;

-- TRUNCATE takes all revocations back.
CREATE FUNCTION oidc.unlock_roles() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        own text;
    BEGIN
        FOR own IN SELECT a.rolname FROM oidc.revocation v JOIN oidc.identity_role i USING (provider, subject)
                     JOIN pg_roles a ON a.oid = i.role_oid
                    WHERE v.role_locked AND i.made_by_us AND NOT a.rolcanlogin
        LOOP
            EXECUTE format('ALTER ROLE %I LOGIN', own);
        END LOOP;
        RETURN NULL;
    END
    $$;

COMMENT ON FUNCTION oidc.unlock_roles() IS 'Trigger: sets the own roles that were locked for revocations LOGIN again';

CREATE TRIGGER unlock_roles BEFORE TRUNCATE ON oidc.revocation
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.unlock_roles();

ALTER TABLE oidc.revocation ENABLE ALWAYS TRIGGER unlock_roles;

-- Own roles of people who have not come for that long: those that own nothing and have no rights anywhere are dropped,
-- the others can no longer log in.
CREATE FUNCTION oidc.prune_identities(older_than interval, dry_run boolean DEFAULT false)
    RETURNS TABLE (provider text, subject text, role text, last_login timestamptz, action text)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        known record;
    BEGIN
        IF older_than IS NULL OR older_than < '0' THEN
            RAISE invalid_parameter_value USING MESSAGE = '"older_than" must be an interval that is not negative';
        END IF;
        FOR known IN
            SELECT i.provider, i.subject, r.rolname, r.oid, i.last_login, r.rolcanlogin,
                   NOT EXISTS (SELECT FROM pg_shdepend d
                                WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid) AS bare
              FROM oidc.identity_role i JOIN pg_roles r ON r.oid = i.role_oid
             WHERE i.made_by_us AND coalesce(i.last_login, '-infinity') <= now() - older_than
               AND NOT EXISTS (SELECT FROM oidc.session s WHERE (s.provider, s.subject) = (i.provider, i.subject))
               AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.usesysid = r.oid)
             ORDER BY i.provider, i.subject
        LOOP
            provider := known.provider;
            subject := known.subject;
            role := known.rolname;
            last_login := known.last_login;
            IF known.bare THEN
                action := 'drop';
                IF NOT dry_run THEN
                    DELETE FROM oidc.granted_membership g WHERE g.member_oid = known.oid;
                    DELETE FROM oidc.identity_role i WHERE (i.provider, i.subject) = (known.provider, known.subject);
                    EXECUTE format('DROP ROLE %I', known.rolname);
                END IF;
            ELSIF known.rolcanlogin THEN
                action := 'nologin';
                IF NOT dry_run THEN
                    EXECUTE format('ALTER ROLE %I NOLOGIN', known.rolname);
                END IF;
            ELSE
                CONTINUE;
            END IF;
            RETURN NEXT;
        END LOOP;
    END
    $$;

COMMENT ON FUNCTION oidc.prune_identities(interval, boolean) IS 'Drops the own roles, made by pg_oidc, of people who have not logged in for that long and that own nothing; others are set NOLOGIN until an administrator sets them LOGIN. With dry_run: only says so';

-- The checks of people's own roles, of what they are bound to and of what they were granted.
-- Joins without nested loops, as the checks of the rules have them.
CREATE FUNCTION oidc.doctor_people()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_nestloop = off
    AS $$
        WITH persons AS MATERIALIZED (
            SELECT i.provider, i.subject, i.role, a.oid, a.rolname, a.rolsuper, a.rolcreaterole, a.rolreplication,
                   a.rolbypassrls, a.rolinherit, a.rolpassword IS NOT NULL AS has_password
              FROM oidc.identity_role i LEFT JOIN pg_authid a ON a.oid = i.role_oid
        ),
        -- Those through which people come in as themselves.
        providers AS MATERIALIZED (
            SELECT p.name, p.auto_provision, p.base_role, oidc.role_oid(p.base_role) AS base_oid
              FROM oidc.provider p
             WHERE p.enabled AND (p.auto_provision OR p.name IN (SELECT provider FROM persons))
        ),
        rules AS MATERIALIZED (
            SELECT m.id, m.provider, m.role, m.role_oid, m.databases, m.allow_privileged
              FROM oidc.role_mapping m WHERE m.enabled AND m.effect = 'allow' AND NOT m.replication
        ),
        given AS MATERIALIZED (
            SELECT a.oid, a.rolname, a.rolconnlimit, a.rolvaliduntil, a.rolpassword IS NOT NULL AS has_password, m.id,
                   m.provider IN (SELECT p.name FROM providers p) AS to_people
              FROM rules m JOIN oidc.provider p ON p.name = m.provider AND p.enabled JOIN pg_authid a ON a.oid = m.role_oid
        ),
        -- What a person's role could do, granted by others than pg_oidc. The last column: no rule means it to be so.
        powers AS MATERIALIZED (
            SELECT rolname, subject, power, provider NOT IN (SELECT provider FROM rules WHERE allow_privileged) AS unmeant
              FROM persons n, LATERAL (
                VALUES (CASE WHEN rolsuper THEN 'it is a superuser' END),
                       (CASE WHEN rolcreaterole THEN 'it has CREATEROLE' END),
                       (CASE WHEN rolreplication THEN 'it has REPLICATION' END),
                       (CASE WHEN rolbypassrls THEN 'it has BYPASSRLS' END),
                       (CASE WHEN EXISTS (SELECT FROM pg_database d WHERE d.datdba = n.oid
                                             AND d.datname = current_setting('pg_oidc.database', true))
                             THEN 'it owns the policy database' END)) own (power)
             WHERE power IS NOT NULL
            UNION
            SELECT n.rolname, n.subject, power, n.provider NOT IN (SELECT provider FROM rules WHERE allow_privileged)
              FROM persons n JOIN pg_auth_members m ON m.member = n.oid JOIN pg_authid r ON r.oid = m.roleid,
                   LATERAL oidc.role_privilege(r.rolname) power
             WHERE power IS NOT NULL
               AND NOT EXISTS (SELECT FROM oidc.granted_membership g WHERE g.role_oid = m.roleid AND g.member_oid = m.member)
            UNION
            -- From 16 on each membership says for itself whether it is inherited.
            SELECT rolname, subject, 'it inherits, so that she would have more than her token gives, and is refused', true
              FROM persons WHERE rolinherit AND current_setting('server_version_num')::integer < 160000
        ),
        bases AS MATERIALIZED (
            SELECT p.name, p.base_role, p.base_oid, oidc.role_privilege(p.base_role) AS power
              FROM providers p WHERE p.base_role IS NOT NULL
        ),
        -- Databases into which the rights of PUBLIC let nobody, and neither does the base role.
        closed AS MATERIALIZED (
            SELECT p.name, p.auto_provision, d.oid, d.datname
              FROM providers p, pg_database d
             WHERE d.datallowconn AND NOT d.datistemplate
               AND NOT EXISTS (SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                                WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT')
               AND NOT (current_setting('server_version_num')::integer >= 160000 AND p.base_oid IS NOT NULL
                        AND coalesce(has_database_privilege(p.base_oid, d.oid, 'CONNECT'), false))
               AND EXISTS (SELECT FROM rules m
                            WHERE m.provider = p.name AND (m.databases IS NULL OR d.datname = ANY (m.databases)))
        )
        SELECT r.* FROM oidc.check_result('token_passwords', 'fail',
            (SELECT array_agg(sentence ORDER BY sentence)
               FROM (SELECT format('Role "%s", which rule %s gives, has a password.', rolname, min(id)) AS sentence
                       FROM given
                      -- For the time of a migration both are meant to work.
                      WHERE has_password AND current_setting('pg_oidc.password_fallback', true) IS DISTINCT FROM 'on'
                      GROUP BY rolname
                     UNION ALL
                     SELECT format('Role "%s", the own role of "%s", has a password.', rolname, subject)
                       FROM persons WHERE has_password) found),
            'It is a way in without a token: ALTER ROLE … PASSWORD NULL.',
            'No role that a token opens has a password.') r
        UNION ALL
        SELECT r.* FROM oidc.check_result('person_privileges',
            (SELECT CASE WHEN bool_or(unmeant) THEN 'fail' ELSE 'warn' END FROM powers),
            (SELECT array_agg(format('Role "%s", the own role of "%s", is privileged: %s.', rolname, subject, power)
                              ORDER BY rolname, power) FROM powers),
            'A person''s own role needs LOGIN and NOINHERIT, and nothing else: what she may do is for the roles that rules give.',
            'No person''s own role is privileged.') r
        UNION ALL
        SELECT r.* FROM oidc.check_result('person_bindings', 'fail',
            (SELECT array_agg(CASE
                WHEN rolname <> role THEN format('Role "%s", the own role of "%s", is now called "%s": she is refused.',
                                                 role, subject, rolname)
                WHEN rolname IS NULL AND oidc.role_oid(role) IS NULL THEN format(
                    'Role "%s", the own role of "%s", does not exist: she is refused.', role, subject)
                ELSE format('Role "%s", the own role of "%s", was made anew since: she is refused.', role, subject) END
                              ORDER BY role)
               FROM persons WHERE rolname IS DISTINCT FROM role),
            'Write the row of oidc.identity_role again with a role that is hers, or delete it.',
            (SELECT format('%s people have a role of their own.', count(*)) FROM persons)) r
        UNION ALL
        SELECT r.* FROM oidc.check_result('person_rules', 'fail',
            (SELECT array_agg(format('Rule %s gives nothing: role "%s" is the own role of "%s".', m.id, n.role, n.subject)
                              ORDER BY m.id)
               FROM rules m JOIN persons n ON n.role = m.role),
            'Let the rule give another role: whose role this is says oidc.identity_role.',
            'No rule gives a person''s own role.') r
        UNION ALL
        SELECT r.* FROM oidc.check_result('person_memberships', 'warn',
            (SELECT array_agg(format('Role "%s" is not a member of "%s" any more.', g.member, g.role) ORDER BY g.member, g.role)
               FROM oidc.granted_membership g
              WHERE NOT EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = g.role_oid AND m.member = g.member_oid)),
            'Delete the row of oidc.granted_membership, else a grant of your own would count as one of pg_oidc''s.',
            'All memberships that pg_oidc granted are there.') r
        UNION ALL
        SELECT r.* FROM oidc.check_result('base_roles',
            (SELECT CASE WHEN bool_or(power IS NOT NULL) THEN 'fail' ELSE 'warn' END FROM bases),
            (SELECT array_agg(CASE
                WHEN base_oid IS NULL THEN format('Role "%s", the base_role of provider "%s", does not exist.', base_role, name)
                WHEN power IS NOT NULL THEN format('Role "%s", the base_role of provider "%s", is privileged, and its people are refused: %s.',
                                                   base_role, name, power)
                ELSE format('Role "%s", the base_role of provider "%s", gives its people no CONNECT: before PostgreSQL 16 their '
                                || 'roles inherit nothing.', base_role, name) END ORDER BY name)
               FROM bases b
              WHERE base_oid IS NULL OR power IS NOT NULL OR current_setting('server_version_num')::integer < 160000),
            'A base_role is there to carry CONNECT and needs nothing else; before PostgreSQL 16 grant CONNECT to PUBLIC or to each person.',
            'Every base_role does what it is for.') r
        UNION ALL
        SELECT r.* FROM oidc.check_result('person_connect', 'warn',
            (SELECT array_agg(format('People of provider "%s" have no CONNECT on database "%s", unless it is granted to each of them.',
                                     c.name, c.datname) ORDER BY c.name, c.datname)
               FROM closed c
              WHERE c.auto_provision
                 OR EXISTS (SELECT FROM persons n WHERE n.provider = c.name AND n.oid IS NOT NULL
                                                    AND NOT has_database_privilege(n.oid, c.oid, 'CONNECT'))),
            CASE WHEN current_setting('server_version_num')::integer < 160000
                 THEN 'GRANT CONNECT ON DATABASE … TO PUBLIC, or to each person''s own role; or name in "databases" where rules count.'
                 ELSE 'GRANT CONNECT ON DATABASE … to the base_role of the provider; or name in "databases" where rules count.' END,
            'People may connect wherever a rule gives them a role.') r
        UNION ALL
        SELECT r.* FROM oidc.check_result('person_settings', 'warn',
            (SELECT array_agg(DISTINCT format('Role "%s" has %s, which does not count for people who log in as themselves.',
                                              g.rolname, what))
               FROM given g, LATERAL (
                VALUES (CASE WHEN EXISTS (SELECT FROM pg_db_role_setting s WHERE s.setrole = g.oid)
                             THEN 'settings of its own (ALTER ROLE … SET)' END),
                       (CASE WHEN g.rolconnlimit >= 0 THEN format('CONNECTION LIMIT %s', g.rolconnlimit) END),
                       (CASE WHEN g.rolvaliduntil < 'infinity' THEN format('VALID UNTIL %L', g.rolvaliduntil) END)) w (what)
              WHERE g.to_people AND what IS NOT NULL),
            'What counts is set for a person''s own role. Whoever needs the role''s settings asks for the role: a role login.',
            'No role that people are given has settings that would not count for them.') r
    $$;

COMMENT ON FUNCTION oidc.doctor_people() IS 'Checks of oidc.doctor(): people''s own roles';

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
            RETURN QUERY SELECT 1, 'login'::text, CASE login.outcome WHEN 'accepted' THEN 'yes' ELSE 'no' END,
                format('It was %s. No claims were kept: the token did not pass the checks of a provider, or they were too long.',
                       CASE login.outcome WHEN 'accepted' THEN 'accepted' ELSE login.outcome || ': ' || login.reason END);
        END IF;
    END
    $$;

COMMENT ON FUNCTION oidc.explain_login(bigint) IS 'Each step that a login of oidc.audit_log would meet with the policy of today, at its time';

COMMENT ON FUNCTION oidc.explain_facts(text, text, text, text, inet, boolean, timestamptz) IS 'The rows of oidc.explain_login';

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
                ('{oidc.identity_role,oidc.granted_membership}', '{check_row}'),
                ('{oidc.revocation}', '{lock_role,unlock_roles}'),
                ('{oidc.provider,oidc.role_mapping,oidc.revocation,oidc.identity_role,oidc.granted_membership}',
                 '{policy_changed,policy_truncated,audit,audit_truncate}')
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

CREATE OR REPLACE FUNCTION oidc.doctor_providers()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH sizes AS MATERIALIZED (
            SELECT l.*,
                   (SELECT count(*) FROM oidc.provider) AS providers_now,
                   (SELECT count(*) FROM oidc.role_mapping WHERE enabled) AS rules_now,
                   (SELECT count(*) FROM oidc.role_mapping
                     WHERE enabled AND match::text ~ '"(regex|glob)":'
                       AND (match @? '$.*.**.regex' OR match @? '$.*.**.glob')) AS pattern_rules_now
              FROM oidc.policy_limits() l
        ),
        counted AS MATERIALIZED (
            SELECT check_name, what, now_there, most
              FROM sizes, LATERAL (VALUES
                ('provider_count', 'providers', providers_now, providers),
                ('rule_count', 'enabled rules', rules_now, rules),
                ('pattern_rules', 'enabled rules with a regex or glob', pattern_rules_now, pattern_rules)
              ) v (check_name, what, now_there, most)
        )
        SELECT r.* FROM counted, oidc.check_result(check_name, CASE WHEN now_there > most THEN 'fail' ELSE 'warn' END,
            CASE WHEN now_there > most THEN ARRAY[format(
                'There are %s %s, and at most %s are possible: every token is refused.', now_there, what, most)]
            WHEN now_there * 5 >= most * 4 THEN ARRAY[format(
                'There are %s %s, and at most %s are possible.', now_there, what, most)] END,
            'Remove or disable some; one rule with "any" can say what several do.',
            format('There are %s %s; up to %s are possible.', now_there, what, most)) r
        UNION ALL
        SELECT r.* FROM oidc.check_result('provider_rows', 'fail',
            (SELECT array_agg(format('Provider "%s" does not compile, its tokens are refused: %s', p.name, problem) ORDER BY p.name)
               FROM oidc.provider p, LATERAL oidc.provider_problem(oidc.provider_row(p)) problem
              WHERE p.enabled AND problem IS NOT NULL),
            'Mend the row with UPDATE.',
            'All providers compile.') r
        UNION ALL
        SELECT r.* FROM oidc.check_result('provider_use', 'warn',
            (SELECT array_agg(CASE WHEN p.enabled THEN format('Provider "%s" has no enabled rule that allows: its tokens are all refused.', p.name)
                                   ELSE format('Provider "%s" is disabled: its %s enabled rules do nothing.', p.name, m.rules) END
                              ORDER BY p.name)
               FROM oidc.provider p LEFT JOIN (SELECT provider, count(*) AS rules, bool_or(effect = 'allow') AS allows
                                                 FROM oidc.role_mapping WHERE enabled GROUP BY provider) m ON m.provider = p.name
              WHERE p.enabled AND m.allows IS NOT TRUE OR NOT p.enabled AND m.rules > 0),
            'Write a rule for it, enable it, or remove it.',
            'Every enabled provider has rules, and no disabled one has.') r
        UNION ALL
        -- n113
        SELECT r.* FROM oidc.check_result('identity_claims', 'warn',
            (SELECT array_agg(format('Provider "%s" takes the identity from "%s", which can change, or pass to somebody else%s.',
                                     p.name, p.identity_claim,
                                     -- Her role stays bound to her "sub".
                                     CASE WHEN p.auto_provision THEN ', who is then refused as long as the first one has her role' END)
                              ORDER BY p.name)
               FROM oidc.provider p
              WHERE p.enabled
                AND ltrim(p.identity_claim, '/') IN ('name', 'given_name', 'family_name', 'middle_name', 'nickname',
                    'preferred_username', 'profile', 'website', 'email', 'upn', 'unique_name', 'phone_number', 'username')),
            'Use "sub", or another claim that the provider never gives to anybody else, such as "oid" of Entra ID.',
            'Identities come from claims that stay.') r
        UNION ALL
        SELECT r.* FROM oidc.check_result('plain_http', 'warn',
            (SELECT array_agg(format('The keys of provider "%s" are fetched without TLS from %s.', p.name, place) ORDER BY p.name)
               FROM oidc.provider p, LATERAL coalesce(p.jwks_uri, p.issuer) place
              WHERE p.enabled AND p.jwks IS NULL AND place ILIKE 'http://%'),
            'Use an https URL; http is for tests.',
            'All keys are fetched over https, or stand in the column "jwks".') r
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
                  FROM pg_catalog.pg_class c
                 WHERE c.oid IN ('oidc.session'::pg_catalog.regclass, 'oidc.stat'::pg_catalog.regclass)
                UNION ALL
                SELECT 'FUNCTION ' || p.oid::pg_catalog.regprocedure::text,
                       coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), p.proowner
                  FROM pg_catalog.pg_proc p
                 WHERE p.pronamespace = 'oidc'::pg_catalog.regnamespace
                   AND p.proname IN (
                                'check_binding', 'check_membership', 'doctor_people', 'end_identity', 'end_sessions',
                                'explain_facts', 'explain_login', 'lock_role', 'prune_identities', 'reinstate',
                                'revoke', 'role_oid', 'session_rows', 'stat_rows', 'unlock_roles')) n,
               pg_catalog.aclexplode(n.acl) a
         WHERE a.grantee <> n.owner
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;
