-- From 0.2.0 to 0.3.0: the whole match language, rights and audit of changes, explanations, the doctor, documents.

-- Null stands for both kinds of connection, in rules that deny.
ALTER TABLE oidc.role_mapping ALTER COLUMN replication DROP NOT NULL;

COMMENT ON COLUMN oidc.role_mapping.match IS 'JSON object, every member must hold: claim name or JSON Pointer, and a value that the claim equals or contains, or {"any"|"not"|"exists"|"glob"|"regex": ...}';

COMMENT ON COLUMN oidc.role_mapping.role IS 'The role that the rule gives; \1 in it is what group 1 of the rule''s regular expression matched; null in a rule that denies';

COMMENT ON COLUMN oidc.role_mapping.effect IS '''allow'', or ''deny'': refuses the whole login of whoever it matches';

COMMENT ON COLUMN oidc.role_mapping.replication IS 'True: for replication connections only; false: for ordinary ones only; null (deny only): both';

COMMENT ON COLUMN oidc.role_mapping.addresses IS 'Client addresses for which the rule counts; null: all, and Unix-domain sockets';

COMMENT ON COLUMN oidc.role_mapping.valid_from IS 'When the rule begins to count; null: from the start';

COMMENT ON COLUMN oidc.role_mapping.valid_until IS 'When the rule stops counting; null: never';

CREATE FUNCTION oidc."check_stored_rule"()
	RETURNS TRIGGER
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'check_stored_rule_wrapper';

CREATE OR REPLACE FUNCTION oidc."check_rule"()
	RETURNS TRIGGER
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'check_rule_wrapper';

-- One row as JSON, with times in microseconds: what the compiler of rules reads, in triggers and in the worker. Bodies
-- that are parsed now need no search_path, and without one the worker's query takes them in (100,000 rules). The last
-- 30 years of timestamptz are beyond 64 bits of microseconds since 1970.
CREATE OR REPLACE FUNCTION oidc.provider_row(oidc.provider) RETURNS text STABLE
    RETURN (to_jsonb($1) || jsonb_build_object(
        'max_stale_us', (extract(epoch FROM $1.max_stale) * 1000000)::bigint,
        'clock_skew_us', (extract(epoch FROM $1.clock_skew) * 1000000)::bigint,
        'max_token_age_us', (extract(epoch FROM $1.max_token_age) * 1000000)::bigint))::text;

CREATE OR REPLACE FUNCTION oidc.rule_row(oidc.role_mapping) RETURNS text STABLE
    RETURN (to_jsonb($1) || jsonb_build_object(
        'role_oid', coalesce($1.role_oid::bigint, 0),
        'valid_from', CASE
            WHEN $1.valid_from IS NULL THEN NULL
            WHEN $1.valid_from = '-infinity' THEN -9223372036854775808
            ELSE least(extract(epoch FROM $1.valid_from) * 1000000, 9223372036854775807)::bigint END,
        'valid_until', CASE
            WHEN $1.valid_until IS NULL THEN NULL
            WHEN $1.valid_until = '-infinity' THEN -9223372036854775808
            ELSE least(extract(epoch FROM $1.valid_until) * 1000000, 9223372036854775807)::bigint END))::text;

ALTER FUNCTION oidc.check_rule() SET search_path = pg_catalog, pg_temp;

ALTER FUNCTION oidc.check_stored_rule() SET search_path = pg_catalog, pg_temp;

CREATE TRIGGER check_stored_row AFTER INSERT OR UPDATE ON oidc.provider
    FOR EACH ROW EXECUTE FUNCTION oidc.check_provider();

ALTER TABLE oidc.provider ENABLE ALWAYS TRIGGER check_stored_row;

CREATE TRIGGER check_stored_row AFTER INSERT OR UPDATE ON oidc.role_mapping
    FOR EACH ROW EXECUTE FUNCTION oidc.check_stored_rule();

ALTER TABLE oidc.role_mapping ENABLE ALWAYS TRIGGER check_stored_row;

-- Whoever moves the generation could keep changes from counting on a standby.
CREATE TRIGGER check_rights BEFORE INSERT OR UPDATE OR DELETE ON oidc.policy_state
    FOR EACH ROW EXECUTE FUNCTION oidc.check_rights();

ALTER TABLE oidc.policy_state ENABLE ALWAYS TRIGGER check_rights;

CREATE TRIGGER check_rights_to_truncate BEFORE TRUNCATE ON oidc.policy_state
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.check_rights();

ALTER TABLE oidc.policy_state ENABLE ALWAYS TRIGGER check_rights_to_truncate;

COMMENT ON FUNCTION oidc.check_rule() IS 'Trigger: refuses a rule that cannot be compiled, with the reason, and keeps the role''s oid';

COMMENT ON FUNCTION oidc.check_stored_rule() IS 'Trigger: checks a rule again, as it is stored';

CREATE  FUNCTION oidc."condition_text"(
	"condition" TEXT 
) RETURNS TEXT 
IMMUTABLE STRICT PARALLEL SAFE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'condition_text_wrapper';

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

-- The policy as one document: {"providers": [...], "rules": [...], "bindings": [...]}. An element says of a row what is
-- neither null nor at its column's default, so that null, absent and default are the same. Times are in UTC and every
-- value is written as no setting of a session can change it.
-- A rule has no id there: it is known by all that it says but its comment. Nor has it a role_oid, which is its server's.
-- What the document knows of its three tables: the types and defaults of columns, and those that must be given.
CREATE FUNCTION oidc.document_columns()
    RETURNS TABLE (part text, "table" regclass, types jsonb, defaults jsonb, needed text[])
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET intervalstyle = 'postgres' SET quote_all_identifiers = off
    AS $$
    DECLARE
        known record;
        value jsonb;
    BEGIN
        FOR part, "table" IN
            VALUES ('providers', 'oidc.provider'::regclass), ('rules', 'oidc.role_mapping'), ('bindings', 'oidc.identity_role')
        LOOP
            types := '{}';
            defaults := '{}';
            needed := '{}';
            FOR known IN
                SELECT a.attname AS name, format_type(a.atttypid, NULL) AS type, a.attnotnull AS must,
                       pg_get_expr(d.adbin, d.adrelid) AS fallback
                  FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                 WHERE a.attrelid = "table" AND a.attnum > 0 AND NOT a.attisdropped
                   AND a.attname NOT IN ('id', 'role_oid', 'made_by_us', 'last_login')
                 ORDER BY a.attnum
            LOOP
                types := types || jsonb_build_object(known.name, known.type);
                IF known.fallback IS NOT NULL THEN
                    EXECUTE 'SELECT to_jsonb(' || known.fallback || ')' INTO value;
                    defaults := defaults || jsonb_build_object(known.name, value);
                ELSIF known.must THEN
                    needed := needed || known.name::text;
                END IF;
            END LOOP;
            RETURN NEXT;
        END LOOP;
    END
    $$;

COMMENT ON FUNCTION oidc.document_columns() IS 'What the policy document knows of each table';

-- The rows as elements, with their place in the document. Rules stand in the order in which they are tried.
CREATE FUNCTION oidc.document_rows() RETURNS TABLE (part text, number bigint, id bigint, entry jsonb)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'postgres'
    AS $$
        SELECT r.part, r.number, r.id,
               (SELECT jsonb_object_agg(m.key, m.value) FROM jsonb_each(r.stored) m
                 WHERE c.types ? m.key AND m.value <> 'null' AND m.value IS DISTINCT FROM c.defaults -> m.key)
          FROM (SELECT 'providers', row_number() OVER (ORDER BY p.name COLLATE "C"), NULL::bigint, to_jsonb(p)
                  FROM oidc.provider p
                UNION ALL
                -- Null is a value of its own in "replication", and not its default.
                SELECT 'rules', row_number() OVER (ORDER BY m.provider COLLATE "C", m.priority, m.id), m.id,
                       to_jsonb(m) || CASE WHEN m.replication IS NULL THEN '{"replication": "both"}' ELSE '{}' END::jsonb
                  FROM oidc.role_mapping m
                UNION ALL
                SELECT 'bindings', row_number() OVER (ORDER BY b.provider COLLATE "C", b.subject COLLATE "C"), NULL,
                       to_jsonb(b)
                  FROM oidc.identity_role b WHERE NOT b.made_by_us) r (part, number, id, stored)
          JOIN oidc.document_columns() c ON c.part = r.part
    $$;

COMMENT ON FUNCTION oidc.document_rows() IS 'The policy as the elements of its document';

CREATE FUNCTION oidc.export_policy() RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT jsonb_object_agg(d.part, d.entries)
          FROM (SELECT c.part, coalesce(jsonb_agg(r.entry ORDER BY r.number) FILTER (WHERE r.part IS NOT NULL), '[]')
                  FROM oidc.document_columns() c LEFT JOIN oidc.document_rows() r ON r.part = c.part
                 GROUP BY c.part) d (part, entries)
    $$;

COMMENT ON FUNCTION oidc.export_policy() IS 'The whole policy as one document, for review and for oidc.apply_policy()';

-- The elements of a document as document_rows() would give them. Raises an error that names the place of what is wrong.
CREATE FUNCTION oidc.read_document(policy jsonb) RETURNS TABLE (part text, number bigint, entry jsonb)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'postgres' SET quote_all_identifiers = off
    AS $$
    DECLARE
        known record;
        element jsonb;
        name text;
        value jsonb;
        place text;
        type text;
        kind text;
        -- Where each name of a provider, and each issuer, stands.
        names jsonb := '{}';
        issuers jsonb := '{}';
    BEGIN
        IF jsonb_typeof(policy) IS DISTINCT FROM 'object' THEN
            RAISE EXCEPTION 'policy: must be of type object' USING ERRCODE = 'invalid_parameter_value',
                DETAIL = format('It is of type %s.', coalesce(jsonb_typeof(policy), 'null')),
                HINT = 'oidc.export_policy() gives such a document.';
        END IF;
        FOR name IN SELECT jsonb_object_keys(policy) LOOP
            IF name NOT IN ('providers', 'rules', 'bindings') THEN
                RAISE EXCEPTION '%: unknown member', to_jsonb(left(name, 63)) USING ERRCODE = 'invalid_parameter_value',
                    HINT = 'The members are "providers", "rules" and "bindings".';
            END IF;
        END LOOP;
        FOR known IN SELECT c.* FROM oidc.document_columns() c LOOP
            part := known.part;
            -- What is forgotten must not delete everything.
            IF policy -> part IS NULL THEN
                RAISE EXCEPTION '%: is missing', part USING ERRCODE = 'invalid_parameter_value',
                    HINT = 'An empty array stands for none.';
            ELSIF jsonb_typeof(policy -> part) <> 'array' THEN
                RAISE EXCEPTION '%: must be of type array', part USING ERRCODE = 'invalid_parameter_value',
                    DETAIL = format('It is of type %s.', jsonb_typeof(policy -> part));
            END IF;
            FOR element, number IN
                SELECT e.value, e.ordinality - 1 FROM jsonb_array_elements(policy -> part) WITH ORDINALITY e
            LOOP
                place := format('%s[%s]', part, number);
                IF jsonb_typeof(element) <> 'object' THEN
                    RAISE EXCEPTION '%: must be of type object', place USING ERRCODE = 'invalid_parameter_value',
                        DETAIL = format('It is of type %s.', jsonb_typeof(element));
                END IF;
                entry := '{}';
                FOR name, value IN SELECT e.key, e.value FROM jsonb_each(element) e LOOP
                    type := known.types ->> name;
                    IF type IS NULL THEN
                        RAISE EXCEPTION '%.%: unknown member', place,
                            CASE WHEN name ~ '^[a-z_]{1,63}$' THEN name ELSE to_jsonb(left(name, 63))::text END
                            USING ERRCODE = 'invalid_parameter_value',
                            HINT = format('The members are %s.', (SELECT string_agg(k, ', ') FROM jsonb_object_keys(known.types) k));
                    END IF;
                    CONTINUE WHEN value = 'null';
                    kind := CASE WHEN right(type, 2) = '[]' THEN 'array' WHEN type = 'boolean' THEN 'boolean'
                                 WHEN type = 'integer' THEN 'number' WHEN type <> 'jsonb' THEN 'string' END;
                    IF name = 'replication' AND value = '"both"' THEN
                        NULL;
                    ELSIF jsonb_typeof(value) <> kind THEN
                        RAISE EXCEPTION '%.%: must be of type %', place, name, kind USING ERRCODE = 'invalid_parameter_value',
                            DETAIL = format('It is of type %s.', jsonb_typeof(value));
                    ELSIF kind = 'array' THEN
                        IF EXISTS (SELECT FROM jsonb_array_elements(value) e WHERE jsonb_typeof(e) <> 'string') THEN
                            RAISE EXCEPTION '%.%: must be an array of strings', place, name USING ERRCODE = 'invalid_parameter_value';
                        END IF;
                    END IF;
                    IF type IN ('integer', 'interval', 'timestamp with time zone', 'cidr[]') THEN
                        -- What can be written in several ways.
                        BEGIN
                            value := CASE type
                                WHEN 'integer' THEN to_jsonb((value #>> '{}')::integer)
                                WHEN 'interval' THEN to_jsonb((value #>> '{}')::interval)
                                WHEN 'timestamp with time zone' THEN to_jsonb((value #>> '{}')::timestamptz)
                                ELSE to_jsonb(ARRAY(SELECT e::cidr FROM jsonb_array_elements_text(value) e)) END;
                        EXCEPTION WHEN data_exception THEN
                            RAISE EXCEPTION '%.%: %', place, name, SQLERRM USING ERRCODE = SQLSTATE;
                        END;
                    END IF;
                    IF value IS DISTINCT FROM known.defaults -> name THEN
                        entry := entry || jsonb_build_object(name, value);
                    END IF;
                END LOOP;
                FOREACH name IN ARRAY known.needed LOOP
                    IF NOT entry ? name THEN
                        RAISE EXCEPTION '%.%: is missing', place, name USING ERRCODE = 'invalid_parameter_value';
                    END IF;
                END LOOP;
                IF part = 'providers' THEN
                    IF names ? (entry ->> 'name') THEN
                        RAISE EXCEPTION '%.name: % is the name of % already', place, entry -> 'name', names ->> (entry ->> 'name')
                            USING ERRCODE = 'invalid_parameter_value';
                    ELSIF issuers ? (entry ->> 'issuer') THEN
                        RAISE EXCEPTION '%.issuer: % is the issuer of % already', place, entry -> 'issuer',
                            issuers ->> (entry ->> 'issuer') USING ERRCODE = 'invalid_parameter_value';
                    END IF;
                    names := names || jsonb_build_object(entry ->> 'name', place);
                    issuers := issuers || jsonb_build_object(entry ->> 'issuer', place);
                ELSIF NOT names ? (entry ->> 'provider') THEN
                    RAISE EXCEPTION '%.provider: provider % is not in the document', place, entry -> 'provider'
                        USING ERRCODE = 'invalid_parameter_value';
                END IF;
                RETURN NEXT;
            END LOOP;
        END LOOP;
    END
    $$;

COMMENT ON FUNCTION oidc.read_document(jsonb) IS 'The elements of a policy document, checked and in one form';

-- Makes the policy what the document says, and gives the differences: all of them or, with an error, none. Runs with the
-- rights of the caller, row by row, so that the triggers judge each change as if it had been written by hand.
CREATE FUNCTION oidc.apply_policy(policy jsonb, dry_run boolean)
    RETURNS TABLE (action text, object text, before jsonb, after jsonb)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'postgres' SET quote_all_identifiers = off
    AS $$
    DECLARE
        step record;
        place text;
        assigned text;
        done boolean := false;
        told_state text;
        told_message text;
        told_detail text;
        told_hint text;
    BEGIN
        IF dry_run IS NULL THEN
            RAISE EXCEPTION 'dry_run must be true or false' USING ERRCODE = 'null_value_not_allowed';
        END IF;
        -- An older snapshot would not show what is committed while the locks are waited for.
        IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
            RAISE EXCEPTION 'cannot apply a policy in a transaction of isolation level %', current_setting('transaction_isolation')
                USING ERRCODE = 'invalid_transaction_state', HINT = 'Use BEGIN ISOLATION LEVEL READ COMMITTED.';
        END IF;
        -- One subtransaction: what an error, or a dry run, takes back.
        BEGIN
            -- Others who change the policy wait, so that the differences are those from what is changed; logins do not.
            -- Who may not write providers cannot lock them either, and is refused where they differ.
            IF has_table_privilege('oidc.provider', 'UPDATE, DELETE, TRUNCATE') THEN
                LOCK TABLE oidc.provider IN SHARE ROW EXCLUSIVE MODE;
            END IF;
            LOCK TABLE oidc.role_mapping IN SHARE ROW EXCLUSIVE MODE;
            FOR step IN
                WITH parts AS MATERIALIZED (
                    SELECT c.*, (SELECT string_agg(quote_ident(k), ', ') FROM jsonb_object_keys(c.types) k) AS names
                      FROM oidc.document_columns() c),
                have AS (
                    SELECT r.part, r.number, r.id, r.entry, k.known,
                           row_number() OVER (PARTITION BY r.part, r.entry ORDER BY r.number) AS copy
                      FROM oidc.document_rows() r,
                           LATERAL (SELECT CASE r.part WHEN 'providers' THEN r.entry -> 'name'
                                           WHEN 'rules' THEN r.entry - 'comment' ELSE r.entry END) k (known)),
                want AS (
                    SELECT r.part, r.number, r.entry, k.known,
                           row_number() OVER (PARTITION BY r.part, r.entry ORDER BY r.number) AS copy
                      FROM oidc.read_document(policy) r,
                           LATERAL (SELECT CASE r.part WHEN 'providers' THEN r.entry -> 'name'
                                           WHEN 'rules' THEN r.entry - 'comment' ELSE r.entry END) k (known)),
                -- What is the same on both sides is left alone; of the rest, what is known as the same is changed.
                old AS (
                    SELECT h.*, row_number() OVER (PARTITION BY h.part, h.known ORDER BY h.number) AS nth
                      FROM have h
                     WHERE NOT EXISTS (SELECT FROM want w WHERE w.part = h.part AND w.entry = h.entry AND w.copy = h.copy)),
                new AS (
                    SELECT w.*, row_number() OVER (PARTITION BY w.part, w.known ORDER BY w.number) AS nth
                      FROM want w
                     WHERE NOT EXISTS (SELECT FROM have h WHERE h.part = w.part AND h.entry = w.entry AND h.copy = w.copy)),
                differences AS (
                    SELECT coalesce(new.part, old.part) AS part, old.id, new.number, old.entry AS had, new.entry AS wanted,
                           CASE WHEN new.part IS NULL THEN 'delete' WHEN old.part IS NULL THEN 'create' ELSE 'change' END AS verb,
                           coalesce(new.number, old.number) AS rank
                      FROM old FULL JOIN new ON new.part = old.part AND new.known = old.known AND new.nth = old.nth)
                SELECT d.*, c."table", c.names, c.defaults || d.wanted
                       || CASE WHEN d.wanted ->> 'replication' = 'both' THEN '{"replication": null}' ELSE '{}' END::jsonb AS written
                  FROM differences d JOIN parts c ON c.part = d.part
                 -- An issuer is free again before another provider takes it, a provider there before its rules.
                 ORDER BY array_position(ARRAY['delete bindings', 'delete rules', 'delete providers', 'change providers',
                              'create providers', 'change rules', 'create rules', 'create bindings'], d.verb || ' ' || d.part),
                          d.rank
            LOOP
                action := step.verb;
                before := step.had;
                after := step.wanted;
                object := CASE step.part
                    WHEN 'providers' THEN format('provider %s', coalesce(after, before) ->> 'name')
                    WHEN 'rules' THEN format('rule of %s: %s', coalesce(after, before) ->> 'provider',
                                             oidc.condition_text((coalesce(after, before) -> 'match')::text))
                    ELSE format('binding of %s: %s', coalesce(after, before) ->> 'provider', coalesce(after, before) ->> 'subject') END;
                place := coalesce(step.part || '[' || step.number || ']', object);
                IF action = 'create' THEN
                    EXECUTE format('INSERT INTO %s (%s) SELECT %2$s FROM jsonb_populate_record(NULL::%1$s, $1)',
                                   step."table", step.names) USING step.written;
                ELSIF action = 'change' AND step.part = 'providers' THEN
                    -- Two providers may change places: the issuer's holder, which is changed later on, makes way.
                    UPDATE oidc.provider p SET issuer = format('https://%s.invalid', gen_random_uuid())
                     WHERE p.issuer = after ->> 'issuer' AND p.name <> after ->> 'name';
                    SELECT string_agg(format('%1$I = n.%1$I', k), ', ') INTO assigned
                      FROM jsonb_object_keys(before || after) k WHERE before -> k IS DISTINCT FROM after -> k;
                    EXECUTE format('UPDATE oidc.provider p SET %s FROM jsonb_populate_record(NULL::oidc.provider, $1) n'
                                   ' WHERE p.name = n.name', assigned) USING step.written;
                ELSIF action = 'change' THEN
                    UPDATE oidc.role_mapping m SET comment = after ->> 'comment' WHERE m.id = step.id;
                ELSIF step.part = 'providers' THEN
                    DELETE FROM oidc.provider p WHERE p.name = before ->> 'name';
                ELSIF step.part = 'rules' THEN
                    DELETE FROM oidc.role_mapping m WHERE m.id = step.id;
                ELSE
                    DELETE FROM oidc.identity_role b
                     WHERE b.provider = before ->> 'provider' AND b.subject = before ->> 'subject';
                END IF;
                RETURN NEXT;
            END LOOP;
            IF dry_run THEN
                done := true;
                RAISE EXCEPTION 'dry run';
            END IF;
        EXCEPTION WHEN OTHERS THEN
            IF NOT done THEN
                GET STACKED DIAGNOSTICS told_state = RETURNED_SQLSTATE, told_message = MESSAGE_TEXT,
                    told_detail = PG_EXCEPTION_DETAIL, told_hint = PG_EXCEPTION_HINT;
                told_message := concat(place || ': ', told_message);
                told_detail := concat(nullif(told_detail, '') || ' ', 'Nothing was changed.');
                -- There is no hint that says nothing.
                IF told_hint = '' THEN
                    RAISE EXCEPTION USING ERRCODE = told_state, MESSAGE = told_message, DETAIL = told_detail;
                END IF;
                RAISE EXCEPTION USING ERRCODE = told_state, MESSAGE = told_message, DETAIL = told_detail, HINT = told_hint;
            END IF;
        END;
    END
    $$;

COMMENT ON FUNCTION oidc.apply_policy(jsonb, boolean) IS
    'Makes the policy what a document says, in one step, and gives the differences; with dry_run it only gives them';

CREATE  FUNCTION oidc."explain_claims_text"(
	"provider" TEXT, 
	"claims" TEXT, 
	"login_user" TEXT, 
	"database" TEXT, 
	"client" inet, 
	"replication" bool 
) RETURNS TABLE (
	"step" INT,  
	"name" TEXT,  
	"passed" TEXT,  
	"detail" TEXT  
)
VOLATILE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'explain_claims_text_wrapper';

CREATE  FUNCTION oidc."explain"(
	"token" TEXT, 
	"login_user" TEXT DEFAULT NULL, 
	"database" TEXT DEFAULT NULL, 
	"client" inet DEFAULT NULL, 
	"replication" bool DEFAULT false 
) RETURNS TABLE (
	"step" INT,  
	"name" TEXT,  
	"passed" TEXT,  
	"detail" TEXT  
)
VOLATILE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'explain_wrapper';

-- What claims would give, without a token.
CREATE FUNCTION oidc.explain_claims(
        provider text, claims jsonb, login_user text DEFAULT NULL, database text DEFAULT NULL,
        client inet DEFAULT NULL, replication boolean DEFAULT false)
    RETURNS TABLE (step integer, name text, passed text, detail text) VOLATILE
    BEGIN ATOMIC
        SELECT e.step, e.name, e.passed, e.detail
          FROM oidc.explain_claims_text(provider, claims::text, login_user, database, client, replication) e;
    END;

COMMENT ON FUNCTION oidc.explain_claims(text, jsonb, text, text, inet, boolean) IS 'Each step of the decision that these claims of a provider would meet; missing iss, aud, exp, iat and sub are made up';

COMMENT ON FUNCTION oidc.explain_claims_text(text, text, text, text, inet, boolean) IS 'The rows of oidc.explain_claims';

COMMENT ON FUNCTION oidc.explain(text, text, text, inet, boolean) IS 'Each step of the decision about a token whose signature was cut off or that has expired; changes nothing';

CREATE FUNCTION oidc."audit_change"()
	RETURNS TRIGGER
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'audit_change_wrapper';

-- Every change of the policy is an event, written in the transaction of the change.
COMMENT ON TABLE oidc.audit_log IS 'Changes of providers, rules and revocations: who, when, before and after. Written by triggers; only superusers may change it. Decisions are in the server log';

COMMENT ON COLUMN oidc.audit_log.id IS 'Number of the event';

COMMENT ON COLUMN oidc.audit_log."time" IS 'When it happened';

COMMENT ON COLUMN oidc.audit_log.event IS 'provider_, rule_ or revocation_ and created, changed, deleted or truncated (one event for a TRUNCATE, without rows)';

COMMENT ON COLUMN oidc.audit_log.outcome IS '''done'' for a change';

