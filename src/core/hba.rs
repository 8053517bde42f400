//! Just enough of pg_hba.conf's format (hba.c) to find `trust` lines in a file that is not in use.

/// The numbers of the lines whose method is `trust`, in pg_hba.conf's format (hba.c, next_token): fields are
/// separated by blanks, may be quoted, `#` starts a comment, a backslash at the end continues the line.
pub fn trust_lines(text: &str) -> Vec<usize> {
    lines_where(text, method_is_trust)
}

/// The numbers of the lines that name another file to read (16+); what stands there is not looked at.
pub fn include_lines(text: &str) -> Vec<usize> {
    lines_where(text, includes)
}

fn lines_where(text: &str, holds: fn(&str) -> bool) -> Vec<usize> {
    let mut found = Vec::new();
    let mut record = String::new();
    let mut first = 1;
    for (index, line) in text.lines().enumerate() {
        if record.is_empty() {
            first = index + 1;
        }
        if let Some(continued) = line.strip_suffix('\\') {
            record.push_str(continued);
            continue;
        }
        record.push_str(line);
        if holds(&record) {
            found.push(first);
        }
        record.clear();
    }
    if holds(&record) {
        found.push(first);
    }
    found
}

/// The method is the fourth field of a `local` line; of a host line the fifth, or the sixth after a netmask.
fn method_is_trust(record: &str) -> bool {
    let fields = fields(record);
    let local = fields.first().is_some_and(|kind| kind == "local");
    fields
        .iter()
        .enumerate()
        .any(|(at, field)| field == "trust" && (at == 3 && local || (at == 4 || at == 5) && !local))
}

fn includes(record: &str) -> bool {
    fields(record)
        .first()
        .is_some_and(|kind| ["include", "include_if_exists", "include_dir"].contains(&kind.as_str()))
}

/// Fields of one record; a list `a, b` is one field, as the comma joins its parts.
fn fields(record: &str) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    let (mut quoted, mut open, mut joined) = (false, false, false);
    for character in record.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                begin(&mut fields, &mut open, &mut joined);
            }
            '#' if !quoted => break,
            blank if blank.is_whitespace() && !quoted => open = false,
            ',' if !quoted => {
                begin(&mut fields, &mut open, &mut joined);
                push(&mut fields, ',');
                (open, joined) = (false, true);
            }
            other => {
                begin(&mut fields, &mut open, &mut joined);
                push(&mut fields, other);
            }
        }
    }
    fields
}

fn begin(fields: &mut Vec<String>, open: &mut bool, joined: &mut bool) {
    if !*open && !*joined {
        fields.push(String::new());
    }
    (*open, *joined) = (true, false);
}

fn push(fields: &mut [String], character: char) {
    if let Some(field) = fields.last_mut() {
        field.push(character);
    }
}
