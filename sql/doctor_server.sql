-- The checks of the server: library, workers, what is published, settings, HBA files. They need no policy.

CREATE FUNCTION oidc.doctor_library()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH facts AS MATERIALIZED (
            SELECT oidc.is_preloaded() AS preloaded,
                   oidc.library_version() AS library,
                   (SELECT extversion FROM pg_extension WHERE extname = 'pg_oidc') AS extension,
                   (SELECT default_version FROM pg_available_extensions a WHERE a.name = 'pg_oidc') AS installed,
                   coalesce(current_setting('pg_oidc.database', true), '') AS policy_database,
                   current_setting('pg_oidc.allow_http', true) AS allow_http,
                   current_setting('pg_oidc.password_fallback', true) AS password_fallback,
                   (SELECT setting::bigint FROM pg_settings s WHERE s.name = 'pg_oidc.wait_timeout') AS wait_ms,
                   (SELECT setting::bigint * 1000 FROM pg_settings s WHERE s.name = 'authentication_timeout') AS login_ms
        )
        SELECT r.* FROM facts, oidc.check_result('library_preloaded', 'fail',
            CASE WHEN NOT preloaded THEN ARRAY[
                'The library is not preloaded: no token is accepted, and the guarded HBA file is not in use.'] END,
            'Add pg_oidc to "shared_preload_libraries" in postgresql.conf and restart the server.',
            'The library is preloaded.') r
        UNION ALL
        SELECT r.* FROM facts, oidc.check_result('library_version', 'fail',
            CASE WHEN installed <> library THEN ARRAY[format(
                'Version %s is installed, but the server still runs the library of version %s.', installed, library)]
            WHEN extension <> library THEN ARRAY[format(
                'The extension in database "%s" is of version %s, the library of version %s.',
                current_database(), extension, library)] END,
            CASE WHEN installed <> library THEN 'Restart the server, then run ALTER EXTENSION pg_oidc UPDATE.'
                 ELSE 'Run ALTER EXTENSION pg_oidc UPDATE.' END,
            format('Library and extension are of version %s.', library)) r
        UNION ALL
        SELECT r.* FROM facts, oidc.check_result('policy_database', 'fail',
            CASE WHEN NOT EXISTS (SELECT FROM pg_database WHERE datname = policy_database) THEN ARRAY[format(
                'Database "%s", which is to hold the policy, does not exist.', policy_database)]
            WHEN policy_database <> current_database() THEN ARRAY[format(
                'This is database "%s", the policy is in "%s": providers and rules are not checked here.',
                current_database(), policy_database)] END,
            CASE WHEN NOT EXISTS (SELECT FROM pg_database WHERE datname = policy_database)
                 THEN 'Create it and the extension in it, or change "pg_oidc.database" and restart the server.'
                 ELSE format('Connect to "%s" and call oidc.doctor() there.', policy_database) END,
            format('The policy is in this database, "%s".', policy_database)) r
         WHERE preloaded
        UNION ALL
        SELECT r.* FROM facts, oidc.check_result('wait_timeout', 'warn',
            CASE WHEN wait_ms * 2 > login_ms THEN ARRAY[format(
                '"pg_oidc.wait_timeout" is %s ms; only half of authentication_timeout, %s ms, counts.',
                wait_ms, login_ms / 2)] END,
            'Lower "pg_oidc.wait_timeout", or raise "authentication_timeout".',
            format('A login waits %s ms at most for policy or keys.', wait_ms)) r
         WHERE preloaded
        UNION ALL
        SELECT r.* FROM facts, oidc.check_result('allow_http', 'warn',
            CASE WHEN allow_http = 'on' THEN ARRAY[
                'Keys of issuers on the loopback interface may be fetched without TLS.'] END,
            'Set "pg_oidc.allow_http" to off and restart the server; on is for tests.',
            'Keys are fetched over https only.') r
         WHERE preloaded
        UNION ALL
        SELECT r.* FROM facts, oidc.check_result('password_fallback', 'warn',
            CASE WHEN password_fallback = 'on' THEN ARRAY[
                'Where a token is asked for, the stored password of a role opens a session too, whatever the policy says.'] END,
            'Set "pg_oidc.password_fallback" to off and reload the server once everybody comes with a token.',
            'Stored passwords are not accepted where a token is asked for.') r
         WHERE preloaded
    $$;