COMMENT ON COLUMN oidc.audit_log.reason IS 'Not used yet';

COMMENT ON COLUMN oidc.audit_log.provider IS 'The provider, or the provider of the rule or revocation';

COMMENT ON COLUMN oidc.audit_log.subject IS 'The subject of the revocation';

COMMENT ON COLUMN oidc.audit_log.identity IS 'Not used yet';

COMMENT ON COLUMN oidc.audit_log.requested_user IS 'Not used yet';

COMMENT ON COLUMN oidc.audit_log.role IS 'The role of the rule';

COMMENT ON COLUMN oidc.audit_log.rule_id IS 'The id of the rule';

COMMENT ON COLUMN oidc.audit_log.database IS 'The database of the session';

COMMENT ON COLUMN oidc.audit_log.client_address IS 'The address of the client; null for a Unix-domain socket';

COMMENT ON COLUMN oidc.audit_log.tls IS 'Whether the connection of the session is encrypted by TLS';

COMMENT ON COLUMN oidc.audit_log.application_name IS 'What the client calls itself';

COMMENT ON COLUMN oidc.audit_log.kid IS 'Not used yet';

COMMENT ON COLUMN oidc.audit_log.token_id IS 'Not used yet';

COMMENT ON COLUMN oidc.audit_log.pid IS 'The process of the session';

