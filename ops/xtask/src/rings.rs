//! That no file imports one that imports it back, directly or through others: the imports of each
//! crate of `primary` and `worker` make no ring.
//!
//! A file imports another where it names one of its items, in a `use` or in a path, also within a
//! macro. What is re-exported counts where it is defined: to re-export it is no import. A file may
//! use what is in its own folder and be used there (`fleet.rs` and `fleet/links.rs`): of these two
//! directions only one counts at a time, and neither may close a ring. Modules for tests do not
//! count, nor does what only attributes or a value's methods lead to. [`ALLOWED`] has the
//! exceptions; one that is not needed any more fails as well.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use proc_macro2::{Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, File, ImplItem, Item, ItemMod, ItemUse, UseTree, Visibility};

use crate::build::root;
use crate::sources::{self, attributes, is_for_tests};

/// Where crates are, each in a directory of its own.
const PLACES: [&str; 2] = ["primary", "worker"];

/// An import that may close a ring: of the first file, from the second, and why.
const ALLOWED: &[(&str, &str, &str)] = &[];

pub(crate) fn check() -> anyhow::Result<()> {
    let mut imports = Imports::new();
    for place in PLACES {
        for root_file in crates(&root().join(place))? {
            imports.extend(Tree::read(&root_file)?.imports());
        }
    }
    judge(&named(imports), ALLOWED)
}

/// Which file imports which, and the line that says so first.
type Imports = BTreeMap<(PathBuf, PathBuf), usize>;

/// The roots of all crates below a directory.
fn crates(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut roots = Vec::new();
    if directory.join("Cargo.toml").is_file() {
        let files = ["src/lib.rs", "src/main.rs"].map(|name| directory.join(name));
        roots.extend(files.into_iter().filter(|file| file.is_file()));
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && !["src", "tests"].iter().any(|it| entry.file_name() == *it)
        {
            roots.extend(crates(&entry.path())?);
        }
    }
    roots.sort();
    Ok(roots)
}

/// With paths as they are written in messages.
fn named(imports: Imports) -> BTreeMap<(String, String), usize> {
    let name = |file: PathBuf| sources::name(&file);
    imports.into_iter().map(|((from, to), line)| ((name(from), name(to)), line)).collect()
}

/// Which way within a folder counts.
#[derive(Clone, Copy)]
enum Counted {
    /// From the file that a folder belongs to, to what is in it.
    Down,
    Up,
}

fn judge(
    imports: &BTreeMap<(String, String), usize>,
    allowed: &[(&str, &str, &str)],
) -> anyhow::Result<()> {
    let is_allowed = |from: &str, to: &str| allowed.iter().any(|it| (it.0, it.1) == (from, to));
    let mut found = BTreeSet::new();
    let mut needed: BTreeSet<&(&str, &str, &str)> = BTreeSet::new();
    for counted in [Counted::Down, Counted::Up] {
        let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut judged = all.clone();
        for (from, to) in imports.keys().map(|(from, to)| (from.as_str(), to.as_str())) {
            let counts = match counted {
                Counted::Down => !has(to, from),
                Counted::Up => !has(from, to),
            };
            if counts {
                all.entry(from).or_default().insert(to);
            }
            if counts && !is_allowed(from, to) {
                judged.entry(from).or_default().insert(to);
            }
        }
        found.extend(rings(&judged).iter().map(|ring| told(ring, &judged, imports)));
        let closes = |it: &&(&str, &str, &str)| {
            all.get(it.0).is_some_and(|to| to.contains(it.1)) && reaches(&all, it.1).contains(it.0)
        };
        needed.extend(allowed.iter().filter(closes));
    }
    for (from, to, _) in allowed.iter().filter(|it| !needed.contains(it)) {
        found.insert(format!("  {from} → {to} closes no ring; take it out of the exceptions"));
    }
    if found.is_empty() {
        return Ok(());
    }
    let found: Vec<_> = found.into_iter().collect();
    bail!("files import each other:\n{}", found.join("\n"))
}

