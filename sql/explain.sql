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
