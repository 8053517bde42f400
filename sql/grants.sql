-- PUBLIC may ask who it is, and nothing else. Stated in full, because ALTER DEFAULT PRIVILEGES of the one who runs
-- CREATE EXTENSION could have granted more.
REVOKE ALL ON SCHEMA oidc FROM PUBLIC;
GRANT USAGE ON SCHEMA oidc TO PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA oidc FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA oidc FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA oidc FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oidc.identity(), oidc.provider(), oidc.claims(), oidc.claim(text) TO PUBLIC;

COMMENT ON FUNCTION oidc.identity() IS 'Identity of the token that opened this session; null without a token';
COMMENT ON FUNCTION oidc.provider() IS 'Provider of the token that opened this session; null without a token';
COMMENT ON FUNCTION oidc.claims() IS 'All claims of the token that opened this session; null without a token';
COMMENT ON FUNCTION oidc.claim(text) IS 'One claim as text, by name or JSON Pointer (RFC 6901); null where there is none';
COMMENT ON FUNCTION oidc.judge_provider(text) IS 'Raises an error where a provider cannot be compiled';
COMMENT ON FUNCTION oidc.judge_rule(text) IS 'Raises an error where a rule cannot be compiled';
COMMENT ON FUNCTION oidc.check_rights() IS 'Trigger: who may change the policy, and in which database';
COMMENT ON FUNCTION oidc.refuse_change() IS 'Trigger: refuses rows that this version does not act on';
COMMENT ON FUNCTION oidc.policy_changed() IS 'Trigger: makes a committed change count from the next login on';
