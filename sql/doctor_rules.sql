-- The checks of the rules, of the roles that they give, and of what they match.

CREATE FUNCTION oidc.doctor_rules()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH rules AS MATERIALIZED (
            SELECT id, provider, effect, databases, valid_until, oidc.rule_problem(oidc.rule_row(m)) AS problem
              FROM oidc.role_mapping m WHERE enabled
        )
        SELECT r.* FROM oidc.check_result('rule_rows', 'fail',
            (SELECT array_agg(CASE effect
                WHEN 'deny' THEN format('Rule %s denies and does not compile; every login of provider "%s" is refused: %s', id, provider, problem)
                ELSE format('Rule %s does not compile and gives nothing: %s', id, problem) END ORDER BY id)
               FROM rules WHERE problem IS NOT NULL),
            'Mend the row with UPDATE, or disable it.',
            (SELECT format('All %s enabled rules compile.', count(*)) FROM rules)) r
        UNION ALL
        SELECT r.* FROM oidc.check_result('rule_databases', 'warn',
            (SELECT array_agg(format('Rule %s names database "%s", which does not exist or takes no connections.', m.id, named)
                              ORDER BY m.id, named)
               FROM rules m, unnest(m.databases) named
              WHERE NOT EXISTS (SELECT FROM pg_database d WHERE d.datname = named AND d.datallowconn)),
            'Correct "databases"; null means all.',
            'Every database that a rule names is there.') r
        UNION ALL
        SELECT r.* FROM oidc.check_result('rule_validity', 'warn',
            (SELECT array_agg(format('Rule %s has been over since %s.', m.id, m.valid_until) ORDER BY m.id)
               FROM rules m WHERE m.valid_until <= now()),
            'Delete the rule, disable it, or set "valid_until" anew.',
            'No enabled rule is over.') r
    $$;
COMMENT ON FUNCTION oidc.doctor_rules() IS 'Checks of oidc.doctor(): the rules by themselves';

-- 18 keeps the plan of a function for the whole session: one made for a few rules, with nested loops, would take minutes
-- for many. Hence no nested loops where rules are joined with rules.

-- A role that is derived from the token (\1) is looked up at each login, so nothing can be said of it here.
CREATE FUNCTION oidc.doctor_rule_roles()
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
COMMENT ON FUNCTION oidc.doctor_rule_roles() IS 'Checks of oidc.doctor(): the roles that rules give';

CREATE FUNCTION oidc.doctor_rule_matches()
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
COMMENT ON FUNCTION oidc.doctor_rule_matches() IS 'Checks of oidc.doctor(): what rules match';
COMMENT ON FUNCTION oidc.rule_problem(text) IS 'Why a rule does not compile; null if it does';
COMMENT ON FUNCTION oidc.role_problem(text, oid, boolean) IS 'Why a token does not open a session in a role; null if it does';
COMMENT ON FUNCTION oidc.role_privilege(text) IS 'Why a role is privileged; null if it is not';