COMMENT ON FUNCTION oidc.doctor_library() IS 'Checks of oidc.doctor(): the library, the policy database, settings';

CREATE FUNCTION oidc.doctor_workers()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH board AS MATERIALIZED (SELECT * FROM oidc.board_facts()),
        workers AS MATERIALIZED (
            SELECT worker, hired, (SELECT min(pid) FROM pg_stat_activity WHERE backend_type = worker) AS pid
              FROM board, LATERAL (VALUES ('pg_oidc registry', registry_hired), ('pg_oidc keyring', keyring_hired))
                       w (worker, hired)
        ),
        images AS MATERIALIZED (
            SELECT image, what, bytes, capacity,
                   -- Twice the room that the image takes now, rounded up.
                   ceil((SELECT setting::numeric FROM pg_settings s WHERE s.name = 'pg_oidc.shared_memory')
                        / 1024 * bytes / capacity * 2) AS megabytes
              FROM board, LATERAL (VALUES ('policy_size', 'policy takes', policy_bytes, policy_capacity),
                                          ('keyring_size', 'keys take', keyring_bytes, keyring_capacity))
                       i (image, what, bytes, capacity)
        )
        SELECT r.* FROM oidc.check_result('workers', 'fail',
            (SELECT array_agg(CASE WHEN hired THEN format('Worker "%s" is not running.', worker)
                                   ELSE format('Worker "%s" has no slot to run in.', worker) END)
               FROM workers WHERE pid IS NULL),
            (SELECT CASE WHEN bool_and(hired) THEN 'The server starts it again every two seconds; its log says why it ends.'
                         ELSE format('Raise "max_worker_processes" (now %s) and restart the server.',
                                     current_setting('max_worker_processes')) END
               FROM workers),
            (SELECT 'Both run: ' || string_agg(format('%s with pid %s', worker, pid), ', ') || '.' FROM workers)) r
         WHERE EXISTS (SELECT FROM board)
        UNION ALL
        SELECT r.* FROM board, oidc.check_result('policy_published', 'fail',
            CASE WHEN state = 'overflow' THEN ARRAY[
                'The policy is over a limit and is not published: every token is refused.']
            WHEN state = 'absent' THEN ARRAY[
                'The registry worker finds no extension in the policy database: every token is refused.']
            WHEN state = 'starting' THEN ARRAY['No policy was published since the server started.']
            WHEN behind THEN ARRAY['The last committed change is not published yet: logins wait for it, then are refused.']
            END,
            CASE WHEN state = 'overflow' THEN 'See the rows "policy_size", "provider_count", "rule_count" and "pattern_rules".'
                 WHEN state = 'absent' THEN 'Run CREATE EXTENSION pg_oidc in the policy database.'
                 ELSE 'The server log says what the registry worker waits for, such as a lock on a policy table.' END,
            format('Published: %s providers, %s rules.', providers, rules)) r
        UNION ALL
        SELECT r.* FROM images, oidc.check_result(image, CASE WHEN bytes > capacity THEN 'fail' ELSE 'warn' END,
            CASE WHEN bytes * 5 >= capacity * 4 THEN ARRAY[format(
                'The %s %s of the %s bytes that there are.', what, bytes, capacity)] END,
            format('Set "pg_oidc.shared_memory" to %sMB and restart the server.', megabytes),
            format('%s of %s bytes are in use.', bytes, capacity)) r
        UNION ALL
        SELECT r.* FROM board,
            LATERAL (SELECT coalesce(max(value) FILTER (WHERE metric = 'audit_events_dropped'), 0) AS dropped,
                            coalesce(max(value) FILTER (WHERE metric = 'audit_events_waiting'), 0) AS waiting,
                            coalesce(max(value) FILTER (WHERE metric = 'audit_queue_bytes'), 0) * 2
                                >= max(value) FILTER (WHERE metric = 'audit_queue_capacity') AS half_full
                       FROM oidc.stat_rows() WHERE state IS NOT NULL) queue,
            oidc.check_result('audit_queue', 'warn',
            CASE WHEN dropped > 0 THEN ARRAY[format(
                '%s logins since the server started are not in oidc.audit_log, only in the server log.', dropped)] END
            || CASE WHEN half_full THEN ARRAY[format(
                '%s logins wait to be written to oidc.audit_log, which takes half of the room for them.', waiting)] END,
            'The server log says why oidc.audit_log could not be written, or there were more logins than it could take.',
            format('%s logins wait to be written.', waiting)) r
    $$;
