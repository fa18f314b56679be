//! `risiti terminal`: which terminals may connect, and their tokens.
//!
//! Promises: it changes the registry's file whole or not at all, whether or not a
//! gateway runs (that notices by itself); a token is shown once, to whoever made
//! it. Never: a token that can be asked for again.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use risiti_config::Config;

use risiti_bridge::settlement::Accepted;
use risiti_sim::package::Package;
use risiti_wire::seal::FIRST_GENERATION;

use super::{Failure, enroll, picture, site};
use crate::access::{FileError, Registry, Terminal, Token, file};
use crate::limits::REGISTRY_BYTES_MAX;

#[derive(Subcommand)]
pub enum Command {
    /// Adds a terminal and prints its token, once.
    Add {
        /// Its id: 1 to 23 of A-Z, a-z, 0-9, _ and -.
        id: String,
        /// Takes a revoked terminal back.
        #[arg(long)]
        reinstate: bool,
        #[command(flatten)]
        out: Out,
        #[command(flatten)]
        registry: RegistryFile,
    },
    /// Lists them, a line each.
    List {
        #[command(flatten)]
        registry: RegistryFile,
    },
    /// Shows one.
    Show {
        /// Its id.
        id: String,
        #[command(flatten)]
        registry: RegistryFile,
    },
    /// Makes a terminal's next token. The old one is valid until a gateway has seen
    /// the new one, or until --finish.
    Rotate {
        /// Its id.
        id: String,
        /// Ends the old token now.
        #[arg(long, conflicts_with = "again")]
        finish: bool,
        /// Makes another next token, in place of one that was lost on the way.
        #[arg(long)]
        again: bool,
        #[command(flatten)]
        out: Out,
        #[command(flatten)]
        registry: RegistryFile,
    },
    /// Enrols the keys that a terminal made itself, once: reads the code that it shows
    /// from standard input. For whoever has the site's root, never for a gateway.
    Enroll {
        /// Its id.
        id: String,
        /// The site's root; the keys go into FILE.enrolled beside it.
        #[arg(long, value_name = "FILE")]
        root: PathBuf,
        /// The generation that it shows; without it, the newest that FILE.generations
        /// says.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
        generation: Option<u8>,
    },
    /// Ends a terminal's tokens; gateways close its connection at once.
    Revoke {
        /// Its id.
        id: String,
        /// The site's root: settlement takes nothing more that its keys have sealed.
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
        #[command(flatten)]
        registry: RegistryFile,
    },
    /// Writes the registry out, for the other gateways of the site.
    Export {
        /// Where to; standard output without it.
        file: Option<PathBuf>,
        #[command(flatten)]
        registry: RegistryFile,
    },
    /// Takes over an exported registry.
    Import {
        /// Where from; `-` is standard input.
        file: PathBuf,
        /// Also lets terminals go that the file does not name.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        registry: RegistryFile,
    },
}

/// Where the registry is.
#[derive(Args)]
pub struct RegistryFile {
    /// The gateway's configuration, which says where the registry is.
    #[arg(long, value_name = "FILE", default_value = "/etc/risiti/risiti.toml")]
    config: PathBuf,
    /// The registry itself; then no configuration is read.
    #[arg(long, value_name = "FILE")]
    registry: Option<PathBuf>,
}

/// What is made for whoever sets the terminal up.
#[derive(Args)]
pub struct Out {
    /// Writes id, token and gateway into a file, and shows no token.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also writes that file as a picture, a QR code in PNG, for a technician's camera.
    #[arg(long, value_name = "FILE", requires = "out")]
    qr: Option<PathBuf>,
    /// The gateway's address as terminals reach it, for that file.
    #[arg(long, value_name = "HOST:PORT")]
    gateway: Option<String>,
    /// The site's root: the file holds keys, too, of a generation that this terminal
    /// never had, and settlement accepts them.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// The terminal makes its keys itself and shows them once, for `risiti terminal
    /// enroll`; no root is needed, and the file holds none.
    #[arg(long, requires = "out")]
    own_keys: bool,
    /// Their generation, one that this terminal never had: 1 for a new one. With --root,
    /// FILE.generations says it, and that one is accepted.
    #[arg(long, value_name = "N", requires = "own_keys", conflicts_with = "root",
        value_parser = clap::value_parser!(u8).range(1..))]
    generation: Option<u8>,
}

/// How long settlement takes what was sealed with a terminal's former keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Former {
    /// There are none.
    New,
    /// The terminal changes its keys some day.
    Kept,
    /// It is set up anew.
    Ended,
}