COMMENT ON COLUMN oidc.audit_log."session_user" IS 'Who logged in';

COMMENT ON COLUMN oidc.audit_log."current_user" IS 'Whose rights counted in the statement';

COMMENT ON COLUMN oidc.audit_log.before IS 'The row before the change';

COMMENT ON COLUMN oidc.audit_log.after IS 'The row after the change';

COMMENT ON COLUMN oidc.audit_log.facts IS 'token: provider, subject and identity of the token that opened the session, where one did';

ALTER FUNCTION oidc.audit_change() SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION oidc.audit_change() IS 'Trigger: writes the event of a change to oidc.audit_log';

CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON oidc.provider
    FOR EACH ROW EXECUTE FUNCTION oidc.audit_change();

ALTER TABLE oidc.provider ENABLE ALWAYS TRIGGER audit;

CREATE TRIGGER audit_truncate AFTER TRUNCATE ON oidc.provider
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.audit_change();

ALTER TABLE oidc.provider ENABLE ALWAYS TRIGGER audit_truncate;

CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON oidc.role_mapping
    FOR EACH ROW EXECUTE FUNCTION oidc.audit_change();

ALTER TABLE oidc.role_mapping ENABLE ALWAYS TRIGGER audit;

CREATE TRIGGER audit_truncate AFTER TRUNCATE ON oidc.role_mapping
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.audit_change();

