-- People's own roles. The registry worker makes them and grants them what the rules give; administrators bind roles that
-- exist. Names are text: a longer one than a role can have is refused instead of cut.

CREATE FUNCTION oidc.role_oid(role text) RETURNS oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT CASE WHEN octet_length($1) < 64 THEN to_regrole(quote_ident($1)) END::oid $$;
COMMENT ON FUNCTION oidc.role_oid(text) IS 'The oid of a role; null where there is none of that name';

CREATE FUNCTION oidc.check_binding() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF NEW.provider IS NULL OR NEW.subject IS NULL OR NEW.role IS NULL THEN
            RETURN NEW;
        ELSIF octet_length(NEW.role) NOT BETWEEN 1 AND 63 THEN
            RAISE EXCEPTION '"role" must have 1 to 63 bytes' USING ERRCODE = 'check_violation';
        ELSIF NEW.role IN ('public', 'none') OR NEW.role LIKE 'pg\_%' THEN
            RAISE EXCEPTION 'role name "%" is reserved', NEW.role USING ERRCODE = 'check_violation';
        ELSIF NEW.subject = '' OR octet_length(NEW.subject) > 2048 THEN
            RAISE EXCEPTION '"subject" must have 1 to 2048 bytes' USING ERRCODE = 'check_violation',
                HINT = 'It is the claim "sub" of the identity.';
        END IF;
        NEW.role_oid := oidc.role_oid(NEW.role);
        IF NEW.role_oid IS NULL THEN
            RAISE WARNING 'role "%" does not exist', NEW.role USING ERRCODE = 'undefined_object',
                DETAIL = 'Nobody logs in with it until the role exists and the row is written again.';
        END IF;
        RETURN NEW;
    END
    $$;
COMMENT ON FUNCTION oidc.check_binding() IS 'Trigger: keeps the oid of a person''s own role';

CREATE FUNCTION oidc.check_membership() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        NEW.role_oid := oidc.role_oid(NEW.role);
        NEW.member_oid := oidc.role_oid(NEW.member);
        RETURN NEW;
    END
    $$;
COMMENT ON FUNCTION oidc.check_membership() IS 'Trigger: keeps the oids of a granted membership';

-- When a person last logged in changes nothing that counts, and is no event.
CREATE TRIGGER check_row BEFORE INSERT OR UPDATE OF role, role_oid, subject ON oidc.identity_role
    FOR EACH ROW EXECUTE FUNCTION oidc.check_binding();
ALTER TABLE oidc.identity_role ENABLE ALWAYS TRIGGER check_row;
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OF provider, subject, role, role_oid OR DELETE ON oidc.identity_role
    FOR EACH ROW EXECUTE FUNCTION oidc.policy_changed();
ALTER TABLE oidc.identity_role ENABLE ALWAYS TRIGGER policy_changed;
CREATE TRIGGER policy_truncated AFTER TRUNCATE ON oidc.identity_role
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.policy_changed();
ALTER TABLE oidc.identity_role ENABLE ALWAYS TRIGGER policy_truncated;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OF provider, subject, role, role_oid, made_by_us OR DELETE ON oidc.identity_role
    FOR EACH ROW EXECUTE FUNCTION oidc.audit_change();
ALTER TABLE oidc.identity_role ENABLE ALWAYS TRIGGER audit;
CREATE TRIGGER audit_truncate AFTER TRUNCATE ON oidc.identity_role
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.audit_change();
ALTER TABLE oidc.identity_role ENABLE ALWAYS TRIGGER audit_truncate;

CREATE TRIGGER check_row BEFORE INSERT OR UPDATE OF role, member, role_oid, member_oid ON oidc.granted_membership
    FOR EACH ROW EXECUTE FUNCTION oidc.check_membership();
ALTER TABLE oidc.granted_membership ENABLE ALWAYS TRIGGER check_row;
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OF role, member, role_oid, member_oid OR DELETE ON oidc.granted_membership
    FOR EACH ROW EXECUTE FUNCTION oidc.policy_changed();
ALTER TABLE oidc.granted_membership ENABLE ALWAYS TRIGGER policy_changed;
CREATE TRIGGER policy_truncated AFTER TRUNCATE ON oidc.granted_membership
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.policy_changed();
ALTER TABLE oidc.granted_membership ENABLE ALWAYS TRIGGER policy_truncated;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON oidc.granted_membership
    FOR EACH ROW EXECUTE FUNCTION oidc.audit_change();
ALTER TABLE oidc.granted_membership ENABLE ALWAYS TRIGGER audit;
CREATE TRIGGER audit_truncate AFTER TRUNCATE ON oidc.granted_membership
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.audit_change();
ALTER TABLE oidc.granted_membership ENABLE ALWAYS TRIGGER audit_truncate;