COMMENT ON FUNCTION oidc.doctor_workers() IS 'Checks of oidc.doctor(): the workers and what they have published';

CREATE FUNCTION oidc.doctor_hba()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH facts AS MATERIALIZED (
            SELECT f.*, oidc.is_preloaded() AS preloaded, current_setting('hba_file') AS active,
                   current_setting('ssl') = 'on' AS ssl,
                   current_setting('pg_oidc.require_tls', true) = 'on' AS require_tls,
                   current_setting('listen_addresses') <> '' AS listens
              FROM oidc.hba_facts() f
        )
        SELECT r.* FROM facts, oidc.check_result('guarded_file', 'fail',
            CASE WHEN guarded_file IS NULL THEN ARRAY['"pg_oidc.hba_file" is empty: no token is asked for.']
                 WHEN guarded_file <> active THEN ARRAY[format(
                    'The server uses "%s", not the guarded file "%s".', active, guarded_file)] END,
            CASE WHEN guarded_file IS NULL THEN 'Set "pg_oidc.hba_file" and restart the server.'
                 ELSE 'Look for another library that sets "hba_file", and restart the server.' END,
            format('The server uses "%s".', guarded_file)) r
         WHERE preloaded
        UNION ALL
        SELECT r.* FROM facts, oidc.check_result('native_hba_file',
            CASE WHEN trust_lines <> '{}' THEN 'fail' ELSE 'warn' END,
            CASE WHEN problem IS NOT NULL THEN ARRAY[format('"%s" could not be read: %s.', native_file, problem)]
            WHEN trust_lines <> '{}' AND guarded_file IS NULL THEN ARRAY[format(
                '"%s" is in use and has "trust" lines, which admit anyone: line %s.',
                native_file, array_to_string(trust_lines, ', '))]
            WHEN trust_lines <> '{}' THEN ARRAY[format(
                '"%s" rules when pg_oidc is gone, and has "trust" lines, which admit anyone: line %s.',
                native_file, array_to_string(trust_lines, ', '))]
            WHEN include_lines <> '{}' THEN ARRAY[format(
                '"%s" includes other files, which are not looked at here: line %s.',
                native_file, array_to_string(include_lines, ', '))] END,
            CASE WHEN problem IS NOT NULL THEN 'It must be there for the day on which the server starts without pg_oidc.'
                 WHEN trust_lines <> '{}' THEN 'Replace "trust" there by "scram-sha-256", "peer" or "reject".'
                 ELSE 'See to it that none of them has a "trust" line.' END,
            format('"%s" has no "trust" line.', native_file)) r
        UNION ALL
        SELECT r.* FROM facts, oidc.check_result('tls', CASE WHEN require_tls THEN 'fail' ELSE 'warn' END,
            CASE WHEN listens AND require_tls AND NOT ssl THEN ARRAY[
                '"ssl" is off: tokens are refused on all connections but Unix-domain sockets.']
            WHEN listens AND NOT require_tls THEN ARRAY[
                '"pg_oidc.require_tls" is off: whoever reads a token on the network can use it.'] END,
            CASE WHEN require_tls THEN 'Set "ssl", with a certificate and a key.'
                 ELSE 'Set "pg_oidc.require_tls" to on and reload the server.' END,
            CASE WHEN listens THEN 'Tokens are accepted over TLS and Unix-domain sockets only.'
                 ELSE 'The server listens on Unix-domain sockets only.' END) r
         WHERE preloaded
    $$;
COMMENT ON FUNCTION oidc.doctor_hba() IS 'Checks of oidc.doctor(): the HBA files as wholes, and TLS';