/// Whether a file is in the folder that belongs to another: `fleet/links.rs` in that of `fleet.rs`,
/// and every file of a crate in that of its root.
fn has(owner: &str, file: &str) -> bool {
    let folder = match owner.strip_suffix("/lib.rs").or_else(|| owner.strip_suffix("/main.rs")) {
        Some(folder) => folder,
        None => owner.strip_suffix(".rs").unwrap_or(owner),
    };
    file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// All that a file imports, and what that imports in turn.
fn reaches<'a>(imports: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = imports.get(from).into_iter().flatten().copied().collect();
    while let Some(file) = next.pop() {
        if reached.insert(file) {
            next.extend(imports.get(file).into_iter().flatten());
        }
    }
    reached
}

/// The groups of files that all reach each other.
fn rings<'a>(imports: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<BTreeSet<&'a str>> {
    let reached: BTreeMap<&str, _> =
        imports.keys().map(|file| (*file, reaches(imports, file))).collect();
    let rings = reached.iter().filter(|(file, reached)| reached.contains(*file));
    let rings = rings.map(|(file, all)| {
        let back = all.iter().filter(|it| reached.get(**it).is_some_and(|it| it.contains(file)));
        back.copied().collect::<BTreeSet<_>>()
    });
    rings.collect::<BTreeSet<_>>().into_iter().collect()
}

fn told(
    ring: &BTreeSet<&str>,
    judged: &BTreeMap<&str, BTreeSet<&str>>,
    imports: &BTreeMap<(String, String), usize>,
) -> String {
    let within = imports.iter().filter(|((from, to), _)| {
        let counts = judged.get(from.as_str()).is_some_and(|all| all.contains(to.as_str()));
        counts && ring.contains(from.as_str()) && ring.contains(to.as_str())
    });
    let lines = within.map(|((from, to), line)| format!("\n    {from}:{line} → {to}"));
    format!("  a ring of {}:{}", ring.len(), lines.collect::<String>())
}

type Names = Vec<String>;

/// The modules of one crate, each by its path.
struct Tree {
    modules: HashMap<Names, Module>,
    files: Vec<(Names, PathBuf, File)>,
}

#[derive(Default)]
struct Module {
    file: PathBuf,
    /// What a name of a `use` leads to, from the crate's root on.
    bindings: HashMap<String, Names>,
    globs: Vec<Names>,
    items: HashSet<String>,
}

impl Tree {
    fn read(root_file: &Path) -> anyhow::Result<Self> {
        let mut tree = Self { modules: HashMap::new(), files: Vec::new() };
        tree.file(vec![], root_file, root_file.parent().context("a file is in a directory")?)?;
        tree.bind();
        Ok(tree)
    }

