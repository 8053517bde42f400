//! That the library reads core's structs where they are.
//!
//! 1. Each field that bindgen found in a struct which pg_oidc reads is where the machine's C compiler puts it, by the
//!    headers of the very server that is tested. (That Rust puts it there too is asserted when the library is built.)
//! 2. The near miss: the comparison sees a field that is elsewhere.

#[path = "../../../src/pg/bindings.rs"]
mod bindings;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use pg_oidc_test::postgres::Postgres;
use pg_oidc_test::scratch::Scratch;
use pg_oidc_test::{program, workspace};

/// The structs of core that pg_oidc reads by bindings of its own.
const STRUCTS: [&str; 6] =
    ["Port", "HbaLine", "config_generic", "config_string", "RegisteredBgWorker", "FormData_pg_auth_members"];

/// Those that came with 18.
const STRUCTS_OF_18: [&str; 2] = ["OAuthValidatorCallbacks", "ValidatorModuleResult"];

/// Bytes from the start of a struct to a field of it, by `struct.field`.
type Offsets = BTreeMap<String, usize>;

/// What bindgen asserts of the structs in the bindings that it wrote.
fn of_bindings(text: &str) -> Result<Offsets> {
    // ["Offset of field: Port::sock"][::std::mem::offset_of!(Port, sock) - 0usize];
    let mut offsets = Offsets::new();
    for assertion in text.split("\"Offset of field: ").skip(1) {
        let (name, rest) = assertion.split_once('"').context("a name without an end")?;
        let (of, field) = name.split_once("::").context("a field without its struct")?;
        if STRUCTS.contains(&of) || STRUCTS_OF_18.contains(&of) {
            let (_, rest) = rest.split_once(" - ").context("no number")?;
            let number = rest.split("usize").next().unwrap_or_default();
            offsets.insert(format!("{of}.{field}"), number.trim().parse()?);
        }
    }
    Ok(offsets)
}

/// What the C compiler says of the same fields.
fn of_compiler<'a>(
    fields: impl Iterator<Item = &'a String>,
    header: &Path,
    include: &Path,
) -> Result<Offsets> {
    // Core's headers make printf a macro for a function of core's.
    let mut source =
        format!("#include \"{}\"\n#include <stddef.h>\n#undef printf\nint main(void) {{\n", header.display());
    for name in fields {
        let (of, field) = name.split_once('.').context("no field")?;
        // bindgen adds a _ to the names that are words of Rust.
        let field = field.trim_end_matches('_');
        source.push_str(&format!("printf(\"{name} %zu\\n\", offsetof(struct {of}, {field}));\n"));
    }
    source.push_str("return 0; }\n");
    let scratch = Scratch::new()?;
    let asking = scratch.path().join("offsets");
    let mut cc = Command::new("cc");
    // Optimised, so that inline functions of the headers which nobody calls ask for nothing of the server's.
    cc.args(["-O1", "-w", "-I"]).arg(include).arg("-o").arg(&asking).args(["-x", "c", "-"]);
    let output = program::fed(&mut cc, &source)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = program::output(&mut Command::new(&asking))?;
    let offset = |line: &str| {
        let (name, offset) = line.split_once(' ').context("no offset")?;
        Ok((name.to_owned(), offset.parse()?))
    };
    said.lines().map(offset).collect()
}

#[test]
fn fields_are_where_the_compiler_puts_them() -> Result<()> {
    let header = workspace().join("src/pg/server.h");
    let include = Postgres::chosen()?.folder("--includedir-server")?;
    let bindings = bindings::bindings(&header.display().to_string(), &include).generate()?.to_string();
    let mut ours = of_bindings(&bindings)?;
    let newer = if Postgres::chosen()?.major() >= 18 { &STRUCTS_OF_18[..] } else { &[] };
    for of in STRUCTS.iter().chain(newer) {
        ensure!(ours.keys().any(|name| name.starts_with(&format!("{of}."))), "no field of {of}");
    }
    for read in ["Port.user_name", "Port.hba", "Port.cmdline_options", "HbaLine.auth_method"] {
        ensure!(ours.contains_key(read), "{read} is not among {ours:?}");
    }
    let theirs = of_compiler(ours.keys(), &header, &include)?;
    assert_eq!(ours, theirs);
    if let Some(offset) = ours.get_mut("Port.hba") {
        *offset += 8;
    }
    ensure!(ours != theirs, "a field that is elsewhere is not noticed");
    Ok(())
}