-- The lines as they stand in the file now, which count from the next reload on.
CREATE FUNCTION oidc.doctor_hba_lines()
    RETURNS TABLE (name text, status text, detail text, hint text)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH guarded AS MATERIALIZED (
            SELECT guarded_file AS path, current_setting('ssl') = 'on' AS ssl,
                   current_setting('pg_oidc.require_tls', true) = 'on' AS require_tls
              FROM oidc.hba_facts() WHERE guarded_file IS NOT NULL
        ),
        lines AS MATERIALIZED (
            SELECT row_number() OVER () AS place, h.type, h.database, h.user_name, h.auth_method AS method, h.error,
                   h.line_number AS line, to_jsonb(h) ->> 'file_name' AS file, guarded.*,
                   -- 16 and later name the file that each line stands in.
                   coalesce(to_jsonb(h) ->> 'file_name' <> path, false) AS included
              FROM guarded, pg_hba_file_rules h
        ),
        called AS MATERIALIZED (
            SELECT *, CASE WHEN included THEN format('Line %s of "%s"', line, file) ELSE format('Line %s', line) END AS what
              FROM lines
        ),
        ways AS MATERIALIZED (
            SELECT * FROM called l
             WHERE error IS NULL AND method NOT IN ('trust', 'reject', 'oauth')
               -- A line that an earlier one hides wholly is no way in.
               AND NOT EXISTS (SELECT FROM called e
                                WHERE e.place < l.place AND e.type = l.type AND l.type = 'local'
                                  AND e.database = '{all}' AND e.user_name = '{all}')
        )
        SELECT r.* FROM guarded, oidc.check_result('hba_errors', 'fail',
            (SELECT array_agg(format('%s: %s.', what, error) ORDER BY place) FROM called
              WHERE error IS NOT NULL AND type IS NULL),
            'Mend it: until then a reload changes nothing, and the server does not start again.',
            format('"%s" has no errors.', path)) r
        UNION ALL
        SELECT r.* FROM guarded, oidc.check_result('token_lines', 'warn',
            CASE WHEN NOT EXISTS (SELECT FROM called WHERE method = 'trust' AND NOT included) THEN ARRAY[format(
                '"%s" has no "trust" line: no token is asked for.', path)] END,
            'Add a line such as: hostssl all all 0.0.0.0/0 trust',
            (SELECT format('A token is asked for by line %s.', string_agg(line::text, ', ' ORDER BY place))
               FROM called WHERE method = 'trust' AND NOT included)) r
        UNION ALL
        SELECT r.* FROM guarded, oidc.check_result('included_token_lines', 'fail',
            (SELECT array_agg(format('%s is a "trust" line in an included file, which refuses everybody.', what)
                              ORDER BY place) FROM called WHERE method = 'trust' AND included),
            format('Write it into "%s" itself.', path),
            'No included file has a "trust" line.') r
        UNION ALL
        SELECT r.* FROM guarded, oidc.check_result('useless_lines', 'warn',
            (SELECT array_agg(CASE WHEN error IS NOT NULL THEN format('%s: %s.', what, error)
                                   ELSE format('%s is for connections without TLS, on which tokens are refused.', what) END
                              ORDER BY place)
               FROM called
              WHERE error IS NOT NULL AND type IS NOT NULL
                 OR method = 'trust' AND require_tls AND type IN ('hostnossl', 'hostgssenc')),
            'Remove the line, or make it "hostssl".',
            'Every line can match a connection that is let in.') r
        UNION ALL
        SELECT r.* FROM guarded, oidc.check_result('administrator_line', 'warn',
            CASE WHEN NOT EXISTS (SELECT FROM ways) THEN ARRAY[
                'Every connection needs a token: when tokens fail, nobody comes in.'] END,
            'Put a line such as "local all postgres peer" before the others.',
            (SELECT format('%s lets somebody in without a token.', what) FROM ways ORDER BY place LIMIT 1)) r
    $$;
COMMENT ON FUNCTION oidc.doctor_hba_lines() IS 'Checks of oidc.doctor(): the lines of the guarded HBA file';
COMMENT ON FUNCTION oidc.library_version() IS 'Version of the library that runs';
COMMENT ON FUNCTION oidc.board_facts() IS 'What is published, and how much room it takes; no row where the library is not preloaded';
COMMENT ON FUNCTION oidc.hba_facts() IS 'The guarded HBA file, and the trust lines of the server''s own';
