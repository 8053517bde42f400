-- Every change of the policy is an event, written in the transaction of the change; every login is one, written by the
-- registry worker soon after, and so is what becomes of keys.
COMMENT ON TABLE oidc.audit_log IS 'Logins, accepted, refused and failed, sessions that were ended, changes of providers, rules and revocations, and what became of the providers'' keys. Only superusers may change it; rows older than "pg_oidc.audit_retention" are deleted';
COMMENT ON COLUMN oidc.audit_log.id IS 'Number of the event';
COMMENT ON COLUMN oidc.audit_log."time" IS 'When it happened';
COMMENT ON COLUMN oidc.audit_log.event IS '''login'', ''password_login'' (see pg_oidc.password_fallback), ''session_end''; ''keys_changed'', ''keys_failed'' (the first failure in a row), ''keys_recovered'', ''keys_leaked''; or provider_, rule_ or revocation_ and created, changed, deleted or truncated (one event for a TRUNCATE, without rows)';
COMMENT ON COLUMN oidc.audit_log.outcome IS '''accepted'', ''refused'' or, after it was accepted, ''failed'' for a login, ''ended'' for a session, ''done'' for the others';
COMMENT ON COLUMN oidc.audit_log.reason IS 'Why a login was refused or a session was ended, as in the server log; ''turned_away'' for a login that the server itself did not let in after all; why keys could not be fetched, or must not be in a key set';
COMMENT ON COLUMN oidc.audit_log.provider IS 'The provider, or the provider of the rule, revocation or keys; null for a login whose token names no issuer of the policy';
COMMENT ON COLUMN oidc.audit_log.subject IS 'The claim "sub" of a token whose signature was verified; the subject of the revocation';
COMMENT ON COLUMN oidc.audit_log.identity IS 'The identity of a token whose signature was verified';
COMMENT ON COLUMN oidc.audit_log.requested_user IS 'The user that the client asked for';
COMMENT ON COLUMN oidc.audit_log.role IS 'The role of an accepted login, or of the rule';
COMMENT ON COLUMN oidc.audit_log.rule_id IS 'The rule that gave the role or denied the login; the id of the changed rule';
COMMENT ON COLUMN oidc.audit_log.database IS 'The database of the session, or that the client asked for';
COMMENT ON COLUMN oidc.audit_log.client_address IS 'The address of the client; null for a Unix-domain socket';
COMMENT ON COLUMN oidc.audit_log.tls IS 'Whether the connection is encrypted by TLS';
COMMENT ON COLUMN oidc.audit_log.application_name IS 'What the client calls itself';
COMMENT ON COLUMN oidc.audit_log.kid IS 'The provider''s key that fits the token, by its "kid"';
COMMENT ON COLUMN oidc.audit_log.token_id IS 'Which token it was, once its signature was verified: the claim "jti", else a hash of the token that is the same in this cluster only';
COMMENT ON COLUMN oidc.audit_log.pid IS 'The process of the session, or that refused it, or that fetched the keys';
COMMENT ON COLUMN oidc.audit_log."session_user" IS 'Who logged in';
COMMENT ON COLUMN oidc.audit_log."current_user" IS 'Whose rights counted in the statement';
COMMENT ON COLUMN oidc.audit_log.before IS 'The row before the change; the "kid" of each usable key before it';
COMMENT ON COLUMN oidc.audit_log.after IS 'The row after the change; the "kid" of each usable key after it, or of those that must not be in a key set';
COMMENT ON COLUMN oidc.audit_log.facts IS 'Of a login whose token passed the checks of the provider: claims, those that the provider and its rules look at, up to 8 kB. Of a change: token, the provider, subject and identity of the token that opened the session, where one did. Of keys_failed: detail, what failed in words';

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
