//! What the code of a service does, read from its source: its routes, what it offers and calls over request-reply, its
//! tables, and the words in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use proc_macro2::{TokenStream, TokenTree};
use stampede_blueprint::Way;
use syn::visit::{self, Visit};

/// The methods of axum that make a route.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The code of one service.
#[derive(Debug, Default)]
pub(crate) struct Code {
    /// Routes of HTTP.
    pub(crate) routes: BTreeSet<Way>,
    /// Types that stand in `::<…>` of a method, by the method: what is offered (`on`) and what is called.
    pub(crate) types: BTreeMap<String, BTreeSet<String>>,
    /// Every name in the code.
    pub(crate) names: BTreeSet<String>,
    /// Every text in the code.
    pub(crate) texts: BTreeSet<String>,
    /// The tables that its migrations leave.
    pub(crate) tables: BTreeSet<String>,
}

impl Code {
    /// Reads the source and the migrations in a service's folder.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut code = Self::default();
        for path in rust_files(&folder.join("src"))? {
            let text = fs::read_to_string(&path)?;
            let file = syn::parse_file(&text).with_context(|| path.display().to_string())?;
            code.take(&file);
        }
        let migrations = folder.join("migrations");
        if migrations.exists() {
            for path in files(&migrations, "sql")? {
                code.migrate(&fs::read_to_string(&path)?);
            }
        }
        Ok(code)
    }

    fn take(&mut self, file: &syn::File) {
        let constants = constants(file);
        Reader { code: self, constants }.visit_file(file);
    }

    fn migrate(&mut self, sql: &str) {
        let lines = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
        let sql = lines.collect::<Vec<_>>().join(" ").to_lowercase();
        for statement in sql.split(';') {
            let words: Vec<&str> = statement.split(|c: char| c.is_whitespace() || c == '(').collect();
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            match words.as_slice() {
                ["create", "table", "if", "not", "exists", name, ..]
                | ["create", "unlogged", "table", name, ..]
                | ["create", "table", name, ..] => {
                    self.tables.insert((*name).to_owned());
                }
                ["drop", "table", "if", "exists", name, ..] | ["drop", "table", name, ..] => {
                    self.tables.remove(*name);
                }
                ["alter", "table", old, "rename", "to", new, ..] => {
                    self.tables.remove(*old);
                    self.tables.insert((*new).to_owned());
                }
                _ => {}
            }
        }
    }
}

/// Constants of a file that are texts: paths are sometimes named.
fn constants(file: &syn::File) -> BTreeMap<String, String> {
    let constant = |item: &syn::Item| {
        let syn::Item::Const(item) = item else { return None };
        let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &*item.expr else { return None };
        Some((item.ident.to_string(), text.value()))
    };
    file.items.iter().filter_map(constant).collect()
}

struct Reader<'a> {
    code: &'a mut Code,
    constants: BTreeMap<String, String>,
}

