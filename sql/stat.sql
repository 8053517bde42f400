-- Figures since the server started, for monitoring. Whoever is to read it needs EXECUTE on oidc.stat_rows() too.
CREATE VIEW oidc.stat AS
    SELECT metric, provider, outcome, reason, value FROM oidc.stat_rows();
COMMENT ON VIEW oidc.stat IS 'Figures since the server started: logins by provider, outcome and reason, waits, the audit queue, the shared memory';
COMMENT ON COLUMN oidc.stat.metric IS '''logins'', ''password_logins'' (those by pg_oidc.password_fallback, without a provider), or another figure, which has neither provider nor outcome nor reason';
COMMENT ON COLUMN oidc.stat.provider IS 'Name of the provider; null where the token named no issuer of the policy';
COMMENT ON COLUMN oidc.stat.outcome IS '''accepted'' or ''refused'', by pg_oidc; ''failed'': accepted, and then not let in by the server itself';
COMMENT ON COLUMN oidc.stat.reason IS 'Code of the refusal, or ''turned_away'' of a login that failed; null where the login was accepted';
COMMENT ON COLUMN oidc.stat.value IS 'How many, or how many bytes';
COMMENT ON FUNCTION oidc.stat_rows() IS 'The rows of oidc.stat';