impl RegistryFile {
    fn path(&self) -> Result<PathBuf, Failure> {
        match &self.registry {
            Some(path) => Ok(path.clone()),
            None => Ok(Config::load(&self.config, std::env::vars())?.registry_path()),
        }
    }

    fn load(&self) -> Result<Registry, Failure> {
        let path = self.path()?;
        Ok(file::load(&path)?.map(|(read, _)| read).unwrap_or_default())
    }
}

impl Out {
    /// Gives a token to whoever asked for it. To be called before the registry is
    /// changed: a file that can't be written must not cost a terminal its token.
    fn give(&self, id: &str, token: &Token, former: Former) -> Result<String, Failure> {
        let Some(path) = &self.out else {
            if self.root.is_some() {
                return Err("keys are shown nowhere: name a file for them with --out"
                    .to_owned()
                    .into());
            }
            return Ok(format!(
                "token        {}\nIt is shown this once. The terminal sends it as its MQTT password.",
                token.expose()
            ));
        };
        let failed = |error| format!("{}: {error}", path.display());
        let mut package = Package::new(id, token.expose(), self.gateway.as_deref());
        let mut keys = String::new();
        if self.own_keys {
            let generation = self.own_generation(id, path, former)?;
            package = package.with_own_keys(generation);
            keys = format!(
                "\nkeys         generation {generation}, made by the terminal and shown once; then: risiti terminal enroll {id} --root FILE"
            );
        } else if let Some(root_file) = &self.root {
            if path.try_exists().map_err(failed)? {
                return Err(failed(std::io::ErrorKind::AlreadyExists.into()).into());
            }
            let root = site::read_root(root_file)?;
            let generation = next_generation(root_file, id, former)?;
            package = package.sealed(&root, generation).map_err(failed)?;
            keys = format!("\nkeys         generation {generation}");
        }
        package.write(path).map_err(failed)?;
        let mut files = path.display().to_string();
        if let Some(picture) = &self.qr {
            let text = package.to_text().map_err(failed)?;
            if let Err(error) = picture::write(picture, &text) {
                let _ = std::fs::remove_file(path);
                return Err(format!("{}: {error}", picture.display()).into());
            }
            files = format!("{files} and {}", picture.display());
        }
        Ok(format!(
            "written to   {files} (secrets: delete it once the terminal has them){keys}"
        ))
    }

    /// The generation of keys that the terminal is to make.
    fn own_generation(&self, id: &str, path: &Path, former: Former) -> Result<u8, Failure> {
        if let Some(root_file) = &self.root {
            let failed = |error| format!("{}: {error}", path.display());
            if path.try_exists().map_err(failed)? {
                return Err(failed(std::io::ErrorKind::AlreadyExists.into()).into());
            }
            return next_generation(root_file, id, former);
        }
        self.generation
            .or_else(|| (former == Former::New).then_some(FIRST_GENERATION))
            .ok_or_else(|| {
                format!("terminal {id} had keys before; say which generation comes next with --generation (its display shows the one it has now), or let --root FILE tell")
                    .into()
            })
    }

    fn take_back(&self) {
        for path in self.out.iter().chain(&self.qr) {
            let _ = std::fs::remove_file(path);
        }
    }
}

pub fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Add {
            id,
            reinstate,
            out,
            registry,
        } => with_token(&id, &out, &registry, reinstated(reinstate), |r, token| {
            r.add(&id, token.digest(), reinstate)
        }),
        Command::List { registry } => {
            let read = registry.load()?;
            let mut to = std::io::stdout().lock();
            for (id, terminal) in read.iter() {
                writeln!(to, "{id:<24} {}", state(terminal))?;
            }
            writeln!(to, "{} terminals", read.len())?;
            Ok(())
        }
        Command::Show { id, registry } => {
            let read = registry.load()?;
            let terminal = read.get(&id).ok_or_else(|| {
                format!("no terminal {id} in the registry; `risiti terminal list` names them")
            })?;
            println!("terminal     {id}\nstate        {}", state(terminal));
            Ok(())
        }
        Command::Rotate {
            id,
            finish: true,
            out,
            registry,
            ..
        } => {
            file::edit(&registry.path()?, |r| r.finish(&id))?;
            if let Some(root_file) = &out.root {
                site::accept(root_file, &id, |before| {
                    let last = before.unwrap_or_default().last();
                    Ok(Accepted {
                        newest: last,
                        least: last,
                    })
                })?;
            }
            println!("terminal     {id}\nstate        active: its old token is not valid any more");
            Ok(())
        }
        Command::Rotate {
            id,
            again,
            out,
            registry,
            ..
        } => with_token(&id, &out, &registry, Former::Kept, |r, token| {
            r.rotate(&id, token.digest(), again)
        }),
        Command::Enroll {
            id,
            root,
            generation,
        } => enroll::enroll(&root, &id, generation),
        Command::Revoke { id, root, registry } => {
            let was_valid = file::edit(&registry.path()?, |r| r.revoke(&id))?;
            if let Some(root_file) = &root {
                site::accept(root_file, &id, |before| {
                    Ok(Accepted::revoked(before.unwrap_or_default().last()))
                })?;
            }
            let before = if was_valid { "" } else { " before" };
            println!("terminal     {id}\nstate        was revoked{before}");
            Ok(())
        }
        Command::Export { file, registry } => export(file.as_deref(), &registry),
        Command::Import {
            file,
            replace,
            registry,
        } => import(&file, replace, &registry),
    }
}

