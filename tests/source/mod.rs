//! The crate's own source, read for tests that guard its shape.

use std::fs;
use std::path::{Path, PathBuf};
use syn::Item;
use syn::buffer::Cursor;
use syn::parse::{Parse, ParseStream};

/// One file of `src`.
pub(crate) struct Source {
    /// Relative to `src`, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) syntax: syn::File,
}

impl Source {
    /// All items, those of inline modules included, except what is built for tests only.
    pub(crate) fn items(&self) -> Vec<&Item> {
        let mut found = Vec::new();
        collect(&self.syntax.items, &mut found);
        found
    }

    /// The code's words: comments and the content of literals are gone, and so is what is built for
    /// tests only. `::` is one word.
    pub(crate) fn words(&self) -> Vec<String> {
        let Words(words) = syn::parse_str(&self.text).expect("the file was parsed before");
        words
    }
}

/// Every file of `src`, except those that are modules for tests only.
pub(crate) fn all() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort();
    assert!(!files.is_empty());
    files
        .into_iter()
        .filter(|file| file.file_name().is_some_and(|name| name != "tests.rs"))
        .map(|file| {
            let text = fs::read_to_string(&file).expect("a readable file");
            let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let path = file.strip_prefix(&root).expect("below src").to_string_lossy().replace('\\', "/");
            Source { path, text, syntax }
        })
        .collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn collect<'a>(items: &'a [Item], found: &mut Vec<&'a Item>) {
    for item in items {
        if let Item::Mod(module) = item {
            let is_test = module.attrs.iter().any(|attr| match &attr.meta {
                syn::Meta::List(list) => {
                    list.path.is_ident("cfg") && names_test(&list.tokens.to_string().replace(' ', ""))
                }
                _ => false,
            });
            if let (Some((_, items)), false) = (&module.content, is_test) {
                collect(items, found);
            }
        }
        found.push(item);
    }
}

fn names_test(condition: &str) -> bool {
    condition == "test" || condition.starts_with("all(test,")
}

struct Words(Vec<String>);

impl Parse for Words {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut words = Vec::new();
        input.step(|cursor| Ok(((), read(*cursor, &mut words))))?;
        Ok(Self(words))
    }
}

/// Reads to the end of the group, which it returns.
fn read<'a>(mut cursor: Cursor<'a>, words: &mut Vec<String>) -> Cursor<'a> {
    loop {
        if let Some(past) = skip_test_item(cursor) {
            cursor = past;
        } else if let Some((lifetime, past)) = cursor.lifetime() {
            words.push(lifetime.to_string());
            cursor = past;
        } else if let Some((punct, past)) = cursor.punct() {
            if punct.as_char() == ':' && words.last().is_some_and(|word| word == ":") {
                words.pop();
                words.push("::".to_owned());
            } else {
                words.push(punct.as_char().to_string());
            }
            cursor = past;
        } else if let Some((name, past)) = cursor.ident() {
            words.push(name.to_string());
            cursor = past;
        } else if let Some((_, past)) = cursor.literal() {
            words.push("\"\"".to_owned());
            cursor = past;
        } else if let Some((inside, delimiter, _, past)) = cursor.any_group() {
            let (open, close) = match format!("{delimiter:?}").as_str() {
                "Brace" => ("{", "}"),
                "Bracket" => ("[", "]"),
                _ => ("(", ")"),
            };
            words.push(open.to_owned());
            let _ = read(inside, words);
            words.push(close.to_owned());
            cursor = past;
        } else {
            return cursor;
        }
    }
}

/// Past an item that is built for tests only, if one begins here: its attribute, and all up to a
/// block or a semicolon.
fn skip_test_item(cursor: Cursor<'_>) -> Option<Cursor<'_>> {
    let (_, past) = cursor.punct().filter(|(punct, _)| punct.as_char() == '#')?;
    let (attribute, _, _, mut cursor) = past.any_group()?;
    let attribute = attribute.token_stream().to_string().replace(' ', "");
    if !names_test(attribute.strip_prefix("cfg(")?.strip_suffix(')')?) {
        return None;
    }
    loop {
        if let Some((_, delimiter, _, past)) = cursor.any_group() {
            cursor = past;
            if format!("{delimiter:?}") == "Brace" {
                return Some(cursor);
            }
        } else {
            let (tree, past) = cursor.token_tree()?;
            cursor = past;
            if tree.to_string() == ";" {
                return Some(cursor);
            }
        }
    }
}