    fn file(&mut self, module: Names, file: &Path, children: &Path) -> anyhow::Result<()> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let parsed = syn::parse_file(&text).with_context(|| file.display().to_string())?;
        self.items(&module, file, children, &parsed.items)?;
        self.files.push((module, file.to_path_buf(), parsed));
        Ok(())
    }

    fn items(
        &mut self,
        module: &Names,
        file: &Path,
        children: &Path,
        items: &[Item],
    ) -> anyhow::Result<()> {
        let here = Module { file: file.to_path_buf(), ..Module::default() };
        self.modules.insert(module.clone(), here);
        for item in items.iter().filter(|item| !is_for_tests(attributes(item))) {
            if let Some(name) = name(item) {
                let here = self.modules.get_mut(module).expect("it was just made");
                here.items.insert(name);
            }
            let Item::Mod(ItemMod { ident, content, .. }) = item else { continue };
            let (name, child) = (ident.to_string(), with(module, ident));
            let beneath = children.join(&name);
            match content {
                Some((_, items)) => self.items(&child, file, &beneath, items)?,
                None => {
                    let beside = beneath.with_extension("rs");
                    let file = if beside.is_file() { beside } else { beneath.join("mod.rs") };
                    self.file(child, &file, &beneath)?;
                }
            }
        }
        Ok(())
    }

    /// Reads every `use`, once all modules are known.
    fn bind(&mut self) {
        let files = std::mem::take(&mut self.files);
        for (module, _, parsed) in &files {
            let mut reader = Reader::new(module);
            reader.visit_file(parsed);
            for (module, used) in reader.uses {
                let mut names = Vec::new();
                flatten(&used.tree, &mut vec![], &mut names);
                for (path, called) in names {
                    let Some(path) = self.absolute(&module, &path) else { continue };
                    let here = self.modules.get_mut(&module).expect("every module was read");
                    match called {
                        None => here.globs.push(path),
                        Some(called) => {
                            here.bindings.insert(called, path);
                        }
                    }
                }
            }
        }
        self.files = files;
    }

    /// A path of a `use`, from the crate's root on. `None` for what is another crate's.
    fn absolute(&self, module: &Names, path: &[String]) -> Option<Names> {
        let (first, rest) = path.split_first()?;
        let mut start = match first.as_str() {
            "crate" => vec![],
            "self" => module.clone(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            _ if self.modules.contains_key(&with(module, first)) => with(module, first),
            _ => return None,
        };
        let mut rest = rest;
        while let Some((first, behind)) = rest.split_first()
            && first == "super"
        {
            start.pop()?;
            rest = behind;
        }
        start.extend_from_slice(rest);
        Some(start)
    }

    /// The file that defines what a path of a module names. `None` for a module, and for what is
    /// another crate's or local.
    fn definition(&self, module: &Names, path: &[String]) -> Option<&Path> {
        let bound = || {
            let bindings = &self.modules[module].bindings;
            bindings.get(path.first()?).map(|to| [to, &path[1..]].concat())
        };
        let absolute = match path {
            [_] => bound(),
            _ => self.absolute(module, path).or_else(bound),
        }?;
        let found = self.find(&absolute, &mut HashSet::new());
        found.or_else(|| {
            // A macro made it, or it came from another crate: it is where it is found.
            let (module, rest) = self.within(&absolute)?;
            (!rest.is_empty()).then_some(module.file.as_path())
        })
    }

    /// The innermost module of a path, and what is left of the path there.
    fn within<'a>(&self, path: &'a [String]) -> Option<(&Module, &'a [String])> {
        let depth = (0..=path.len()).rev().find(|at| self.modules.contains_key(&path[..*at]))?;
        Some((&self.modules[&path[..depth]], &path[depth..]))
    }

    fn find(&self, path: &[String], seen: &mut HashSet<Names>) -> Option<&Path> {
        if !seen.insert(path.to_vec()) {
            return None;
        }
        let (module, rest) = self.within(path)?;
        let first = rest.first()?;
        if module.items.contains(first) {
            return Some(&module.file);
        }
        match module.bindings.get(first) {
            Some(to) => self.find(&[to, &rest[1..]].concat(), seen),
            None => {
                let globs = module.globs.iter();
                globs.map(|glob| [glob, rest].concat()).find_map(|path| self.find(&path, seen))
            }
        }
    }

    fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (module, file, parsed) in &self.files {
            let mut reader = Reader::new(module);
            reader.visit_file(parsed);
            let mut named = reader.paths;
            for (module, used) in reader.uses {
                if !matches!(used.vis, Visibility::Inherited) {
                    continue;
                }
                let mut names = Vec::new();
                flatten(&used.tree, &mut vec![], &mut names);
                for (path, called) in names {
                    let path = match called {
                        Some(_) => path,
                        // Whatever it is.
                        None => [path, vec!["*".to_owned()]].concat(),
                    };
                    named.push((module.clone(), path, used.span()));
                }
            }
            for (module, path, span) in named {
                let Some(to) = self.definition(&module, &path) else { continue };
                if to != file {
                    let line = span.start().line;
                    let first = imports.entry((file.clone(), to.to_path_buf())).or_insert(line);
                    *first = line.min(*first);
                }
            }
        }
        imports
    }
}

/// What a file says: every `use` and every path, and the module that it stands in.
struct Reader {
    module: Names,
    uses: Vec<(Names, ItemUse)>,
    paths: Vec<(Names, Names, Span)>,
}

impl Reader {
    fn new(module: &Names) -> Self {
        Self { module: module.clone(), uses: vec![], paths: vec![] }
    }

    fn path(&mut self, path: Names, span: Span) {
        self.paths.push((self.module.clone(), path, span));
    }

