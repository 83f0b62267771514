//! Calls in Rust source whose first argument is a text: `env.string("KEY")`, `meter.u64_counter("name")`; also through a
//! closure or function that hands its own argument on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use quote::ToTokens;
use syn::visit::{self, Visit};

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The method.
    pub method: String,
    /// Its first argument.
    pub text: String,
    /// The function that it stands in.
    pub within: String,
    /// The second argument, as source, where there is one.
    pub default: Option<String>,
    /// What `with_unit` says in the same chain of calls.
    pub unit: Option<String>,
}

/// Which methods are looked for, and on what.
pub struct Wanted<'a> {
    /// Names of methods.
    pub methods: &'a dyn Fn(&str) -> bool,
    /// Whether the receiver has to be `env` or end in `.env()`: the methods have everyday names.
    pub only_env: bool,
}

/// All calls in the source below a folder, tests left out.
///
/// # Errors
/// A file cannot be read, or a call takes a key that is neither a text nor an argument: what it reads cannot be known.
pub fn in_folder(folder: &Path, wanted: &Wanted<'_>) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    for path in rust_files(folder)? {
        let text = fs::read_to_string(&path)?;
        let calls = in_source(&text, wanted).with_context(|| path.display().to_string())?;
        found.extend(calls);
    }
    Ok(found)
}

/// All calls in one file.
///
/// # Errors
/// See [`in_folder`].
pub fn in_source(text: &str, wanted: &Wanted<'_>) -> anyhow::Result<Vec<Found>> {
    let file = syn::parse_file(text)?;
    let mut names = Names::default();
    names.visit_file(&file);
    let mut reader = Reader {
        wanted,
        names,
        within: String::new(),
        handing: Vec::new(),
        found: Vec::new(),
        unclear: Vec::new(),
    };
    // Once for what hands its argument on, once for who calls that.
    reader.visit_file(&file);
    reader.found.clear();
    reader.unclear.clear();
    reader.visit_file(&file);
    ensure!(reader.unclear.is_empty(), "no text and no argument: {}", reader.unclear.join(", "));
    Ok(reader.found)
}

/// The `.rs` files below a folder.
///
/// # Errors
/// It cannot be read.
pub fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// Whether an item is there for tests only.
pub fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|word| word == "test")
    })
}

/// A text, or nothing.
pub fn text_of(expression: &syn::Expr) -> Option<String> {
    match expression {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
        syn::Expr::Reference(reference) => text_of(&reference.expr),
        _ => None,
    }
}

/// `let` and `const` that are texts.
#[derive(Default)]
struct Names(BTreeMap<String, String>);

impl<'ast> Visit<'ast> for Names {
    fn visit_local(&mut self, local: &'ast syn::Local) {
        if let (syn::Pat::Ident(name), Some(init)) = (&local.pat, &local.init)
            && let Some(text) = text_of(&init.expr)
        {
            self.0.insert(name.ident.to_string(), text);
        }
        visit::visit_local(self, local);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        if let Some(text) = text_of(&item.expr) {
            self.0.insert(item.ident.to_string(), text);
        }
    }
}

/// A closure or function that hands an argument on.
#[derive(Clone)]
struct Handing {
    name: String,
    /// Its arguments.
    arguments: Vec<String>,
    /// Which of them, how, and with which unit, once that is known.
    on: Option<(usize, String, Option<String>)>,
}

struct Reader<'a> {
    wanted: &'a Wanted<'a>,
    names: Names,
    within: String,
    handing: Vec<Handing>,
    found: Vec<Found>,
    unclear: Vec<String>,
}

impl Reader<'_> {
    fn enter(&mut self, name: String, arguments: Vec<String>) {
        if !self.handing.iter().any(|one| one.name == name) {
            self.handing.push(Handing { name, arguments, on: None });
        }
    }

    fn take(&mut self, call: &syn::ExprMethodCall, unit: Option<String>) {
        let method = call.method.to_string();
        let Some(first) = call.args.first() else { return };
        let name = match first {
            syn::Expr::Path(path) => path.path.get_ident().map(ToString::to_string),
            _ => None,
        };
        let text = text_of(first).or_else(|| self.names.0.get(name.as_deref()?).cloned());
        if let Some(text) = text {
            let default = call.args.get(1).map(source);
            self.found.push(Found { method, text, within: self.within.clone(), default, unit });
            return;
        }
        let handing = self.handing.iter_mut().rev().find_map(|one| {
            let index = one.arguments.iter().position(|argument| Some(argument) == name.as_ref())?;
            Some((one, index))
        });
        match handing {
            Some((one, index)) => one.on = Some((index, method, unit)),
            None => self.unclear.push(format!("{method}({})", source(first))),
        }
    }

    fn is_wanted(&self, call: &syn::ExprMethodCall) -> bool {
        if !(self.wanted.methods)(&call.method.to_string()) || call.args.is_empty() {
            return false;
        }
        !self.wanted.only_env
            || match &*call.receiver {
                syn::Expr::Path(path) => path.path.is_ident("env"),
                syn::Expr::MethodCall(inner) => inner.method == "env",
                syn::Expr::Field(field) => matches!(&field.member, syn::Member::Named(name) if name == "env"),
                _ => false,
            }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let outer = std::mem::replace(&mut self.within, item.sig.ident.to_string());
        self.enter(item.sig.ident.to_string(), arguments(&item.sig));
        visit::visit_item_fn(self, item);
        self.within = outer;
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        let outer = std::mem::replace(&mut self.within, item.sig.ident.to_string());
        visit::visit_impl_item_fn(self, item);
        self.within = outer;
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if let (syn::Pat::Ident(name), Some(init)) = (&local.pat, &local.init)
            && let syn::Expr::Closure(closure) = &*init.expr
        {
            self.enter(name.ident.to_string(), closure.inputs.iter().map(pattern).collect());
        }
        visit::visit_local(self, local);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(path) = &*call.func
            && let Some(name) = path.path.get_ident()
            && let Some(Handing { on: Some((index, method, unit)), .. }) =
                self.handing.iter().find(|one| name == &one.name).cloned()
            && let Some(text) = call.args.get(index).and_then(text_of)
        {
            let within = self.within.clone();
            self.found.push(Found { method, text, within, default: None, unit });
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_expr_method_call(&mut self, outermost: &'ast syn::ExprMethodCall) {
        let (mut call, mut unit) = (outermost, None);
        loop {
            if call.method == "with_unit" {
                unit = call.args.first().and_then(text_of);
            }
            if self.is_wanted(call) {
                self.take(call, unit.clone());
            }
            for argument in &call.args {
                self.visit_expr(argument);
            }
            match &*call.receiver {
                syn::Expr::MethodCall(inner) => call = inner,
                other => {
                    self.visit_expr(other);
                    return;
                }
            }
        }
    }
}

fn arguments(signature: &syn::Signature) -> Vec<String> {
    let name = |argument: &syn::FnArg| match argument {
        syn::FnArg::Typed(argument) => pattern(&argument.pat),
        syn::FnArg::Receiver(_) => "self".to_owned(),
    };
    signature.inputs.iter().map(name).collect()
}

fn pattern(pattern: &syn::Pat) -> String {
    match pattern {
        syn::Pat::Ident(name) => name.ident.to_string(),
        syn::Pat::Type(typed) => self::pattern(&typed.pat),
        _ => String::new(),
    }
}

fn source(expression: &syn::Expr) -> String {
    expression.to_token_stream().to_string()
}
