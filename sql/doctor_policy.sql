-- The checks of the policy's tables, of the providers and of their keys.

CREATE FUNCTION oidc.doctor_tables()
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
COMMENT ON FUNCTION oidc.doctor_tables() IS 'Checks of oidc.doctor(): triggers, owners and rights of the policy''s tables';

CREATE FUNCTION oidc.doctor_providers()
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
COMMENT ON FUNCTION oidc.doctor_providers() IS 'Checks of oidc.doctor(): numbers against limits, and the providers';

CREATE FUNCTION oidc.doctor_keys()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH keys AS MATERIALIZED (
            SELECT p.name, p.max_stale, k.usable, k.last_error, k.next_fetch_at, k.fetched_at,
                   k.fetched_at + p.max_stale AS serve_until
              FROM oidc.provider p LEFT JOIN (
                    SELECT provider, count(*) FILTER (WHERE usable) AS usable, min(last_error) AS last_error,
                           min(next_fetch_at) AS next_fetch_at, max(fetched_at) AS fetched_at
                      FROM oidc.key_rows() WHERE oidc.is_preloaded() GROUP BY provider) k ON k.provider = p.name
             WHERE p.enabled
        )
        SELECT r.* FROM oidc.check_result('provider_keys', 'fail',
            (SELECT array_agg(CASE
                WHEN usable > 0 THEN format('The keys of provider "%s" were last fetched at %s, longer ago than its max_stale.', k.name, fetched_at::timestamptz(0))
                WHEN last_error IS NOT NULL THEN format('Provider "%s" has no usable key: %s', k.name, last_error)
                WHEN usable = 0 THEN format('Provider "%s" has no usable key.', k.name)
                ELSE format('The keys of provider "%s" have not been fetched yet.', k.name) END ORDER BY k.name)
               FROM keys k WHERE usable IS NULL OR usable = 0 OR serve_until <= now()),
            'See the view oidc.key; after a remedy run SELECT oidc.refresh_keys().',
            'Every enabled provider has a usable key.') r
         WHERE oidc.is_preloaded()
        UNION ALL
        SELECT r.* FROM oidc.check_result('key_fetches', 'warn',
            (SELECT array_agg(CASE
                WHEN last_error IS NOT NULL THEN format('The last fetch for provider "%s" failed; its keys serve until %s: %s',
                                                        k.name, serve_until::timestamptz(0), last_error)
                WHEN next_fetch_at >= serve_until THEN format('The keys of provider "%s" serve until %s only, before the next fetch at %s.',
                                                              k.name, serve_until::timestamptz(0), next_fetch_at::timestamptz(0))
                ELSE format('More than half of max_stale of provider "%s" is over, and no fetch is due; its keys serve until %s.',
                            k.name, serve_until::timestamptz(0)) END ORDER BY k.name)
               FROM keys k
              WHERE usable > 0 AND serve_until > now()
                AND (last_error IS NOT NULL OR next_fetch_at >= serve_until
                     OR now() - fetched_at > max_stale / 2 AND next_fetch_at IS NULL)),
            'See that this server reaches the issuer, or raise max_stale.',
            'No fetch has failed, and all keys are fetched again in time.') r
         WHERE oidc.is_preloaded()
    $$;
COMMENT ON FUNCTION oidc.doctor_keys() IS 'Checks of oidc.doctor(): the keys of the providers';
COMMENT ON FUNCTION oidc.policy_limits() IS 'How many providers, rules and rules with a regex or glob there may be';
COMMENT ON FUNCTION oidc.provider_problem(text) IS 'Why a provider does not compile; null if it does';