ALTER TABLE oidc.role_mapping ENABLE ALWAYS TRIGGER audit_truncate;

CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON oidc.revocation
    FOR EACH ROW EXECUTE FUNCTION oidc.audit_change();

ALTER TABLE oidc.revocation ENABLE ALWAYS TRIGGER audit;

CREATE TRIGGER audit_truncate AFTER TRUNCATE ON oidc.revocation
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.audit_change();

ALTER TABLE oidc.revocation ENABLE ALWAYS TRIGGER audit_truncate;

CREATE TRIGGER check_rights BEFORE INSERT OR UPDATE OR DELETE ON oidc.audit_log
    FOR EACH ROW EXECUTE FUNCTION oidc.check_rights();

ALTER TABLE oidc.audit_log ENABLE ALWAYS TRIGGER check_rights;

CREATE TRIGGER check_rights_to_truncate BEFORE TRUNCATE ON oidc.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.check_rights();

ALTER TABLE oidc.audit_log ENABLE ALWAYS TRIGGER check_rights_to_truncate;

CREATE  FUNCTION oidc."hba_facts"() RETURNS TABLE (
	"guarded_file" TEXT,  
	"native_file" TEXT,  
	"trust_lines" INT[],  
	"include_lines" INT[],  
	"problem" TEXT  
)
STRICT VOLATILE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'hba_facts_wrapper';

