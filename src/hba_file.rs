//! The guarded HBA file: where it is, that it can be read, and what stands in the native one.

use crate::pg::{guc, report};
use crate::settings;
use pg_oidc_core::hba;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The two files as they were at the start.
#[derive(Debug)]
struct Files {
    guarded: PathBuf,
    native: PathBuf,
}

/// Set in the postmaster; every backend is its child.
static FILES: OnceLock<Files> = OnceLock::new();

/// The guarded file, or None where there is none.
pub(crate) fn guarded() -> Option<&'static Path> {
    FILES.get().map(|files| files.guarded.as_path())
}

/// The server's own file, which rules when this library is gone.
pub(crate) fn native() -> Option<PathBuf> {
    FILES.get().map(|files| files.native.clone()).or_else(|| guc::native_hba_file().map(PathBuf::from))
}

/// Puts the guarded file in place of the server's own and locks it there; nothing where none is configured.
///
/// The server does not start without the file that it was told to use.
pub(crate) fn init() {
    let Some(setting) = settings::hba_file() else { return };
    let native = guc::native_hba_file().unwrap_or_default();
    let guarded = resolve(&setting, &native);
    if let Err(error) = std::fs::read(&guarded) {
        report::refuse_to_start(
            &format!("could not read the guarded HBA file \"{}\": {error}", guarded.display()),
            Some(
                "The setting \"pg_oidc.hba_file\" names it; a relative path is resolved beside the server's own hba_file.",
            ),
            Some(
                "Create the file, or start with \"-c shared_preload_libraries=\" to come in without pg_oidc.",
            ),
        );
    }
    warn_of_trust(Path::new(&native));
    if guc::guard_hba_file(&guarded.to_string_lossy()).is_err() {
        report::refuse_to_start("cannot use the guarded HBA file: its path holds a NUL", None, None);
    }
    let _ = FILES.set(Files { guarded, native: PathBuf::from(native) });
}

/// A relative path counts from the folder of the server's own file, as core's `include` does.
fn resolve(setting: &str, native: &str) -> PathBuf {
    Path::new(native).parent().unwrap_or(Path::new("")).join(setting)
}

/// The native file rules when this library is gone, and a `trust` line in it then lets anyone in.
fn warn_of_trust(native: &Path) {
    let Ok(text) = std::fs::read_to_string(native) else { return };
    let lines = hba::trust_lines(&text);
    if lines.is_empty() {
        return;
    }
    let lines: Vec<String> = lines.iter().map(usize::to_string).collect();
    report::warning(
        &format!("\"{}\" has \"trust\" lines", native.display()),
        Some(&format!(
            "Line {}. This file is not in use while pg_oidc is loaded; without pg_oidc, those lines admit anyone.",
            lines.join(", ")
        )),
        Some("Replace \"trust\" there by \"scram-sha-256\", \"peer\" or \"reject\"."),
    );
}
