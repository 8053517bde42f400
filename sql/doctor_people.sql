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