CREATE  FUNCTION oidc."is_preloaded"() RETURNS bool 
STRICT STABLE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'is_preloaded_wrapper';

-- Is everything right? Each check is one name: `ok`, or one row for each thing that was found. `fail`: logins are
-- refused that the policy means to admit, or somebody may come in who should not. `warn`: it works, but look at it.
-- A name for each thing that was found, twenty at most, or one row that says that all is well.
CREATE FUNCTION oidc.check_result(check_name text, problem text, found text[], advice text, quiet text)
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT check_name, problem, sentence, advice
          FROM unnest(found[:20]) AS sentence
        UNION ALL
        SELECT check_name, problem, format('… and %s more.', cardinality(found) - 20), advice
         WHERE cardinality(found) > 20
        UNION ALL
        SELECT check_name, 'ok', quiet, NULL
         WHERE coalesce(cardinality(found), 0) = 0
    $$;

COMMENT ON FUNCTION oidc.check_result(text, text, text[], text, text) IS 'The rows of one check of oidc.doctor()';

-- SECURITY DEFINER: what it looks at is only for superusers, and so is this function until EXECUTE is granted to
-- somebody, who then sees its answer and nothing else. It takes no argument, and writes nothing.
CREATE FUNCTION oidc.doctor()
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
            parts := parts || '{tables,providers,keys,rules,rule_roles,rule_matches}'::text[];
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

