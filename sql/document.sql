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
