-- One row as JSON, with times in microseconds: what the compiler reads, of providers in triggers and in the worker, of rules
-- in oidc.doctor(). Bodies that are parsed now need no search_path, and without one a query takes them in. The last 30 years
-- of timestamptz are beyond 64 bits of microseconds since 1970.
CREATE FUNCTION oidc.provider_row(oidc.provider) RETURNS text STABLE
    RETURN (to_jsonb($1) || jsonb_build_object(
        'max_stale_us', (extract(epoch FROM $1.max_stale) * 1000000)::bigint,
        'clock_skew_us', (extract(epoch FROM $1.clock_skew) * 1000000)::bigint,
        'max_token_age_us', (extract(epoch FROM $1.max_token_age) * 1000000)::bigint))::text;
COMMENT ON FUNCTION oidc.provider_row(oidc.provider) IS 'A provider as JSON, for the compiler';

CREATE FUNCTION oidc.rule_row(oidc.role_mapping) RETURNS text STABLE
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
COMMENT ON FUNCTION oidc.rule_row(oidc.role_mapping) IS 'A rule as JSON, for the compiler';

CREATE FUNCTION oidc.check_provider() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        -- A null that must not be is refused by the column's NOT NULL, which names the column.
        IF NEW.name IS NULL OR NEW.issuer IS NULL OR NEW.audiences IS NULL OR NEW.audience_claim IS NULL
            OR NEW.algorithms IS NULL OR NEW.identity_claim IS NULL OR NEW.max_stale IS NULL
            OR NEW.clock_skew IS NULL OR NEW.session_limit IS NULL OR NEW.auto_provision IS NULL
            OR NEW.enabled IS NULL THEN
            RETURN NEW;
        END IF;
        PERFORM oidc.judge_provider(oidc.provider_row(NEW));
        RETURN NEW;
    END
    $$;
COMMENT ON FUNCTION oidc.check_provider() IS 'Trigger: refuses a provider that cannot be used, with the reason';

ALTER FUNCTION oidc.check_rights() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION oidc.check_rule() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION oidc.check_stored_rule() SET search_path = pg_catalog, pg_temp;
-- Moves oidc.policy_state for whoever may write the table that fired it.
ALTER FUNCTION oidc.policy_changed() SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

-- Triggers are ENABLE ALWAYS: they fire under session_replication_role = replica and for a logical apply worker too.
-- Those of one table fire in the order of their names: rights first. Somebody else's may fire after ours and change the
-- row once more, so the row as it is stored is checked again.

CREATE TRIGGER check_rights BEFORE INSERT OR UPDATE OR DELETE ON oidc.provider
    FOR EACH ROW EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.provider ENABLE ALWAYS TRIGGER check_rights;
CREATE TRIGGER check_rights_to_truncate BEFORE TRUNCATE ON oidc.provider
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.provider ENABLE ALWAYS TRIGGER check_rights_to_truncate;
CREATE TRIGGER check_row BEFORE INSERT OR UPDATE ON oidc.provider
    FOR EACH ROW EXECUTE FUNCTION oidc.check_provider();
ALTER TABLE oidc.provider ENABLE ALWAYS TRIGGER check_row;
CREATE TRIGGER check_stored_row AFTER INSERT OR UPDATE ON oidc.provider
    FOR EACH ROW EXECUTE FUNCTION oidc.check_provider();
ALTER TABLE oidc.provider ENABLE ALWAYS TRIGGER check_stored_row;
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE ON oidc.provider
    FOR EACH ROW EXECUTE FUNCTION oidc.policy_changed();
ALTER TABLE oidc.provider ENABLE ALWAYS TRIGGER policy_changed;
CREATE TRIGGER policy_truncated AFTER TRUNCATE ON oidc.provider
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.policy_changed();
ALTER TABLE oidc.provider ENABLE ALWAYS TRIGGER policy_truncated;

CREATE TRIGGER check_rights BEFORE INSERT OR UPDATE OR DELETE ON oidc.role_mapping
    FOR EACH ROW EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.role_mapping ENABLE ALWAYS TRIGGER check_rights;
