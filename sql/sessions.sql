-- Every live token session. Whoever is to read it needs EXECUTE on oidc.session_rows() too.
CREATE VIEW oidc.session AS
    SELECT pid, provider, subject, identity, role, since, ends_at, database, client_address FROM oidc.session_rows();
COMMENT ON VIEW oidc.session IS 'Live token sessions of the whole server; pid joins with pg_stat_activity';
COMMENT ON COLUMN oidc.session.pid IS 'The backend''s process';
COMMENT ON COLUMN oidc.session.provider IS 'The provider of its token';
COMMENT ON COLUMN oidc.session.subject IS 'The claim "sub" of its token';
COMMENT ON COLUMN oidc.session.identity IS 'The identity that its token names';
COMMENT ON COLUMN oidc.session.role IS 'The role that it logged in with';
COMMENT ON COLUMN oidc.session.since IS 'When it logged in';
COMMENT ON COLUMN oidc.session.ends_at IS 'When session_limit ends it; null: not by time. The time of its rule may be over earlier';
COMMENT ON COLUMN oidc.session.database IS 'Its database; empty for physical replication';
COMMENT ON COLUMN oidc.session.client_address IS 'The client''s address; null for a Unix-domain socket';
COMMENT ON FUNCTION oidc.session_rows() IS 'The rows of oidc.session';
COMMENT ON FUNCTION oidc.end_identity(text, text, boolean) IS 'Ends the live sessions of an identity, for oidc.revoke and oidc.end_sessions';

-- Whoever has EXECUTE on these three may end anybody's sessions; they write oidc.revocation with the owner's rights.
CREATE FUNCTION oidc.revoke(provider text, subject text, reason text DEFAULT NULL, until timestamptz DEFAULT 'infinity')
    RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF $4 <= clock_timestamp() THEN
            RAISE invalid_parameter_value USING MESSAGE = '"until" must be in the future';
        END IF;
        INSERT INTO oidc.revocation AS r (provider, subject, reason, until) VALUES ($1, $2, $3, $4)
            ON CONFLICT ON CONSTRAINT revocation_pkey
            DO UPDATE SET reason = EXCLUDED.reason, until = EXCLUDED.until,
                          created_by = EXCLUDED.created_by, created_at = EXCLUDED.created_at;
        RETURN oidc.end_identity($1, $2, true);
    END
    $$;
COMMENT ON FUNCTION oidc.revoke(text, text, text, timestamptz) IS 'Refuses every token of an identity, and ends its live sessions; gives how many were signalled';

CREATE FUNCTION oidc.reinstate(provider text, subject text)
    RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        revoked boolean;
    BEGIN
        SELECT r.until > clock_timestamp() INTO revoked FROM oidc.revocation r
         WHERE r.provider = $1 AND r.subject = $2 FOR UPDATE;
        DELETE FROM oidc.revocation r WHERE r.provider = $1 AND r.subject = $2 AND r.tokens_before IS NULL;
        -- That its sessions were once ended still counts for the tokens of before.
        UPDATE oidc.revocation r SET until = '-infinity', reason = NULL
         WHERE r.provider = $1 AND r.subject = $2 AND r.until > '-infinity';
        RETURN coalesce(revoked, false);
    END
    $$;
COMMENT ON FUNCTION oidc.reinstate(text, text) IS 'Takes a revocation back; gives whether there was one';

CREATE FUNCTION oidc.end_sessions(provider text, subject text)
    RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        INSERT INTO oidc.revocation AS r (provider, subject, until, tokens_before)
            VALUES ($1, $2, '-infinity', clock_timestamp())
            ON CONFLICT ON CONSTRAINT revocation_pkey DO UPDATE SET tokens_before = EXCLUDED.tokens_before;
        RETURN oidc.end_identity($1, $2, false);
    END
    $$;
COMMENT ON FUNCTION oidc.end_sessions(text, text) IS 'Ends the live sessions of an identity and refuses its tokens issued until now; gives how many were signalled';
