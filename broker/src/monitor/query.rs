//! The parameters of a request for a page, parsed as in `nats-server`: unknown names are ignored, the first of several equal names counts, an
//! empty value means "not given", and a negative `offset` or `limit` is 0.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::{ROWS_DEFAULT, ROWS_MAX};

/// The names and values after the `?` of a request.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

/// The answer 400 to an invalid request, with its error text.
#[derive(Debug)]
pub(crate) struct BadRequest(pub(crate) String);

impl IntoResponse for BadRequest {
    fn into_response(self) -> Response {
        (
            StatusCode::BAD_REQUEST,
            format!("{}; the page / lists all parameters\n", self.0),
        )
            .into_response()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = BadRequest;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, BadRequest> {
        Self::of(&parts.uri)
    }
}

impl Query {
    /// Splits the part after the `?`.
    pub(crate) fn of(uri: &Uri) -> Result<Self, BadRequest> {
        match axum::extract::Query::try_from_uri(uri) {
            Ok(axum::extract::Query(pairs)) => Ok(Self(pairs)),
            Err(error) => Err(BadRequest(error.body_text())),
        }
    }

    /// Returns the value of `name`; empty if it is not given.
    pub(crate) fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// Parses a whole number; 0 if it is not given or negative.
    pub(crate) fn number(&self, name: &str) -> Result<usize, BadRequest> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(0);
        }
        let number: i64 = text
            .parse()
            .map_err(|_| BadRequest(format!("{name} must be a whole number, not `{text}`")))?;
        Ok(usize::try_from(number).unwrap_or(0))
    }

    /// Parses `cid`, the number of a client; `None` if it is not given or 0.
    pub(crate) fn cid(&self) -> Result<Option<u64>, BadRequest> {
        let text = self.text("cid");
        if text.is_empty() {
            return Ok(None);
        }
        let cid: u64 = text
            .parse()
            .map_err(|_| BadRequest(format!("cid must be the number of a client, not `{text}`")))?;
        Ok((cid > 0).then_some(cid))
    }

    /// Parses `offset` and `limit`: the index of the first row, and the number of rows.
    pub(crate) fn rows(&self) -> Result<(usize, usize), BadRequest> {
        let limit = match self.number("limit")? {
            0 => ROWS_DEFAULT,
            limit => limit.min(ROWS_MAX),
        };
        Ok((self.number("offset")?, limit))
    }

    /// Parses a boolean as Go's `ParseBool` does; `false` if it is not given.
    pub(crate) fn boolean(&self, name: &str) -> Result<bool, BadRequest> {
        match self.text(name) {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            text => Err(BadRequest(format!("{name} must be 1 or 0, not `{text}`"))),
        }
    }

    /// Parses one of the given words; the first of them if `name` is not given.
    pub(crate) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<T, BadRequest> {
        let text = self.text(name);
        let found = words.iter().find(|(word, _)| *word == text);
        let first = words.first().filter(|_| text.is_empty());
        found.or(first).map(|(_, value)| *value).ok_or_else(|| {
            let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            BadRequest(format!(
                "{name} must be one of {}, not `{text}`",
                allowed.join(" ")
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> Query {
        Query(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn numbers_are_parsed_as_in_nats_server() {
        for (limit, offset, rows) in [
            ("", "", (0, ROWS_DEFAULT)),
            ("0", "0", (0, ROWS_DEFAULT)),
            ("-1", "-7", (0, ROWS_DEFAULT)),
            ("3", "2", (2, 3)),
            ("99999999", "99999999", (99_999_999, ROWS_MAX)),
        ] {
            let query = query(&[("limit", limit), ("offset", offset)]);
            assert_eq!(query.rows().unwrap(), rows, "{limit} {offset}");
        }
        assert!(query(&[("limit", "x")]).rows().is_err());
        assert!(query(&[("cid", "-1")]).cid().is_err());
        assert_eq!(query(&[("cid", "0")]).cid().unwrap(), None);
        assert_eq!(query(&[("cid", "5"), ("cid", "6")]).cid().unwrap(), Some(5));
    }

    #[test]
    fn an_unknown_word_is_refused_with_a_list_of_the_known_ones() {
        let words = [("cid", 1), ("start", 2)];
        assert_eq!(query(&[]).word("sort", &words).unwrap(), 1);
        assert_eq!(query(&[("sort", "start")]).word("sort", &words).unwrap(), 2);
        let error = query(&[("sort", "START")]).word("sort", &words).unwrap_err();
        assert_eq!(error.0, "sort must be one of cid start, not `START`");
        assert!(query(&[("auth", "TRUE")]).boolean("auth").unwrap());
        assert!(query(&[("auth", "2")]).boolean("auth").is_err());
    }
}
