//! `docs/api.txt` is the public interface, a line for each item: a change of it is made on purpose, and seen
//! by whoever reads the change. `UPDATE_API=1 cargo test --test api` writes it anew.
//!
//! What is `pub` in the source is public, since the lint `unreachable_pub` holds: so the source is what is read.

#[allow(dead_code)] // other tests ask it for more
mod source;

use quote::ToTokens;
use source::Source;
use std::collections::BTreeSet;
use std::path::Path;
use syn::{Attribute, Fields, ImplItem, Item, ItemImpl, TraitItem, Type, Visibility};

#[test]
fn the_public_interface_changes_on_purpose_only() {
    let files = source::all();
    let types: BTreeSet<String> =
        files.iter().flat_map(|file| file.items()).filter_map(public_type).collect();
    let mut lines: Vec<String> = files.iter().flat_map(|file| lines(file, &types)).collect();
    assert!(lines.len() > 500, "{} lines are not the whole of it", lines.len());
    lines.push(String::new());
    let now = lines.join("\n");

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.txt");
    if std::env::var_os("UPDATE_API").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let agreed = std::fs::read_to_string(&path).unwrap_or_default();
    let (before, after): (BTreeSet<_>, BTreeSet<_>) = (agreed.lines().collect(), now.lines().collect());
    let gone: Vec<_> = before.difference(&after).map(|line| format!("- {line}")).collect();
    let new: Vec<_> = after.difference(&before).map(|line| format!("+ {line}")).collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "the public interface changed. If that is meant: UPDATE_API=1 cargo test --test api, and say so in \
         CHANGELOG.md; a line that is gone is a breaking change.\n{}\n{}",
        gone.join("\n"),
        new.join("\n"),
    );
}

fn public_type(item: &Item) -> Option<String> {
    let (visibility, name) = match item {
        Item::Struct(item) => (&item.vis, &item.ident),
        Item::Enum(item) => (&item.vis, &item.ident),
        Item::Type(item) => (&item.vis, &item.ident),
        _ => return None,
    };
    is_public(visibility).then(|| name.to_string())
}

fn lines(file: &Source, types: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for item in file.items() {
        describe(item, types, &mut found);
    }
    found.into_iter().map(|line| format!("{}: {line}", file.path)).collect()
}

fn describe(item: &Item, types: &BTreeSet<String>, found: &mut Vec<String>) {
    match item {
        Item::Struct(item) if is_public(&item.vis) => {
            let name = format!("{}struct {}{}", marks(&item.attrs), item.ident, tokens(&item.generics));
            found.push(format!("{name}{}", derives(&item.attrs)));
            fields(&item.ident.to_string(), &item.fields, false, found);
        }
        Item::Enum(item) if is_public(&item.vis) => {
            let name = format!("{}enum {}{}", marks(&item.attrs), item.ident, tokens(&item.generics));
            found.push(format!("{name}{}", derives(&item.attrs)));
            for variant in &item.variants {
                let name = format!("{}::{}", item.ident, variant.ident);
                found.push(format!("{}{name}", marks(&variant.attrs)));
                fields(&name, &variant.fields, true, found);
            }
        }
        Item::Trait(item) if is_public(&item.vis) => {
            let bounds = tokens(&item.supertraits);
            found.push(format!(
                "{}trait {}{} {bounds}",
                marks(&item.attrs),
                item.ident,
                tokens(&item.generics)
            ));
            for part in &item.items {
                let (text, has_default) = match part {
                    TraitItem::Fn(part) => (tokens(&part.sig), part.default.is_some()),
                    TraitItem::Const(part) => {
                        (format!("const {}: {}", part.ident, tokens(&part.ty)), part.default.is_some())
                    }
                    TraitItem::Type(part) => (tokens(part), part.default.is_some()),
                    other => (tokens(other), false),
                };
                let default = if has_default { " (provided)" } else { "" };
                found.push(format!("{} in trait: {text}{default}", item.ident));
            }
        }
        Item::Fn(item) if is_public(&item.vis) => {
            found.push(format!("{}{}", marks(&item.attrs), tokens(&item.sig)));
        }
        Item::Const(item) if is_public(&item.vis) => {
            found.push(format!("{}const {}: {}", marks(&item.attrs), item.ident, tokens(&item.ty)));
        }
        Item::Type(item) if is_public(&item.vis) => {
            found.push(format!("{}{}", marks(&item.attrs), tokens(item)))
        }
        Item::Use(item) if is_public(&item.vis) => {
            found.push(format!("{}{}", marks(&item.attrs), tokens(item)))
        }
        Item::Mod(item) if is_public(&item.vis) => {
            found.push(format!("{}mod {}", marks(&item.attrs), item.ident));
        }
        Item::Impl(block) if types.contains(&subject(block)) => implemented(block, found),
        _ => {}
    }
}

fn implemented(block: &ItemImpl, found: &mut Vec<String>) {
    let (subject, generics) = (tokens(&block.self_ty), tokens(&block.generics));
    let bounds =
        block.generics.where_clause.as_ref().map_or(String::new(), |bounds| format!(" {}", tokens(bounds)));
    if let Some((of, _)) = &block.trait_ {
        found.push(format!("{}impl{generics} {} for {subject}{bounds}", marks(&block.attrs), tokens(of)));
        return;
    }
    for part in &block.items {
        match part {
            ImplItem::Fn(part) if is_public(&part.vis) => {
                found.push(format!("{}{subject}::{}{bounds}", marks(&part.attrs), tokens(&part.sig)));
            }
            ImplItem::Const(part) if is_public(&part.vis) => {
                found.push(format!("{subject}::const {}: {}", part.ident, tokens(&part.ty)));
            }
            _ => {}
        }
    }
}

fn fields(of: &str, fields: &Fields, all: bool, found: &mut Vec<String>) {
    for (number, field) in fields.iter().enumerate().filter(|(_, field)| all || is_public(&field.vis)) {
        let name = field.ident.as_ref().map_or(number.to_string(), ToString::to_string);
        found.push(format!("{of}.{name}: {}", tokens(&field.ty)));
    }
}

fn subject(block: &ItemImpl) -> String {
    match &*block.self_ty {
        Type::Path(path) => path.path.segments.last().map_or(String::new(), |last| last.ident.to_string()),
        _ => String::new(),
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// What of the attributes matters to a user.
fn marks(attributes: &[Attribute]) -> String {
    let matters = |attribute: &&Attribute| {
        ["cfg", "non_exhaustive", "must_use", "deprecated"].iter().any(|name| attribute.path().is_ident(name))
    };
    attributes.iter().filter(matters).map(|attribute| tokens(attribute) + " ").collect()
}

fn derives(attributes: &[Attribute]) -> String {
    let is_derive = |attribute: &&Attribute| attribute.path().is_ident("derive");
    attributes.iter().filter(is_derive).map(|attribute| format!(" {}", tokens(attribute))).collect()
}

/// As it is written, on one line and with few spaces.
fn tokens(of: &impl ToTokens) -> String {
    let mut text = of.to_token_stream().to_string().replace('\n', " ");
    for (wide, narrow) in [
        (" :: ", "::"),
        (" ::", "::"),
        (" < ", "<"),
        (" >", ">"),
        ("< ", "<"),
        (" ,", ","),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        ("& ", "&"),
        (" :", ":"),
        ("# [", "#["),
        (" ]", "]"),
        ("[ ", "["),
        (" ;", ";"),
        ("' ", "'"),
        (",)", ")"),
        (",>", ">"),
    ] {
        text = text.replace(wide, narrow);
    }
    text
}
