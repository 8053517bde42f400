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
COMMENT ON FUNCTION oidc.is_preloaded() IS 'Whether the library is preloaded: only then anything is guarded';
