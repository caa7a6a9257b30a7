//! "Did you mean …?": the known name that resembles a misspelt one.

/// Returns the end of an error text: `; did you mean …?` if there is a `nearest` name, or else `; ` and `otherwise`.
pub(super) fn hint(nearest: Option<&str>, otherwise: &str) -> String {
    match nearest {
        Some(known) => format!("; did you mean `{known}`?"),
        None => format!("; {otherwise}"),
    }
}

/// Returns the known name whose `part` is most similar to `name`. At most a third of its letters may differ.
pub(super) fn nearest<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str>,
    part: impl Fn(&'a str) -> &'a str,
) -> Option<&'a str> {
    known
        .filter(|known| !known.is_empty())
        .map(|known| (distance(name, part(known)), known))
        .filter(|(distance, known)| *distance * 3 <= part(known).len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Returns the number of letters to insert, delete or replace to change `from` into `to`.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = line;
        row[0] = line + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}
