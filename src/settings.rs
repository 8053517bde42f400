//! The fuse box: every setting, what it is for and why it has the default that it has.

use crate::pg::guc::{self, Slot};
use crate::pg::startup;
use pg_oidc_core::limits;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::{CStr, CString};
use std::time::Duration;

/// The settings that one login needs, read once.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    /// Refuse a token over plain TCP before it is asked for.
    pub(crate) require_tls: bool,
    /// Try what cannot be a token as the role's stored password.
    pub(crate) password_fallback: bool,
    /// How long a login may wait for workers: always well under authentication_timeout.
    pub(crate) wait: Duration,
    /// The longest token that is looked at, in bytes.
    pub(crate) max_token_bytes: usize,
    /// The database that holds the policy.
    pub(crate) database: String,
}

/// The settings as they are now.
pub(crate) fn login() -> Login {
    let wait = i64::from(WAIT_TIMEOUT.get()).min(startup::authentication_timeout_ms() / 2);
    Login {
        require_tls: REQUIRE_TLS.get(),
        password_fallback: PASSWORD_FALLBACK.get(),
        wait: Duration::from_millis(u64::try_from(wait).unwrap_or(0)),
        max_token_bytes: usize::try_from(MAX_TOKEN_SIZE.get()).unwrap_or(0),
        database: database(),
    }
}

/// The database that holds the policy.
pub(crate) fn database() -> String {
    text(&DATABASE).unwrap_or_else(|| "postgres".to_owned())
}

/// The guarded HBA file as it is written, or None: the password door stays shut.
pub(crate) fn hba_file() -> Option<String> {
    text(&HBA_FILE)
}

/// The size of the board in bytes.
pub(crate) fn shared_memory() -> usize {
    usize::try_from(SHARED_MEMORY.get()).unwrap_or(0) * 1024
}

