//! The command line: a command, then `--name value` pairs. the flags take no value.

use std::collections::HashMap;
use std::env;
use std::fmt::Display;
use std::str::FromStr;

use crate::Outcome;

const FLAGS: [&str; 4] = ["barrier", "h2", "h3", "raw"];

pub struct Arguments {
    pub command: String,
    options: HashMap<String, String>,
}

impl Arguments {
    pub fn from_environment() -> Outcome<Self> {
        Self::parse(env::args().skip(1))
    }

    fn parse(mut words: impl Iterator<Item = String>) -> Outcome<Self> {
        let command = words.next().unwrap_or_else(|| "help".into());
        let mut options = HashMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("expected --name, found {word:?}"))?;
            let value = match FLAGS.contains(&name) {
                true => String::new(),
                false => words.next().ok_or_else(|| format!("--{name} needs a value"))?,
            };
            options.insert(name.to_owned(), value);
        }
        Ok(Self { command, options })
    }

    /// The value of an option that may be left out.
    pub fn take<T: FromStr<Err: Display>>(&mut self, name: &str, default: T) -> Outcome<T> {
        match self.options.remove(name) {
            None => Ok(default),
            Some(text) => parse(name, &text),
        }
    }

    /// The value of an option that must be there.
    pub fn need<T: FromStr<Err: Display>>(&mut self, name: &str) -> Outcome<T> {
        let text = self.options.remove(name).ok_or_else(|| format!("{} needs --{name}", self.command))?;
        parse(name, &text)
    }

    pub fn flag(&mut self, name: &str) -> bool {
        self.options.remove(name).is_some()
    }

    /// Call last: what nobody took is a mistake.
    pub fn finish(self) -> Outcome<()> {
        match self.options.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("{} takes no --{name}", self.command).into()),
        }
    }
}

fn parse<T: FromStr<Err: Display>>(name: &str, text: &str) -> Outcome<T> {
    text.parse().map_err(|error| format!("--{name} {text}: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Outcome<Arguments> {
        Arguments::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn options_are_taken_once_and_the_rest_is_refused() {
        let mut arguments = parsed("echo --size 7 --barrier --colour red").unwrap();
        assert_eq!(arguments.command, "echo");
        assert_eq!(arguments.take("size", 1).unwrap(), 7);
        assert_eq!(arguments.take("seconds", 3.5).unwrap(), 3.5);
        assert!(arguments.flag("barrier"));
        assert_eq!(arguments.finish().unwrap_err().to_string(), "echo takes no --colour");
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parsed("echo size").err().unwrap().to_string(), "expected --name, found \"size\"");
        assert_eq!(parsed("echo --size").err().unwrap().to_string(), "--size needs a value");
        assert!(parsed("echo --size x").unwrap().need::<usize>("size").is_err());
        assert!(parsed("echo").unwrap().need::<usize>("size").is_err());
    }
}
