//! Labels of files that are not ours.

use std::collections::BTreeMap;

use models::{CardError, ModelCard};

/// The labels in a file's `names` entry, if there is one: JSON, or the Python dictionary
/// (`{0: 'cat', 1: 'dog'}`) that ultralytics writes.
pub(crate) fn from_metadata(metadata: &BTreeMap<String, String>) -> Result<Option<Vec<String>>, CardError> {
    match ModelCard::labels_from_metadata(metadata) {
        Ok(labels) => Ok(Some(labels)),
        Err(CardError::Missing { .. }) => Ok(None),
        Err(error) => metadata.get("names").and_then(|names| from_python(names)).map(Some).ok_or(error),
    }
}

/// Parses a Python dictionary from consecutive numbers to strings.
fn from_python(text: &str) -> Option<Vec<String>> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let mut labels = BTreeMap::new();
    while !rest.is_empty() {
        let (number, value) = rest.split_once(':')?;
        let (label, after) = python_string(value.trim_start())?;
        labels.insert(number.trim().parse::<usize>().ok()?, label);
        rest = after.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    labels.keys().copied().eq(0..labels.len()).then(|| labels.into_values().collect())
}

/// Parses the string literal at the start of a text; returns it and what follows.
fn python_string(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|quote| ['\'', '"'].contains(quote))?;
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((position, character)) = characters.next() {
        match character {
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                literal @ ('\\' | '\'' | '"') => value.push(literal),
                _ => return None,
            },
            _ if character == quote => return Some((value, &text[position + 1..])),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &str) -> Result<Option<Vec<String>>, CardError> {
        from_metadata(&BTreeMap::from([("names".to_owned(), names.to_owned())]))
    }

    #[test]
    fn a_python_dictionary_is_read() {
        let found = labels(r#"{0: 'cat', 1: "dog's", 2: 'it\'s, {ok}: 日本', }"#).expect("a dictionary");
        assert_eq!(found.expect("labels"), ["cat", "dog's", "it's, {ok}: 日本"]);
    }

    #[test]
    fn json_is_read() {
        assert_eq!(labels(r#"{"0": "cat", "1": "dog"}"#).expect("JSON").expect("labels"), ["cat", "dog"]);
    }

    #[test]
    fn no_names_is_no_error() {
        assert_eq!(from_metadata(&BTreeMap::new()).expect("nothing"), None);
    }

    #[test]
    fn damage_is_an_error() {
        for names in ["{0: 'cat', 2: 'dog'}", "{0: 'cat", "{0: 'cat' 1: 'dog'}", "['cat']", "{0: cat}", ""] {
            assert!(labels(names).is_err(), "{names}");
        }
    }
}