-- A revoked person's own role, if pg_oidc made it, cannot log in by any other way either. Only what was locked for a
-- revocation is unlocked with it. Only superusers and oidc.revoke() get here. A row that comes from a dump says what was
-- locked there.
CREATE FUNCTION oidc.lock_role() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        locks CONSTANT boolean := TG_OP <> 'DELETE' AND NEW.until > clock_timestamp();
        unlocks CONSTANT boolean := NOT locks AND CASE TG_OP WHEN 'INSERT' THEN NEW.role_locked ELSE OLD.role_locked END;
        own text;
    BEGIN
        -- Where INSERT … ON CONFLICT finds a row, the trigger comes again for the UPDATE.
        IF TG_OP = 'INSERT' AND EXISTS (SELECT FROM oidc.revocation r
                                         WHERE (r.provider, r.subject) = (NEW.provider, NEW.subject)) THEN
            RETURN NEW;
        END IF;
        IF locks OR unlocks THEN
            SELECT r.rolname INTO own FROM oidc.identity_role i JOIN pg_roles r ON r.oid = i.role_oid
             WHERE i.made_by_us AND r.rolcanlogin = locks
               AND i.provider = CASE TG_OP WHEN 'DELETE' THEN OLD.provider ELSE NEW.provider END
               AND i.subject = CASE TG_OP WHEN 'DELETE' THEN OLD.subject ELSE NEW.subject END;
            IF own IS NOT NULL THEN
                EXECUTE format('ALTER ROLE %I %s', own, CASE WHEN locks THEN 'NOLOGIN' ELSE 'LOGIN' END);
            END IF;
        END IF;
        IF TG_OP = 'DELETE' THEN
            RETURN OLD;
        END IF;
        NEW.role_locked := locks AND (NEW.role_locked OR own IS NOT NULL);
        RETURN NEW;
    END
    $$;
COMMENT ON FUNCTION oidc.lock_role() IS 'Trigger: sets the own role of a revoked person NOLOGIN, and LOGIN again afterwards';
CREATE TRIGGER lock_role BEFORE INSERT OR UPDATE OR DELETE ON oidc.revocation
    FOR EACH ROW EXECUTE FUNCTION oidc.lock_role();
ALTER TABLE oidc.revocation ENABLE ALWAYS TRIGGER lock_role;

-- TRUNCATE takes all revocations back.
CREATE FUNCTION oidc.unlock_roles() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        own text;
    BEGIN
        FOR own IN SELECT a.rolname FROM oidc.revocation v JOIN oidc.identity_role i USING (provider, subject)
                     JOIN pg_roles a ON a.oid = i.role_oid
                    WHERE v.role_locked AND i.made_by_us AND NOT a.rolcanlogin
        LOOP
            EXECUTE format('ALTER ROLE %I LOGIN', own);
        END LOOP;
        RETURN NULL;
    END
    $$;
COMMENT ON FUNCTION oidc.unlock_roles() IS 'Trigger: sets the own roles that were locked for revocations LOGIN again';
CREATE TRIGGER unlock_roles BEFORE TRUNCATE ON oidc.revocation
    FOR EACH STATEMENT EXECUTE FUNCTION oidc.unlock_roles();
ALTER TABLE oidc.revocation ENABLE ALWAYS TRIGGER unlock_roles;

-- Own roles of people who have not come for that long: those that own nothing and have no rights anywhere are dropped,
-- the others can no longer log in.
CREATE FUNCTION oidc.prune_identities(older_than interval, dry_run boolean DEFAULT false)
    RETURNS TABLE (provider text, subject text, role text, last_login timestamptz, action text)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        known record;
    BEGIN
        IF older_than IS NULL OR older_than < '0' THEN
            RAISE invalid_parameter_value USING MESSAGE = '"older_than" must be an interval that is not negative';
        END IF;
        FOR known IN
            SELECT i.provider, i.subject, r.rolname, r.oid, i.last_login, r.rolcanlogin,
                   NOT EXISTS (SELECT FROM pg_shdepend d
                                WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid) AS bare
              FROM oidc.identity_role i JOIN pg_roles r ON r.oid = i.role_oid
             WHERE i.made_by_us AND coalesce(i.last_login, '-infinity') <= now() - older_than
               AND NOT EXISTS (SELECT FROM oidc.session s WHERE (s.provider, s.subject) = (i.provider, i.subject))
               AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.usesysid = r.oid)
             ORDER BY i.provider, i.subject
        LOOP
            provider := known.provider;
            subject := known.subject;
            role := known.rolname;
            last_login := known.last_login;
            IF known.bare THEN
                action := 'drop';
                IF NOT dry_run THEN
                    DELETE FROM oidc.granted_membership g WHERE g.member_oid = known.oid;
                    DELETE FROM oidc.identity_role i WHERE (i.provider, i.subject) = (known.provider, known.subject);
                    EXECUTE format('DROP ROLE %I', known.rolname);
                END IF;
            ELSIF known.rolcanlogin THEN
                action := 'nologin';
                IF NOT dry_run THEN
                    EXECUTE format('ALTER ROLE %I NOLOGIN', known.rolname);
                END IF;
            ELSE
                CONTINUE;
            END IF;
            RETURN NEXT;
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION oidc.prune_identities(interval, boolean) IS 'Drops the own roles, made by pg_oidc, of people who have not logged in for that long and that own nothing; others are set NOLOGIN until an administrator sets them LOGIN. With dry_run: only says so';