fn reinstated(is_reinstated: bool) -> Former {
    if is_reinstated {
        Former::Ended
    } else {
        Former::New
    }
}

fn state(terminal: &Terminal) -> &'static str {
    match terminal {
        Terminal { revoked: true, .. } => "revoked",
        Terminal { next: Some(_), .. } => "active, with a next token",
        _ => "active",
    }
}

/// Makes a token, hands it over, and enters it.
fn with_token(
    id: &str,
    out: &Out,
    registry: &RegistryFile,
    former: Former,
    enter: impl Fn(&mut Registry, &Token) -> Result<(), crate::access::RegistryError>,
) -> Result<(), Failure> {
    let path = registry.path()?;
    let token = Token::generate()
        .map_err(|error| format!("the operating system gives no random bytes: {error}"))?;
    // Refused before anything is made: a terminal that is there must keep its keys.
    enter(&mut registry.load()?, &token).map_err(|error| error.to_string())?;
    let given = out.give(id, &token, former)?;
    let entered: Result<(), FileError> = file::edit(&path, |r| enter(r, &token));
    if let Err(error) = entered {
        out.take_back();
        return Err(error.into());
    }
    println!("terminal     {id}\n{given}");
    Ok(())
}

/// The generation of keys that a terminal is to have: one that it never had, for its
/// numbers may begin anew. Settlement accepts it from now on.
fn next_generation(root_file: &Path, id: &str, former: Former) -> Result<u8, Failure> {
    site::accept(root_file, id, |before| {
        let newest = match before {
            None if former != Former::Kept => Some(FIRST_GENERATION),
            before => before.unwrap_or_default().last().checked_add(1),
        };
        let newest = newest.ok_or_else(|| {
            format!("terminal {id} has had 255 generations of keys, and there are no more; add it under another id")
        })?;
        let least = match (former, before.unwrap_or_default()) {
            (Former::Kept, Accepted { newest: 1.., least }) => least,
            _ => newest,
        };
        Ok(Accepted { newest, least })
    })
    .map(|accepted| accepted.newest)
}

fn export(to: Option<&Path>, registry: &RegistryFile) -> Result<(), Failure> {
    let text = registry.load()?.to_text();
    match to {
        None => std::io::stdout().lock().write_all(text.as_bytes())?,
        Some(path) => {
            std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    Ok(())
}

fn import(from: &Path, replace: bool, registry: &RegistryFile) -> Result<(), Failure> {
    let shown = from.display();
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        let source: Box<dyn std::io::Read> = if from == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            Box::new(std::fs::File::open(from)?)
        };
        source.take(REGISTRY_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error| format!("{shown}: {error}"))?;
    let new = Registry::parse(&text).map_err(|error| format!("{shown}: {error}"))?;
    let count = new.len();
    let mut gone = Vec::new();
    let taken = file::edit(&registry.path()?, |old| {
        gone = old
            .iter()
            .filter(|(id, _)| new.get(id).is_none())
            .map(|(id, _)| id.to_owned())
            .collect();
        let takes = gone.is_empty() || replace;
        if takes {
            *old = new;
        }
        Ok(takes)
    })?;
    let (first, more) = (gone.first(), gone.len().saturating_sub(1));
    match (taken, first) {
        (false, Some(first)) => Err(format!(
            "{shown} does not name terminal {first} and {more} others that are in the registry; --replace lets them go, or export from the gateway that has them"
        )
        .into()),
        (_, first) => {
            println!("{count} terminals, {} gone", usize::from(first.is_some()) + more);
            Ok(())
        }
    }
}
