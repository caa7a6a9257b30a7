//! The tokens of a subject.

/// Iterator over the tokens of a subject, from left to right.
#[derive(Debug, Clone)]
pub(crate) struct Tokens<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Tokens<'a> {
    pub(crate) const fn of(subject: &'a [u8]) -> Self {
        Self { rest: Some(subject) }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let dot = rest.iter().position(|byte| *byte == b'.');
        let (token, rest) = match dot {
            Some(dot) => (&rest[..dot], Some(&rest[dot + 1..])),
            None => (rest, None),
        };
        self.rest = rest;
        Some(token)
    }
}
