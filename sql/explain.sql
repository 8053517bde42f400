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