/// How long events are kept in the audit table; None: for ever.
pub(crate) fn audit_retention() -> Option<Duration> {
    u64::try_from(AUDIT_RETENTION.get()).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// Whether issuers on the loopback interface may speak plain http.
pub(crate) fn allow_http() -> bool {
    ALLOW_HTTP.get()
}

/// The proxy for fetching keys, or None.
pub(crate) fn http_proxy() -> Option<String> {
    text(&HTTP_PROXY)
}

/// What fail points are to do, in a build for tests.
#[cfg(feature = "fail_points")]
pub(crate) fn fail_point() -> Option<String> {
    text(&FAIL_POINT)
}

/// The name of the session setting that holds the identity.
pub(crate) const IDENTITY: &CStr = c"pg_oidc.identity";
/// The name of the session setting that holds the provider.
pub(crate) const PROVIDER: &CStr = c"pg_oidc.provider";
/// The name of the session setting that holds the claims as JSON.
pub(crate) const CLAIMS: &CStr = c"pg_oidc.claims";

pub(crate) static IDENTITY_SLOT: Slot = Slot::new();
pub(crate) static PROVIDER_SLOT: Slot = Slot::new();
pub(crate) static CLAIMS_SLOT: Slot = Slot::new();

static DATABASE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"postgres"));
static HBA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static SHARED_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(16 * 1024);
static REQUIRE_TLS: GucSetting<bool> = GucSetting::<bool>::new(true);
static PASSWORD_FALLBACK: GucSetting<bool> = GucSetting::<bool>::new(false);
static WAIT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static MAX_TOKEN_SIZE: GucSetting<i32> = GucSetting::<i32>::new(limits::TOKEN_BYTES as i32);
static HTTP_PROXY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static AUDIT_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(90 * 24 * 60 * 60);
static ALLOW_HTTP: GucSetting<bool> = GucSetting::<bool>::new(false);
#[cfg(feature = "fail_points")]
static FAIL_POINT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// Defines every setting, then reserves the prefix.
pub(crate) fn init() {
    // One cluster has one policy, in one database; the registry worker connects to it once, at its start.
    GucRegistry::define_string_guc(
        c"pg_oidc.database",
        c"Database that holds the OIDC policy.",
        c"",
        &DATABASE,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    // Empty by default: a server that only loads the library behaves as before.
    GucRegistry::define_string_guc(
        c"pg_oidc.hba_file",
        c"HBA file whose \"trust\" lines ask for an OIDC token.",
        c"A relative path is resolved beside the server's own hba_file. Empty: no token is asked for.",
        &HBA_FILE,
        GucContext::Postmaster,
        GucFlags::SUPERUSER_ONLY,
    );
    // Two halves for the policy and two for the keys; some 200 bytes a rule, 600 bytes an RSA key.
    GucRegistry::define_int_guc(
        c"pg_oidc.shared_memory",
        c"Shared memory in which policy and keys are published.",
        c"",
        &SHARED_MEMORY,
        1024,
        2 * 1024 * 1024,
        GucContext::Postmaster,
        GucFlags::UNIT_KB,
    );
    // A token is a bearer secret: who reads it can use it.
    GucRegistry::define_bool_guc(
        c"pg_oidc.require_tls",
        c"Accept tokens only over TLS or a Unix-domain socket.",
        c"",
        &REQUIRE_TLS,
        GucContext::Sighup,
        GucFlags::default(),
    );
    // Off: a stored password opens the door whatever the policy says of its role. For the time of a migration.
    GucRegistry::define_bool_guc(
        c"pg_oidc.password_fallback",
        c"Accept the role's stored password where a token is asked for.",
        c"Only what cannot be a token is tried as a password.",
        &PASSWORD_FALLBACK,
        GucContext::Sighup,
        GucFlags::default(),
    );
    // Long enough for a key fetch (5 s in total), and bounded by half of authentication_timeout in any case.
    GucRegistry::define_int_guc(
        c"pg_oidc.wait_timeout",
        c"Longest time that a login waits for policy or keys.",
        c"Never longer than half of authentication_timeout.",
        &WAIT_TIMEOUT,
        0,
        600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    // 16 kB holds a token with some hundreds of groups; the wire carries at most 65,535 bytes.
    GucRegistry::define_int_guc(
        c"pg_oidc.max_token_size",
        c"Longest token that is looked at.",
        c"",
        &MAX_TOKEN_SIZE,
        256,
        limits::WIRE_BYTES as i32,
        GucContext::Sighup,
        GucFlags::UNIT_BYTE,
    );
    // A quarter of a year: as long as reviews of who came in usually look back.
    GucRegistry::define_int_guc(
        c"pg_oidc.audit_retention",
        c"How long events stay in oidc.audit_log.",
        c"0 or -1: for ever.",
        &AUDIT_RETENTION,
        -1,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    // Empty by default; what the environment says of proxies is never used. May hold a password.
    GucRegistry::define_string_guc(
        c"pg_oidc.http_proxy",
        c"Proxy through which keys are fetched.",
        c"http://[user:password@]host:port of a proxy that serves CONNECT. Empty: none, whatever the environment says.",
        &HTTP_PROXY,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    // For tests with an issuer on this machine; other hosts are never asked without TLS.
    GucRegistry::define_bool_guc(
        c"pg_oidc.allow_http",
        c"Allow plain http for issuers on the loopback interface.",
        c"",
        &ALLOW_HTTP,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    #[cfg(feature = "fail_points")]
    GucRegistry::define_string_guc(
        c"pg_oidc.fail_point",
        c"Where this build for tests is to fail or to wait.",
        c"",
        &FAIL_POINT,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY | GucFlags::NO_SHOW_ALL,
    );
    guc::define_sealed(IDENTITY, c"Identity of the OIDC token that opened this session.", &IDENTITY_SLOT);
    guc::define_sealed(PROVIDER, c"Provider of the OIDC token that opened this session.", &PROVIDER_SLOT);
    guc::define_sealed(CLAIMS, c"Claims of the OIDC token that opened this session.", &CLAIMS_SLOT);
    guc::reserve_prefix();
}

fn text(setting: &GucSetting<Option<CString>>) -> Option<String> {
    setting.get().map(|value| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}
