//! A header as the command line gives it.

use client::Header;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeaderArg {
    name: String,
    value: String,
}

impl HeaderArg {
    /// From `NAME=VALUE`; a value may have `=` in it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err("write NAME=VALUE, for example `source=sensor-7`".to_owned()),
        }
    }

    pub(super) fn header(&self) -> Header<'_> {
        Header::new(&self.name, &self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_cut_at_its_first_equals_sign() {
        let argument = HeaderArg::parse("query=a=b").unwrap();
        assert_eq!(argument.header(), Header::new("query", "a=b"));
        assert_eq!(HeaderArg::parse("empty=").unwrap().header(), Header::new("empty", ""));
        for text in ["", "name", "=value"] {
            assert!(HeaderArg::parse(text).unwrap_err().contains("NAME=VALUE"), "{text}");
        }
    }
}
