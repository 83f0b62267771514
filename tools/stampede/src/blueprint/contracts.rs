//! What `libs/contracts` declares: functions over request-reply, routes, events, commands. Read from its source, because
//! types that are never put into a list cannot be asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Context;
use stampede_blueprint::Way;
use syn::parse::{Parse, ParseStream};
use syn::visit::Visit;
use syn::{Attribute, Ident, LitInt, LitStr, Token};

use super::code::{Literals, rust_files};

/// A function that contracts declare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) by: Way,
    /// The word of its guarantee.
    pub(crate) guarantee: String,
    /// The word of its class.
    pub(crate) class: String,
    pub(crate) deadline_ms: u64,
}

/// Everything declared.
#[derive(Debug, Default)]
pub(crate) struct Contracts {
    /// By the name of the type.
    pub(crate) functions: BTreeMap<String, Declared>,
    /// The subjects of events and commands by the name of the type, such as `evt.orders.order.v1.{}`.
    pub(crate) subjects: BTreeMap<String, String>,
    /// All texts in the files: the words of commands are among them.
    pub(crate) words: BTreeSet<String>,
}

impl Contracts {
    /// Reads the source of `libs/contracts`.
    pub(crate) fn read(workspace: &Path) -> anyhow::Result<Self> {
        let mut contracts = Self::default();
        for path in rust_files(&workspace.join("libs/contracts/src"))? {
            let text = fs::read_to_string(&path)?;
            let file = syn::parse_file(&text).with_context(|| path.display().to_string())?;
            contracts.take(&file).with_context(|| path.display().to_string())?;
        }
        Ok(contracts)
    }

    fn take(&mut self, file: &syn::File) -> syn::Result<()> {
        let mut literals = Literals::default();
        literals.visit_file(file);
        self.words.extend(literals.0);
        for item in &file.items {
            match item {
                syn::Item::Macro(item) if item.mac.path.is_ident("function") => {
                    let Function { name, declared } = item.mac.parse_body()?;
                    self.functions.insert(name, declared);
                }
                syn::Item::Macro(item) if item.mac.path.is_ident("route") => {
                    let Route { name, declared } = item.mac.parse_body()?;
                    self.functions.insert(name, declared);
                }
                syn::Item::Impl(item) => self.take_event(item),
                _ => {}
            }
        }
        Ok(())
    }

    /// The subject of an event is the one text with a dot that its `subject` formats.
    fn take_event(&mut self, item: &syn::ItemImpl) {
        let is_event = item.trait_.as_ref().is_some_and(|(_, path, _)| path.is_ident("Event"));
        let syn::Type::Path(of) = &*item.self_ty else { return };
        let Some(name) = of.path.get_ident().filter(|_| is_event) else { return };
        let mut literals = Literals::default();
        for inner in &item.items {
            if let syn::ImplItem::Fn(function) = inner
                && function.sig.ident == "subject"
            {
                literals.visit_impl_item_fn(function);
            }
        }
        let subject =
            literals.0.into_iter().find(|text| text.starts_with("evt.") || text.starts_with("cmd."));
        self.subjects.extend(subject.map(|subject| (name.to_string(), subject)));
    }
}

/// `/// doc` `Name, "service", "name", Kind, Class, millis, Request => Reply`.
struct Function {
    name: String,
    declared: Declared,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let (name, service, word) = head(input)?;
        let (guarantee, class, deadline_ms) = tail(input)?;
        let _rest: proc_macro2::TokenStream = input.parse()?;
        let by = Way::Rpc(word.clone());
        Ok(Self { name, declared: Declared { service, name: word, by, guarantee, class, deadline_ms } })
    }
}

/// `/// doc` `Name, "service", "name", "METHOD", "/path", Kind, Class, millis`.
struct Route {
    name: String,
    declared: Declared,
}

impl Parse for Route {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let (name, service, word) = head(input)?;
        let (method, path) = (text(input)?, text(input)?);
        let (guarantee, class, deadline_ms) = tail(input)?;
        let _rest: proc_macro2::TokenStream = input.parse()?;
        let by = Way::Http { method, path };
        Ok(Self { name, declared: Declared { service, name: word, by, guarantee, class, deadline_ms } })
    }
}

fn head(input: ParseStream<'_>) -> syn::Result<(String, String, String)> {
    let _docs: Vec<Attribute> = input.call(Attribute::parse_outer)?;
    Ok((word(input)?, text(input)?, text(input)?))
}

fn tail(input: ParseStream<'_>) -> syn::Result<(String, String, u64)> {
    let (guarantee, class) = (word(input)?.to_lowercase(), word(input)?.to_lowercase());
    Ok((guarantee, class, input.parse::<LitInt>()?.base10_parse()?))
}

fn word(input: ParseStream<'_>) -> syn::Result<String> {
    let word: Ident = input.parse()?;
    input.parse::<Token![,]>()?;
    Ok(word.to_string())
}

fn text(input: ParseStream<'_>) -> syn::Result<String> {
    let text: LitStr = input.parse()?;
    input.parse::<Token![,]>()?;
    Ok(text.value())
}