COMMENT ON FUNCTION oidc.doctor() IS 'Checks of the server, its HBA files, the workers, the keys and the rules: ok, warn or fail, and what to do';

COMMENT ON FUNCTION oidc.is_preloaded() IS 'Whether the library is preloaded: only then anything is guarded';

CREATE  FUNCTION oidc."role_privilege"(
	"role" TEXT 
) RETURNS TEXT 
STRICT STABLE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'role_privilege_wrapper';

CREATE  FUNCTION oidc."board_facts"() RETURNS TABLE (
	"state" TEXT,  
	"behind" bool,  
	"providers" bigint,  
	"rules" bigint,  
	"policy_bytes" bigint,  
	"policy_capacity" bigint,  
	"keyring_bytes" bigint,  
	"keyring_capacity" bigint,  
	"registry_hired" bool,  
	"keyring_hired" bool  
)
STRICT VOLATILE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'board_facts_wrapper';

CREATE  FUNCTION oidc."provider_problem"(
	"row" TEXT 
) RETURNS TEXT 
STRICT STABLE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'provider_problem_wrapper';

CREATE  FUNCTION oidc."rule_problem"(
	"row" TEXT 
) RETURNS TEXT 
STRICT STABLE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'rule_problem_wrapper';

CREATE  FUNCTION oidc."policy_limits"() RETURNS TABLE (
	"providers" bigint,  
	"rules" bigint,  
	"pattern_rules" bigint  
)
IMMUTABLE STRICT
LANGUAGE c 
AS 'MODULE_PATHNAME', 'policy_limits_wrapper';

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
                ('{oidc.provider,oidc.role_mapping}', '{check_row,check_stored_row,policy_changed,policy_truncated}'),
                ('{oidc.provider,oidc.role_mapping,oidc.revocation}', '{audit,audit_truncate}'),
                ('{oidc.revocation,oidc.identity_role,oidc.granted_membership}', '{refuse_change}')
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
            (SELECT array_agg(format('Provider "%s" takes the identity from "%s", which can change, or pass to somebody else.',
                                     p.name, p.identity_claim) ORDER BY p.name)
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

CREATE  FUNCTION oidc."role_problem"(
	"role" TEXT, 
	"role_oid" oid, 
	"allow_privileged" bool 
) RETURNS TEXT 
STABLE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'role_problem_wrapper';

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

-- A role that is derived from the token (\1) is looked up at each login, so nothing can be said of it here.
CREATE FUNCTION oidc.doctor_rule_roles()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH rules AS MATERIALIZED (
            SELECT m.id, m.role, m.role_oid, m.allow_privileged, m.databases, m.replication
              FROM oidc.role_mapping m
             WHERE m.enabled AND m.effect = 'allow' AND position(E'\\1' IN m.role) = 0
        ),
        -- Each role once, however many rules give it. 0: the role was missing when the rule was written.
        roles AS MATERIALIZED (
            SELECT role, coalesce(role_oid, 0) AS role_oid, allow_privileged,
                   oidc.role_problem(role, role_oid, allow_privileged) AS problem,
                   CASE WHEN allow_privileged THEN oidc.role_privilege(role) END AS power
              FROM rules GROUP BY role, role_oid, allow_privileged
        ),
        told AS MATERIALIZED (
            SELECT m.id, m.role, problem, m.allow_privileged, power
              FROM (SELECT * FROM roles WHERE problem IS NOT NULL OR allow_privileged) p
              JOIN rules m ON m.role = p.role AND coalesce(m.role_oid, 0) = p.role_oid
                          AND m.allow_privileged = p.allow_privileged
        ),
        -- Physical replication needs no database.
        places AS MATERIALIZED (
            SELECT role_oid, databases, role, array_agg(id) AS ids
              FROM rules
             WHERE NOT (replication AND databases IS NULL) AND role_oid IN (SELECT oid FROM pg_roles)
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
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
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

CREATE  FUNCTION oidc."library_version"() RETURNS TEXT 
STRICT STABLE
LANGUAGE c 
AS 'MODULE_PATHNAME', 'library_version_wrapper';

-- The checks of the server: library, workers, what is published, settings, HBA files. They need no policy.
CREATE FUNCTION oidc.doctor_library()
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
    $$;

COMMENT ON FUNCTION oidc.doctor_library() IS 'Checks of oidc.doctor(): the library, the policy database, settings';

CREATE FUNCTION oidc.doctor_workers()
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
    $$;

COMMENT ON FUNCTION oidc.doctor_workers() IS 'Checks of oidc.doctor(): the workers and what they have published';

CREATE FUNCTION oidc.doctor_hba()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH facts AS MATERIALIZED (
            SELECT f.*, oidc.is_preloaded() AS preloaded, current_setting('hba_file') AS active,
                   current_setting('ssl') = 'on' AS ssl,
                   current_setting('pg_oidc.require_tls', true) = 'on' AS require_tls,
                   current_setting('listen_addresses') <> '' AS listens
              FROM oidc.hba_facts() f
        )
        SELECT r.* FROM facts, oidc.check_result('guarded_file', 'fail',
            CASE WHEN guarded_file IS NULL THEN ARRAY['"pg_oidc.hba_file" is empty: no token is asked for.']
                 WHEN guarded_file <> active THEN ARRAY[format(
                    'The server uses "%s", not the guarded file "%s".', active, guarded_file)] END,
            CASE WHEN guarded_file IS NULL THEN 'Set "pg_oidc.hba_file" and restart the server.'
                 ELSE 'Look for another library that sets "hba_file", and restart the server.' END,
            format('The server uses "%s".', guarded_file)) r
         WHERE preloaded
        UNION ALL
        SELECT r.* FROM facts, oidc.check_result('native_hba_file',
            CASE WHEN trust_lines <> '{}' THEN 'fail' ELSE 'warn' END,
            CASE WHEN problem IS NOT NULL THEN ARRAY[format('"%s" could not be read: %s.', native_file, problem)]
            WHEN trust_lines <> '{}' AND guarded_file IS NULL THEN ARRAY[format(
                '"%s" is in use and has "trust" lines, which admit anyone: line %s.',
                native_file, array_to_string(trust_lines, ', '))]
            WHEN trust_lines <> '{}' THEN ARRAY[format(
                '"%s" rules when pg_oidc is gone, and has "trust" lines, which admit anyone: line %s.',
                native_file, array_to_string(trust_lines, ', '))]
            WHEN include_lines <> '{}' THEN ARRAY[format(
                '"%s" includes other files, which are not looked at here: line %s.',
                native_file, array_to_string(include_lines, ', '))] END,
            CASE WHEN problem IS NOT NULL THEN 'It must be there for the day on which the server starts without pg_oidc.'
                 WHEN trust_lines <> '{}' THEN 'Replace "trust" there by "scram-sha-256", "peer" or "reject".'
                 ELSE 'See to it that none of them has a "trust" line.' END,
            format('"%s" has no "trust" line.', native_file)) r
        UNION ALL
        SELECT r.* FROM facts, oidc.check_result('tls', CASE WHEN require_tls THEN 'fail' ELSE 'warn' END,
            CASE WHEN listens AND require_tls AND NOT ssl THEN ARRAY[
                '"ssl" is off: tokens are refused on all connections but Unix-domain sockets.']
            WHEN listens AND NOT require_tls THEN ARRAY[
                '"pg_oidc.require_tls" is off: whoever reads a token on the network can use it.'] END,
            CASE WHEN require_tls THEN 'Set "ssl", with a certificate and a key.'
                 ELSE 'Set "pg_oidc.require_tls" to on and reload the server.' END,
            CASE WHEN listens THEN 'Tokens are accepted over TLS and Unix-domain sockets only.'
                 ELSE 'The server listens on Unix-domain sockets only.' END) r
         WHERE preloaded
    $$;

COMMENT ON FUNCTION oidc.doctor_hba() IS 'Checks of oidc.doctor(): the HBA files as wholes, and TLS';

-- The lines as they stand in the file now, which count from the next reload on.
CREATE FUNCTION oidc.doctor_hba_lines()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH guarded AS MATERIALIZED (
            SELECT guarded_file AS path, current_setting('ssl') = 'on' AS ssl,
                   current_setting('pg_oidc.require_tls', true) = 'on' AS require_tls
              FROM oidc.hba_facts() WHERE guarded_file IS NOT NULL
        ),
        lines AS MATERIALIZED (
            SELECT row_number() OVER () AS place, h.type, h.database, h.user_name, h.auth_method AS method, h.error,
                   h.line_number AS line, to_jsonb(h) ->> 'file_name' AS file, guarded.*,
                   -- 16 and later name the file that each line stands in.
                   coalesce(to_jsonb(h) ->> 'file_name' <> path, false) AS included
              FROM guarded, pg_hba_file_rules h
        ),
        called AS MATERIALIZED (
            SELECT *, CASE WHEN included THEN format('Line %s of "%s"', line, file) ELSE format('Line %s', line) END AS what
              FROM lines
        ),
        ways AS MATERIALIZED (
            SELECT * FROM called l
             WHERE error IS NULL AND method NOT IN ('trust', 'reject', 'oauth')
               -- A line that an earlier one hides wholly is no way in.
               AND NOT EXISTS (SELECT FROM called e
                                WHERE e.place < l.place AND e.type = l.type AND l.type = 'local'
                                  AND e.database = '{all}' AND e.user_name = '{all}')
        )
        SELECT r.* FROM guarded, oidc.check_result('hba_errors', 'fail',
            (SELECT array_agg(format('%s: %s.', what, error) ORDER BY place) FROM called
              WHERE error IS NOT NULL AND type IS NULL),
            'Mend it: until then a reload changes nothing, and the server does not start again.',
            format('"%s" has no errors.', path)) r
        UNION ALL
        SELECT r.* FROM guarded, oidc.check_result('token_lines', 'warn',
            CASE WHEN NOT EXISTS (SELECT FROM called WHERE method = 'trust' AND NOT included) THEN ARRAY[format(
                '"%s" has no "trust" line: no token is asked for.', path)] END,
            'Add a line such as: hostssl all all 0.0.0.0/0 trust',
            (SELECT format('A token is asked for by line %s.', string_agg(line::text, ', ' ORDER BY place))
               FROM called WHERE method = 'trust' AND NOT included)) r
        UNION ALL
        SELECT r.* FROM guarded, oidc.check_result('included_token_lines', 'fail',
            (SELECT array_agg(format('%s is a "trust" line in an included file, which refuses everybody.', what)
                              ORDER BY place) FROM called WHERE method = 'trust' AND included),
            format('Write it into "%s" itself.', path),
            'No included file has a "trust" line.') r
        UNION ALL
        SELECT r.* FROM guarded, oidc.check_result('useless_lines', 'warn',
            (SELECT array_agg(CASE WHEN error IS NOT NULL THEN format('%s: %s.', what, error)
                                   ELSE format('%s is for connections without TLS, on which tokens are refused.', what) END
                              ORDER BY place)
               FROM called
              WHERE error IS NOT NULL AND type IS NOT NULL
                 OR method = 'trust' AND require_tls AND type IN ('hostnossl', 'hostgssenc')),
            'Remove the line, or make it "hostssl".',
            'Every line can match a connection that is let in.') r
        UNION ALL
        SELECT r.* FROM guarded, oidc.check_result('administrator_line', 'warn',
            CASE WHEN NOT EXISTS (SELECT FROM ways) THEN ARRAY[
                'Every connection needs a token: when tokens fail, nobody comes in.'] END,
            'Put a line such as "local all postgres peer" before the others.',
            (SELECT format('%s lets somebody in without a token.', what) FROM ways ORDER BY place LIMIT 1)) r
    $$;

COMMENT ON FUNCTION oidc.doctor_hba_lines() IS 'Checks of oidc.doctor(): the lines of the guarded HBA file';

COMMENT ON FUNCTION oidc.library_version() IS 'Version of the library that runs';

COMMENT ON FUNCTION oidc.board_facts() IS 'What is published, and how much room it takes; no row where the library is not preloaded';

COMMENT ON FUNCTION oidc.hba_facts() IS 'The guarded HBA file, and the trust lines of the server''s own';

-- Nobody but the owner, whatever ALTER DEFAULT PRIVILEGES of the one who runs this grants. What a DBA has granted on the
-- older objects stays.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('REVOKE ALL ON %s FROM %s', n.object,
                      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
          FROM (SELECT 'TABLE oidc.access' AS object, c.relacl AS acl, c.relowner AS owner
                  FROM pg_catalog.pg_class c WHERE c.oid = 'oidc.access'::pg_catalog.regclass
                UNION ALL
                SELECT 'FUNCTION ' || p.oid::pg_catalog.regprocedure::text,
                       coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), p.proowner
                  FROM pg_catalog.pg_proc p
                 WHERE p.pronamespace = 'oidc'::pg_catalog.regnamespace
                   AND p.proname IN (
                                'apply_policy', 'audit_change', 'board_facts', 'check_result', 'check_stored_rule',
                                'condition_text', 'doctor', 'doctor_hba', 'doctor_hba_lines', 'doctor_keys',
                                'doctor_library', 'doctor_providers', 'doctor_rule_matches', 'doctor_rule_roles',
                                'doctor_rules', 'doctor_tables', 'doctor_workers', 'document_columns', 'document_rows',
                                'explain', 'explain_claims', 'explain_claims_text', 'export_policy', 'hba_facts',
                                'is_preloaded', 'library_version', 'policy_limits', 'provider_problem', 'read_document',
                                'role_privilege', 'role_problem', 'rule_problem')) n,
               pg_catalog.aclexplode(n.acl) a
         WHERE a.grantee <> n.owner
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;
GRANT EXECUTE ON FUNCTION oidc.condition_text(text) TO PUBLIC;
