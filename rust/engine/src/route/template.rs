//! Texts with variables: `{client.ip}`, `{header.x-name}`; `{{` and `}}` are braces.

use super::variable::{Values, Variable};

/// A text with variables, parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(Variable),
}

impl Template {
    /// Parses a header's value; `groups` are those of the match's regex, if it is one.
    ///
    /// # Errors
    /// What is wrong with it, for the person who wrote it.
    pub(super) fn parse(text: &str, groups: Option<usize>) -> Result<Self, String> {
        if let Some(character) = text.chars().find(|character| character.is_ascii_control() && *character != '\t') {
            return Err(format!("{character:?} cannot be in a header's value"));
        }
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let (token, after) = token(&rest[at..])?;
            match token {
                Token::Brace(brace) => literal.push(brace),
                Token::Name(name) => {
                    pieces.push(Piece::Text(std::mem::take(&mut literal)));
                    pieces.push(Piece::Variable(Variable::parse(name, groups)?));
                }
            }
            rest = after;
        }
        literal.push_str(rest);
        pieces.push(Piece::Text(literal));
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        Ok(Self { pieces })
    }

    /// Appends the text to `out`. CR, LF and NUL in values are dropped: no value may end a header and begin another.
    pub fn render(&self, out: &mut Vec<u8>, values: &Values<'_>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Variable(variable) => variable.render(values, |value| {
                    out.extend(value.iter().filter(|byte| !matches!(byte, b'\r' | b'\n' | 0)));
                }),
            }
        }
    }

    /// Whether the text begins with `start` whatever the values.
    pub(super) fn begins_with(&self, start: &[u8]) -> bool {
        matches!(self.pieces.first(), Some(Piece::Text(text)) if text.as_bytes().starts_with(start))
    }
}

enum Token<'t> {
    Brace(char),
    Name(&'t str),
}

/// The token at the beginning of `text`, which begins with a brace, and what follows.
fn token(text: &str) -> Result<(Token<'_>, &str), String> {
    if let Some(after) = text.strip_prefix("{{") {
        return Ok((Token::Brace('{'), after));
    }
    if let Some(after) = text.strip_prefix("}}") {
        return Ok((Token::Brace('}'), after));
    }
    let inside = text.strip_prefix('{').ok_or("a `}` closes nothing: write `}}` for a brace")?;
    match inside.split_once('}') {
        Some((name, after)) if !name.contains('{') => Ok((Token::Name(name), after)),
        _ => Err("a `{` is not closed: write `{{` for a brace".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_text_variables_and_braces() {
        let template = Template::parse("a{{{client.ip}}}b{header.X-Y}", None).unwrap();
        let text = |text: &str| Piece::Text(text.to_owned());
        let expected = [
            text("a{"),
            Piece::Variable(Variable::ClientIp),
            text("}b"),
            Piece::Variable(Variable::Header("X-Y".to_owned())),
        ];
        assert_eq!(template.pieces, expected);
        assert_eq!(Template::parse("", None).unwrap(), Template::default());
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, groups, part) in [
            ("{client_ip}", None, "did you mean `{client.ip}`?"),
            ("{headers.x-y}", None, "did you mean `{header.x-y}`?"),
            ("{remote_addr}", None, "there are {client.ip}, "),
            ("{", None, "`{` is not closed"),
            ("{host", None, "`{` is not closed"),
            ("{a{host}", None, "`{` is not closed"),
            ("host}", None, "closes nothing"),
            ("{header.a b}", None, "no header's name"),
            ("{header.}", None, "no header's name"),
            ("{path.0}", None, "from 1"),
            ("{path.+1}", None, "from 1"),
            ("{path.x}", None, "from 1"),
            ("{path.2}", Some(1), "no group 2: it has 1"),
            ("a\nb", None, "cannot be in a header's value"),
        ] {
            let message = Template::parse(text, groups).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