    /// The paths in what a macro is given, which is not parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Option<(Names, Span)> = None;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => match &mut path {
                    Some((names, _)) if colons == 2 => names.push(ident.to_string()),
                    _ => {
                        let begun = (vec![ident.to_string()], ident.span());
                        if let Some((names, span)) = path.replace(begun) {
                            self.path(names, span);
                        }
                    }
                },
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                other => {
                    if let Some((names, span)) = path.take() {
                        self.path(names, span);
                    }
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
            colons = 0;
        }
        if let Some((names, span)) = path {
            self.path(names, span);
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(it) => &it.attrs,
            ImplItem::Fn(it) => &it.attrs,
            ImplItem::Type(it) => &it.attrs,
            _ => return visit::visit_impl_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let inner = with(&self.module, &item.ident);
        let outer = std::mem::replace(&mut self.module, inner);
        visit::visit_item_mod(self, item);
        self.module = outer;
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.uses.push((self.module.clone(), item.clone()));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|segment| segment.ident.to_string());
        self.path(names.collect(), path.span());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        visit::visit_macro(self, called);
        self.tokens(called.tokens.clone());
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

/// Every path of a `use`, and what it is called here. A glob has no name.
fn flatten(tree: &UseTree, path: &mut Names, names: &mut Vec<(Names, Option<String>)>) {
    match tree {
        UseTree::Path(it) => {
            path.push(it.ident.to_string());
            flatten(&it.tree, path, names);
            path.pop();
        }
        UseTree::Name(it) if it.ident == "self" => {
            names.push((path.clone(), path.last().cloned()));
        }
        UseTree::Name(it) => {
            names.push((with(path, &it.ident), Some(it.ident.to_string())));
        }
        UseTree::Rename(it) => {
            names.push((with(path, &it.ident), Some(it.rename.to_string())));
        }
        UseTree::Glob(_) => names.push((path.clone(), None)),
        UseTree::Group(it) => it.items.iter().for_each(|tree| flatten(tree, path, names)),
    }
}

fn with(module: &[String], name: impl ToString) -> Names {
    [module, &[name.to_string()]].concat()
}

