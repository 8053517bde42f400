-- Who gets what, for people to read: one row a rule that counts, the denials first since they count first.
-- SELECT on the view is enough to read it: the tables are read with the owner's rights, condition_text() reads nothing.
CREATE VIEW oidc.access WITH (security_barrier) AS
    SELECT m.provider, m.effect, oidc.condition_text(m.match::text) AS condition, m.role,
           pg_catalog.concat(
               coalesce(
                   (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(d), ', ') FROM pg_catalog.unnest(m.databases) d),
                   'all'),
               -- Parentheses: no name of a database has them unless it is quoted.
               CASE m.replication WHEN true THEN ' (replication)' WHEN false THEN '' ELSE ' (also replication)' END) AS databases,
           coalesce(pg_catalog.array_to_string(m.addresses, ', '), 'all') AS addresses,
           CASE WHEN m.valid_from OPERATOR(pg_catalog.>) '-infinity' AND m.valid_until OPERATOR(pg_catalog.<) 'infinity'
                    THEN pg_catalog.concat('from ', m.valid_from, ' until ', m.valid_until)
                WHEN m.valid_from OPERATOR(pg_catalog.>) '-infinity' THEN pg_catalog.concat('from ', m.valid_from)
                WHEN m.valid_until OPERATOR(pg_catalog.<) 'infinity' THEN pg_catalog.concat('until ', m.valid_until)
                ELSE 'always' END AS validity,
           m.comment
      FROM oidc.role_mapping m JOIN oidc.provider p ON p.name OPERATOR(pg_catalog.=) m.provider
     WHERE m.enabled AND p.enabled
     ORDER BY m.provider, m.effect DESC, m.priority, m.id;
COMMENT ON VIEW oidc.access IS 'Who gets what: the enabled rules of enabled providers, in words';
COMMENT ON COLUMN oidc.access.provider IS 'The provider whose tokens the rule is for';
COMMENT ON COLUMN oidc.access.effect IS '''allow'' gives the role; ''deny'' refuses the whole login';
COMMENT ON COLUMN oidc.access.condition IS 'What the token must say; ''is'' and ''has'' hold for a claim that equals the value or is an array that contains it';
COMMENT ON COLUMN oidc.access.role IS 'The role; \1 stands for what the group of the regular expression matched; null for a denial';
COMMENT ON COLUMN oidc.access.databases IS 'In which databases; ''(replication)'': only for replication connections';
COMMENT ON COLUMN oidc.access.addresses IS 'From which client addresses; ''all'' includes Unix-domain sockets';
COMMENT ON COLUMN oidc.access.validity IS 'When';
COMMENT ON COLUMN oidc.access.comment IS 'Why';
COMMENT ON FUNCTION oidc.condition_text(text) IS 'A match in words';
