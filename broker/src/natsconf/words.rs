//! Values without quotes: numbers, booleans and strings, as `nats-server` distinguishes them.

use super::node::Node;

pub(super) fn is_space(next: char) -> bool {
    matches!(next, ' ' | '\t')
}

pub(super) fn is_line_end(next: char) -> bool {
    matches!(next, '\n' | '\r')
}

/// Returns the length of the word at the start of `rest`.
pub(super) fn end(rest: &str) -> usize {
    let is_end =
        |next: char| is_space(next) || is_line_end(next) || matches!(next, ';' | ',' | ']' | '}' | '\'');
    rest.find(is_end).unwrap_or(rest.len())
}

/// Returns the value of a word that is not a number: a boolean or a string.
pub(super) fn plain(word: &str) -> Node {
    match word.to_lowercase().as_str() {
        "true" | "yes" | "on" => Node::Bool(true, word.to_owned()),
        "false" | "no" | "off" => Node::Bool(false, word.to_owned()),
        _ => Node::Text(word.to_owned()),
    }
}

/// Parses a number, date or IP address at the start of `rest`, and returns it with its length. `None`: a string begins there.
///
/// # Errors
/// An error text, if the value begins like a number and is not valid.
pub(super) fn number(rest: &str) -> Result<Option<(usize, Node)>, &'static str> {
    let digits = |from: usize| {
        let more = rest[from..].bytes().take_while(u8::is_ascii_digit).count();
        from + more
    };
    let sign = usize::from(rest.starts_with('-'));
    let whole = digits(sign);
    let next = rest[whole..].chars().next();
    if whole == sign {
        return match (sign, next) {
            (1, _) => Err("`-` is not followed by a number; put a string in quotes"),
            (_, Some('.')) => Err("a number must begin with a digit; put a string in quotes"),
            _ => Ok(None),
        };
    }
    match next {
        Some('-') if sign == 0 => date(rest, whole),
        Some('.') => {
            let fraction = digits(whole + 1);
            if fraction == whole + 1 {
                return Err("`.` is not followed by a digit; put a string in quotes");
            }
            if rest[fraction..].starts_with('.') && sign == 0 {
                let is_address = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b':' | b'-');
                let end = rest.bytes().take_while(is_address).count();
                return Ok(Some((end, Node::Text(rest[..end].to_owned()))));
            }
            let source = &rest[..fraction];
            let value = source.parse().map_err(|_| "invalid number")?;
            Ok(Some((fraction, Node::Float(value, source.to_owned()))))
        }
        _ => match integer(rest, whole)? {
            None if sign == 1 => Err("`-` is not followed by a number alone; put a string in quotes"),
            number => Ok(number),
        },
    }
}

/// Parses a date, which begins with `digits` digits.
fn date(rest: &str, digits: usize) -> Result<Option<(usize, Node)>, &'static str> {
    const FORM: &[u8] = b"0000-00-00T00:00:00Z";
    let fits = |(byte, form): (u8, &u8)| byte == *form || *form == b'0' && byte.is_ascii_digit();
    let is_date = rest.len() >= FORM.len() && rest.bytes().zip(FORM).all(fits);
    if digits == 4 && is_date {
        return Ok(Some((FORM.len(), Node::Text(rest[..FORM.len()].to_owned()))));
    }
    Err("neither a number nor a date (2006-01-02T15:04:05Z); put a string in quotes")
}

/// Parses a whole number with an optional unit, such as `8MB`. `None`: other characters follow, so the value is a string.
fn integer(rest: &str, digits: usize) -> Result<Option<(usize, Node)>, &'static str> {
    let end = end(rest);
    if rest[end..].starts_with('\'') {
        return Ok(None);
    }
    let unit = rest.get(digits..end).unwrap_or_default().to_lowercase();
    let (letter, binary) = match unit.char_indices().nth(1) {
        Some((at, _)) => unit.split_at(at),
        None => (unit.as_str(), ""),
    };
    let power = match letter {
        "" => Some(0),
        "k" => Some(1),
        "m" => Some(2),
        "g" => Some(3),
        "t" => Some(4),
        "p" => Some(5),
        "e" => Some(6),
        _ => None,
    };
    let base: Option<i64> = match binary {
        "" => Some(1000),
        "b" | "i" | "ib" => Some(1024),
        _ => None,
    };
    let Some((power, base)) = power.zip(base) else {
        return Ok(None);
    };
    let number: Option<i64> = rest[..digits].parse().ok();
    let scaled = number.and_then(|number| number.checked_mul(base.checked_pow(power)?));
    match scaled {
        Some(number) => Ok(Some((end, Node::Integer(number, rest[..end].to_owned())))),
        None => Err("number too large"),
    }
}