/// What an item is called, where it is one that is named elsewhere.
fn name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(it) => &it.ident,
        Item::Enum(it) => &it.ident,
        Item::Fn(it) => &it.sig.ident,
        Item::Macro(it) => it.ident.as_ref()?,
        Item::Static(it) => &it.ident,
        Item::Struct(it) => &it.ident,
        Item::Trait(it) => &it.ident,
        Item::Type(it) => &it.ident,
        Item::Union(it) => &it.ident,
        _ => return None,
    };
    Some(name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a crate of these files imports, in words.
    fn imports(files: &[(&str, &str)]) -> BTreeMap<(String, String), usize> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = directory.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let imports = Tree::read(&directory.path().join("lib.rs")).unwrap().imports();
        let name = |file: &Path| file.strip_prefix(directory.path()).unwrap().display().to_string();
        imports.iter().map(|((from, to), line)| ((name(from), name(to)), *line)).collect()
    }

    fn pairs(files: &[(&str, &str)]) -> Vec<String> {
        imports(files).iter().map(|((from, to), line)| format!("{from}:{line} {to}")).collect()
    }

    fn judged(files: &[(&str, &str)], allowed: &[(&str, &str, &str)]) -> String {
        match judge(&imports(files), allowed) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    const MODULES: (&str, &str) = ("lib.rs", "mod a;\nmod b;\nmod c;\n");
    const NOTHING: (&str, &str) = ("c.rs", "");

    #[test]
    fn whatever_names_an_item_of_a_file_imports_it() {
        for named in [
            "use crate::b::Item;",
            "use super::b::{self, Item};",
            "use crate::{b::*};",
            "use crate::b; fn f() { b::item() }",
            "fn f() -> crate::b::Item { loop {} }",
            "fn f() { use crate::b::Item; }",
            "fn f() { println!(\"{}\", crate::b::item(1)) }",
            "fn f() { let all = vec![g(), super::b::item()]; }",
            "impl crate::b::Trait for u8 {}",
            "mod inner { use super::super::b::Item; }",
        ] {
            let b = ("b.rs", "pub struct Item; pub trait Trait {} pub fn item() {}");
            let found = pairs(&[MODULES, ("a.rs", named), b, NOTHING]);
            assert_eq!(found, ["a.rs:1 b.rs"], "{named}");
        }
    }

    #[test]
    fn what_is_for_tests_or_only_passed_on_is_no_import() {
        for named in [
            "#[cfg(test)]\nmod tests { use crate::b::Item; }",
            "struct A; impl A { #[cfg(test)] fn f() { crate::b::item() } }",
            "#[cfg(any(test, feature = \"fuzz\"))] fn f() { crate::b::item() }",
            "pub use crate::b::Item;",
            "use crate::b;",
            "/// [`crate::b::Item`]\nstruct A;",
            "pub(in crate::b) struct A;",
            "use std::b::Item;",
            "fn f(b: u8) -> u8 { b }",
        ] {
            let b = ("b.rs", "pub struct Item; pub fn item() {}");
            let found = pairs(&[MODULES, ("a.rs", named), b, NOTHING]);
            assert_eq!(found, [""; 0], "{named}");
        }
    }

    #[test]
    fn what_is_passed_on_is_found_where_it_is_defined() {
        let a = ("a.rs", "use crate::b::{Item, Other, made};");
        let c = ("c.rs", "pub struct Item; pub struct Other;");
        let b = ("b.rs", "pub use crate::c::Item; pub use crate::c::*; make!(made);");
        assert_eq!(pairs(&[MODULES, a, b, c]), ["a.rs:1 b.rs", "a.rs:1 c.rs"]);
    }

    #[test]
    fn a_ring_is_found_however_long_and_told_with_its_lines() {
        let a = ("a.rs", "\nuse crate::b::B;\npub struct A;");
        let b = ("b.rs", "use crate::c::C;\npub struct B;");
        let c = ("c.rs", "pub struct C;\nfn f(a: crate::a::A) {}");
        let told = judged(&[MODULES, a, b, c], &[]);
        let ring = "  a ring of 3:\n    a.rs:2 → b.rs\n    b.rs:1 → c.rs\n    c.rs:2 → a.rs";
        assert_eq!(told, format!("files import each other:\n{ring}"));
        assert_eq!(judged(&[MODULES, a, b, c], &[("c.rs", "a.rs", "why")]), "");
        assert_eq!(judged(&[MODULES, a, b, ("c.rs", "pub struct C;")], &[]), "");
    }

    #[test]
    fn a_file_and_what_is_in_its_folder_may_use_each_other() {
        let root = ("lib.rs", "mod a;\nmod b;");
        let a = ("a.rs", "mod in_a;\nuse in_a::InA;\npub struct A;");
        let in_a = ("a/in_a.rs", "use super::A;\npub struct InA;");
        assert_eq!(judged(&[root, a, in_a, ("b.rs", "use crate::a::A;")], &[]), "");
        for way in ["use crate::a::A;", "use crate::a::in_a::InA;"] {
            let b = ("b.rs", &*format!("{way} pub struct B;"));
            let in_a = ("a/in_a.rs", "use crate::b::B; use super::A; pub struct InA;");
            let told = judged(&[root, a, in_a, b], &[]);
            assert!(told.contains("a/in_a.rs:1 → b.rs"), "{way}: {told}");
        }
        let beside = ("a/beside.rs", "use super::in_a::InA; pub struct Beside;");
        let in_a = ("a/in_a.rs", "use super::beside::Beside; pub struct InA;");
        let a = ("a.rs", "mod beside; mod in_a;");
        let told = judged(&[root, a, in_a, beside, ("b.rs", "")], &[]);
        assert!(told.contains("a ring of 2:\n    a/beside.rs:1 → a/in_a.rs"), "{told}");
    }

    #[test]
    fn an_exception_that_is_not_needed_fails() {
        let a = ("a.rs", "use crate::b::B;");
        let files = [MODULES, a, ("b.rs", "pub struct B;"), NOTHING];
        for unneeded in [("a.rs", "b.rs", "why"), ("b.rs", "c.rs", "why")] {
            let told = judged(&files, &[unneeded]);
            assert!(told.ends_with("closes no ring; take it out of the exceptions"), "{told}");
        }
    }
}