impl Reader<'_> {
    fn route(&mut self, methods: impl IntoIterator<Item = String>, path: &str) {
        for method in methods {
            self.code.routes.insert(Way::Http { method: method.to_uppercase(), path: path.to_owned() });
        }
    }

    fn path(&self, expression: &syn::Expr) -> Option<String> {
        match expression {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            syn::Expr::Path(path) => self.constants.get(&path.path.get_ident()?.to_string()).cloned(),
            _ => None,
        }
    }

    fn type_of(&mut self, method: &str, argument: &syn::GenericArgument) {
        if let syn::GenericArgument::Type(syn::Type::Path(path)) = argument
            && let Some(last) = path.path.segments.last()
        {
            self.code.types.entry(method.to_owned()).or_default().insert(last.ident.to_string());
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(name) => {
                    self.code.names.insert(name.to_string());
                }
                TokenTree::Literal(literal) => {
                    if let Ok(text) = syn::parse2::<syn::LitStr>(TokenTree::from(literal).into()) {
                        self.code.texts.insert(text.value());
                    }
                }
                TokenTree::Punct(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    /// Tests are no code of the service.
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let is_test = |attribute: &syn::Attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|word| word == "test")
        };
        if !item.attrs.iter().any(is_test) {
            visit::visit_item_mod(self, item);
        }
    }

    /// What is imported may not be used.
    fn visit_item_use(&mut self, _: &'ast syn::ItemUse) {}

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let name = call.method.to_string();
        if name == "route"
            && let [path, handlers] = call.args.iter().collect::<Vec<_>>().as_slice()
            && let Some(path) = self.path(path)
        {
            let mut methods = Methods::default();
            methods.visit_expr(handlers);
            self.route(methods.0, &path);
        }
        for argument in call.turbofish.iter().flat_map(|turbofish| &turbofish.args) {
            self.type_of(&name, argument);
        }
        visit::visit_expr_method_call(self, call);
    }

    /// `SwaggerUi::new("/docs")` serves a page.
    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(function) = &*call.func {
            let names: Vec<String> =
                function.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            let path = call.args.first().and_then(|path| self.path(path));
            if let (["SwaggerUi", "new"], Some(path)) =
                (names.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), path)
            {
                self.route(["get".to_owned()], &path);
            }
        }
        visit::visit_expr_call(self, call);
    }

    /// `#[utoipa::path(get, path = "/…", …)]`.
    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let names: Vec<String> =
            attribute.path().segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let (["utoipa", "path"], syn::Meta::List(list)) =
            (names.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), &attribute.meta)
        {
            let tokens: Vec<TokenTree> = list.tokens.clone().into_iter().collect();
            let method = tokens.first().map(ToString::to_string).unwrap_or_default();
            let path = tokens.windows(3).find_map(|window| match window {
                [TokenTree::Ident(key), TokenTree::Punct(_), TokenTree::Literal(text)] if key == "path" => {
                    syn::parse2::<syn::LitStr>(TokenTree::from(text.clone()).into()).ok()
                }
                _ => None,
            });
            if let Some(path) = path {
                self.route([method], &path.value());
            }
        }
    }

    /// The short form in which a responder offers many functions alike: `on!(responder, Function, method)`.
    fn visit_macro(&mut self, invocation: &'ast syn::Macro) {
        if invocation.path.is_ident("on") {
            for token in invocation.tokens.clone() {
                if let TokenTree::Ident(name) = token {
                    self.code.types.entry("on".to_owned()).or_default().insert(name.to_string());
                }
            }
        }
        self.tokens(invocation.tokens.clone());
    }

    fn visit_ident(&mut self, name: &'ast syn::Ident) {
        self.code.names.insert(name.to_string());
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.code.texts.insert(text.value());
    }
}

/// The methods in `get(list).post(place)`, also when layers are around the handlers.
#[derive(Default)]
struct Methods(BTreeSet<String>);

impl Methods {
    fn take(&mut self, name: &syn::Ident) {
        let name = name.to_string();
        if METHODS.contains(&name.as_str()) {
            self.0.insert(name);
        }
    }
}

impl<'ast> Visit<'ast> for Methods {
    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(function) = &*call.func
            && let Some(last) = function.path.segments.last()
        {
            self.take(&last.ident);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.take(&call.method);
        self.visit_expr(&call.receiver);
    }
}

/// All texts of a piece of code, those in macros too.
#[derive(Default)]
pub(crate) struct Literals(pub(crate) BTreeSet<String>);

impl Literals {
    fn tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Literal(literal) => {
                    if let Ok(text) = syn::parse2::<syn::LitStr>(TokenTree::from(literal).into()) {
                        self.0.insert(text.value());
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Literals {
    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.0.insert(text.value());
    }

    fn visit_macro(&mut self, invocation: &'ast syn::Macro) {
        self.tokens(invocation.tokens.clone());
    }
}

/// All Rust files below a folder; files that hold only tests are named so.
pub(crate) fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = files(folder, "rs")?;
    found.retain(|path| path.file_stem().is_none_or(|stem| stem != "tests"));
    Ok(found)
}

pub(super) fn files(folder: &Path, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
