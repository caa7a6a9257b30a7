//! Tests of the public interface of this crate. They are one binary, because each further binary would be linked separately.

mod corpus;
mod oracle;
mod properties;