CREATE TRIGGER check_rights_to_truncate BEFORE TRUNCATE ON oidc.role_mapping
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.role_mapping ENABLE ALWAYS TRIGGER check_rights_to_truncate;
CREATE TRIGGER check_row BEFORE INSERT OR UPDATE ON oidc.role_mapping
    FOR EACH ROW EXECUTE FUNCTION oidc.check_rule();
ALTER TABLE oidc.role_mapping ENABLE ALWAYS TRIGGER check_row;
CREATE TRIGGER check_stored_row AFTER INSERT OR UPDATE ON oidc.role_mapping
    FOR EACH ROW EXECUTE FUNCTION oidc.check_stored_rule();
ALTER TABLE oidc.role_mapping ENABLE ALWAYS TRIGGER check_stored_row;
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE ON oidc.role_mapping
    FOR EACH ROW EXECUTE FUNCTION oidc.policy_changed();
ALTER TABLE oidc.role_mapping ENABLE ALWAYS TRIGGER policy_changed;
CREATE TRIGGER policy_truncated AFTER TRUNCATE ON oidc.role_mapping
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.policy_changed();
ALTER TABLE oidc.role_mapping ENABLE ALWAYS TRIGGER policy_truncated;

CREATE TRIGGER check_rights BEFORE INSERT OR UPDATE OR DELETE ON oidc.revocation
    FOR EACH ROW EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.revocation ENABLE ALWAYS TRIGGER check_rights;
CREATE TRIGGER check_rights_to_truncate BEFORE TRUNCATE ON oidc.revocation
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.revocation ENABLE ALWAYS TRIGGER check_rights_to_truncate;
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE ON oidc.revocation
    FOR EACH ROW EXECUTE FUNCTION oidc.policy_changed();
ALTER TABLE oidc.revocation ENABLE ALWAYS TRIGGER policy_changed;
CREATE TRIGGER policy_truncated AFTER TRUNCATE ON oidc.revocation
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.policy_changed();
ALTER TABLE oidc.revocation ENABLE ALWAYS TRIGGER policy_truncated;

CREATE TRIGGER check_rights BEFORE INSERT OR UPDATE OR DELETE ON oidc.identity_role
    FOR EACH ROW EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.identity_role ENABLE ALWAYS TRIGGER check_rights;
CREATE TRIGGER check_rights_to_truncate BEFORE TRUNCATE ON oidc.identity_role
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.identity_role ENABLE ALWAYS TRIGGER check_rights_to_truncate;

CREATE TRIGGER check_rights BEFORE INSERT OR UPDATE OR DELETE ON oidc.granted_membership
    FOR EACH ROW EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.granted_membership ENABLE ALWAYS TRIGGER check_rights;
CREATE TRIGGER check_rights_to_truncate BEFORE TRUNCATE ON oidc.granted_membership
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.granted_membership ENABLE ALWAYS TRIGGER check_rights_to_truncate;

-- Whoever writes a key there lets tokens in that it signs.
CREATE TRIGGER check_rights BEFORE INSERT OR UPDATE OR DELETE ON oidc.jwks_cache
    FOR EACH ROW EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.jwks_cache ENABLE ALWAYS TRIGGER check_rights;
CREATE TRIGGER check_rights_to_truncate BEFORE TRUNCATE ON oidc.jwks_cache
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.jwks_cache ENABLE ALWAYS TRIGGER check_rights_to_truncate;

-- Whoever moves the generation could keep changes from counting on a standby.
CREATE TRIGGER check_rights BEFORE INSERT OR UPDATE OR DELETE ON oidc.policy_state
    FOR EACH ROW EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.policy_state ENABLE ALWAYS TRIGGER check_rights;
CREATE TRIGGER check_rights_to_truncate BEFORE TRUNCATE ON oidc.policy_state
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.check_rights();
ALTER TABLE oidc.policy_state ENABLE ALWAYS TRIGGER check_rights_to_truncate;

COMMENT ON FUNCTION oidc.check_rule() IS 'Trigger: refuses a rule that cannot be compiled, with the reason, and keeps the role''s oid';
COMMENT ON FUNCTION oidc.check_stored_rule() IS 'Trigger: checks a rule again, as it is stored';
