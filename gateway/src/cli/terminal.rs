//! `risiti terminal`: which terminals may connect, and their tokens.
//!
//! Promises: it changes the registry's file whole or not at all, whether or not a
//! gateway runs (that notices by itself); a token is shown once, to whoever made
//! it. Never: a token that can be asked for again.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use risiti_config::Config;

use super::Failure;
use super::package::Package;
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
    /// Ends a terminal's tokens; gateways close its connection at once.
    Revoke {
        /// Its id.
        id: String,
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
    /// The gateway's address as terminals reach it, for that file.
    #[arg(long, value_name = "HOST:PORT")]
    gateway: Option<String>,
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
    fn give(&self, id: &str, token: &Token) -> Result<String, Failure> {
        let Some(path) = &self.out else {
            return Ok(format!(
                "token        {}\nIt is shown this once. The terminal sends it as its MQTT password.",
                token.expose()
            ));
        };
        let package = Package {
            id,
            token,
            gateway: self.gateway.as_deref(),
        };
        package
            .write(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(format!(
            "written to   {} (it holds the token: delete it once the terminal has it)",
            path.display()
        ))
    }

    fn take_back(&self) {
        if let Some(path) = &self.out {
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
        } => with_token(&id, &out, &registry, |r, token| {
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
            registry,
            ..
        } => {
            file::edit(&registry.path()?, |r| r.finish(&id))?;
            println!("terminal     {id}\nstate        active: its old token is not valid any more");
            Ok(())
        }
        Command::Rotate {
            id,
            again,
            out,
            registry,
            ..
        } => with_token(&id, &out, &registry, |r, token| {
            r.rotate(&id, token.digest(), again)
        }),
        Command::Revoke { id, registry } => {
            let was_valid = file::edit(&registry.path()?, |r| r.revoke(&id))?;
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
    enter: impl FnOnce(&mut Registry, &Token) -> Result<(), crate::access::RegistryError>,
) -> Result<(), Failure> {
    let path = registry.path()?;
    let token = Token::generate()
        .map_err(|error| format!("the operating system gives no random bytes: {error}"))?;
    let given = out.give(id, &token)?;
    let entered: Result<(), FileError> = file::edit(&path, |r| enter(r, &token));
    if let Err(error) = entered {
        out.take_back();
        return Err(error.into());
    }
    println!("terminal     {id}\n{given}");
    Ok(())
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
