//! A source file as the rules look at it: its module, and the names in this crate that it mentions.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, ItemMod, ItemUse, Macro, Meta, UseTree};

/// A parsed file of `src/`.
pub(crate) struct Source {
    /// Where it is beneath `src/`.
    pub path: String,
    /// Its module, from the crate's root.
    pub module: Vec<String>,
    pub file: File,
    pub mentions: Vec<Mention>,
    /// The lines that are not within a test module.
    pub lines: usize,
    /// The lines of `#[path]` attributes, which would take a file out of its place.
    pub path_attributes: Vec<usize>,
}

/// A name of this crate that a file mentions.
pub(crate) struct Mention {
    pub line: usize,
    /// The path from the crate's root; the name itself is last, `*` for all names.
    pub target: Vec<String>,
    /// Whether it stands in test code.
    pub in_test: bool,
    /// Whether it is written `use super::*`.
    pub is_super_glob: bool,
    /// Whether it is a path into another crate.
    pub is_foreign: bool,
}

impl Source {
    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let module = module_of(path);
        let in_test = path.split('/').any(|part| part == "tests.rs" || part == "tests");
        let mut reader = Reader { module: module.clone(), in_test, ..Reader::default() };
        reader.visit_file(&file);
        let lines = if in_test { 0 } else { text.lines().count().saturating_sub(reader.test_lines) };
        let Reader { mentions, path_attributes, .. } = reader;
        Self { path: path.to_owned(), module, file, mentions, lines, path_attributes }
    }

    /// Whether it may only hold documentation, modules and re-exports.
    pub(crate) fn is_index(&self) -> bool {
        self.path == "lib.rs" || self.path.ends_with("mod.rs")
    }
}

fn module_of(path: &str) -> Vec<String> {
    let mut module: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

/// Whether an item is only compiled for tests.
pub(crate) fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string() == "test",
        Meta::Path(path) => path.is_ident("test"),
        _ => false,
    })
}

fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[derive(Default)]
struct Reader {
    module: Vec<String>,
    in_test: bool,
    mentions: Vec<Mention>,
    test_lines: usize,
    path_attributes: Vec<usize>,
}

impl Reader {
    fn mention(&mut self, span: Span, written: &[String]) {
        let line = span.start().line;
        let mut mention =
            Mention { line, target: Vec::new(), in_test: self.in_test, is_super_glob: false, is_foreign: false };
        let up = written.iter().take_while(|segment| *segment == "super").count();
        match written.first().map(String::as_str) {
            Some("crate") => mention.target = written[1..].to_vec(),
            Some("self") => mention.target = [&self.module, &written[1..]].concat(),
            Some("super") => {
                let parent = self.module.len().saturating_sub(up);
                mention.target = [&self.module[..parent], &written[up..]].concat();
                mention.is_super_glob = written == ["super", "*"];
            }
            _ => {
                mention.target = written.to_vec();
                mention.is_foreign = true;
            }
        }
        self.mentions.push(mention);
    }

    fn flatten(&mut self, prefix: &mut Vec<String>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.flatten(prefix, &path.tree);
                prefix.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|item| self.flatten(prefix, item)),
            UseTree::Name(name) => self.leaf(prefix, name.ident.to_string(), tree.span()),
            UseTree::Rename(rename) => self.leaf(prefix, rename.ident.to_string(), tree.span()),
            UseTree::Glob(_) => self.leaf(prefix, "*".to_owned(), tree.span()),
        }
    }

    fn leaf(&mut self, prefix: &[String], name: String, span: Span) {
        let mut written = prefix.to_vec();
        if name != "self" || written.is_empty() {
            written.push(name);
        }
        self.mention(span, &written);
    }

    /// Finds paths in the tokens of a macro, which have no syntax tree.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Option<(Span, Vec<String>)> = None;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(ident) => {
                    let name = ident.to_string();
                    match &mut path {
                        Some((_, written)) if colons == 2 => written.push(name),
                        _ => {
                            self.token_path(path.take());
                            path = matches!(name.as_str(), "crate" | "super").then(|| (ident.span(), vec![name]));
                        }
                    }
                }
                other => {
                    self.token_path(path.take());
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
            colons = 0;
        }
        self.token_path(path);
    }

    fn token_path(&mut self, path: Option<(Span, Vec<String>)>) {
        if let Some((span, written)) = path
            && written.len() > 1
        {
            self.mention(span, &written);
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let outer = self.in_test;
        self.in_test |= is_test_only(attributes_of(item));
        if self.in_test && !outer {
            self.test_lines += item.span().end().line + 1 - item.span().start().line;
        }
        visit::visit_item(self, item);
        self.in_test = outer;
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.flatten(&mut Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let written: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let is_ours = matches!(written[0].as_str(), "crate" | "super" | "self");
        if written.len() > 1 && (is_ours || written.iter().any(|name| name == "SystemTime")) {
            self.mention(path.span(), &written);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if attribute.path().is_ident("path") {
            self.path_attributes.push(attribute.span().start().line);
        }
    }
}
