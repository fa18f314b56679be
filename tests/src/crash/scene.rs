//! A recorded life of the store, short and small: what crash images are made of.
//!
//! A life is told to `store_driver` by a line of words; a judge is given the same
//! ones. Threads make each recording another one, so a scene that convicts the
//! store is kept whole: what was there before, the log, the words and the cut.
//! Nothing else is needed to see the same image again.

use super::{Cut, Judge, Moment, Names, Recording, Shim, Snapshot, Unsynced, Verdict};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What kind of life.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// For the count.
    pub name: &'static str,
    /// For the driver.
    pub words: &'static str,
    /// On a disk whose syncs take this long: on a slow one, more is under way.
    pub sync_ms: u64,
    /// Processes one after the other, and how each is to end.
    pub lives: &'static [End],
}

/// How a process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It closes the store in order.
    Closed,
    /// SIGKILL at some moment of some operation.
    Killed,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By itself, and well.
    Well,
    /// By SIGKILL.
    Killed,
    /// Otherwise; with its last words.
    Badly(String),
    /// Not at all, in time.
    Stuck(String),
}

/// Where the driver lives, watched.
#[derive(Debug)]
pub struct Stage {
    home: tempfile::TempDir,
    words: String,
    before: Snapshot,
    shim: Shim,
}

impl Stage {
    /// An empty one.
    ///
    /// # Errors
    /// It can't be made.
    pub fn blank(words: &str) -> io::Result<Self> {
        let home = tempfile::tempdir_in(super::scratch())?;
        fs::create_dir(home.path().join("root"))?;
        Self::over(home, words)
    }

    /// As `cut` left it, when the outside world had been told `told`.
    ///
    /// # Errors
    /// It can't be made.
    pub fn after(scene: &Scene, cut: &Cut, told: &[u8]) -> io::Result<Self> {
        Self::after_forged(scene, cut, told, |_| Ok(()))
    }

    /// The same where `forge` has changed the store.
    ///
    /// # Errors
    /// As [`Self::after`], or what `forge` says.
    pub fn after_forged(
        scene: &Scene,
        cut: &Cut,
        told: &[u8],
        forge: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<Self> {
        let home = tempfile::tempdir_in(super::scratch())?;
        let root = home.path().join("root");
        cut.build(&scene.recording, &root)?;
        forge(&root.join("store"))?;
        fs::write(root.join("told"), told)?;
        Self::over(home, &scene.words)
    }

    fn over(home: tempfile::TempDir, words: &str) -> io::Result<Self> {
        let root = home.path().join("root");
        let before = Snapshot::of(&root)?;
        let log = home.path().join("log");
        let shim = Shim::over(&root)?.recording(&log).witness("told");
        shim.skip_real_syncs();
        Ok(Self {
            home,
            words: words.to_owned(),
            before,
            shim,
        })
    }

    /// For orders to the disk.
    #[must_use]
    pub fn shim(&self) -> &Shim {
        &self.shim
    }

    /// The directory of the store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.shim.root().join("store")
    }

    /// One process from begin to end; `recovers`: it only opens and closes.
    /// `more` words go to it alone.
    ///
    /// # Errors
    /// It can't be started.
    pub fn live(
        &self,
        driver: &Path,
        recovers: bool,
        more: &str,
        timeout: Duration,
    ) -> io::Result<Ended> {
        let mut command = Command::new(driver);
        if recovers {
            command.arg("recover").arg(self.store());
        } else {
            command.arg("run").arg(self.shim.root());
        }
        command.args(self.words.split(' ')).args(more.split(' '));
        let said = self.home.path().join("stderr");
        let mut child = self
            .shim
            .command(&mut command)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&said)?)
            .spawn()?;
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if begun.elapsed() > timeout {
                child.kill()?;
                child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let last_words = || {
            let said = fs::read_to_string(&said).unwrap_or_default();
            let lines: Vec<&str> = said.lines().rev().take(6).collect();
            lines.join(" / ")
        };
        use std::os::unix::process::ExitStatusExt;
        Ok(match status {
            Some(status) if status.success() => Ended::Well,
            Some(status) if status.signal() == Some(9) => Ended::Killed,
            Some(status) => Ended::Badly(format!("{status}: {}", last_words())),
            None => Ended::Stuck(last_words()),
        })
    }

    /// Orders a kill at any moment of any of the first operations.
    pub fn kill_somewhere(&self, random: &mut fastrand::Rng, operations: u64) {
        let moments = [
            Moment::Noted,
            Moment::Intended,
            Moment::HalfDone,
            Moment::Done,
            Moment::Recorded,
        ];
        let moment = moments[random.usize(..moments.len())];
        self.shim.kill_at(moment, random.u64(1..operations));
    }

    /// What happened on it.
    ///
    /// # Errors
    /// The recording can't be read.
    pub fn end(self) -> io::Result<Scene> {
        let log = self.home.path().join("log");
        let recording = Recording::load(&log, &self.before, "told")?;
        Ok(Scene {
            home: self.home,
            words: self.words,
            before: self.before,
            recording,
        })
    }
}

/// A recorded life.
#[derive(Debug)]
pub struct Scene {
    home: tempfile::TempDir,
    before: Snapshot,
    /// For driver and judge.
    pub words: String,
    /// What was done.
    pub recording: Recording,
}

impl Scene {
    /// Records `shape`, with random choices that follow from `seed`.
    ///
    /// # Errors
    /// The driver failed, or its recording can't be read.
    pub fn record(driver: &Path, shape: &Shape, seed: u64) -> io::Result<Self> {
        let mut random = fastrand::Rng::with_seed(seed);
        let stage = Stage::blank(shape.words)?;
        stage.shim.delay_syncs_ms(shape.sync_ms);
        for end in shape.lives {
            let life_seed = random.u64(..);
            if *end == End::Killed {
                stage.kill_somewhere(&mut random, 250);
            }
            let more = format!("seed={life_seed}");
            let ended = stage.live(driver, false, &more, Duration::from_secs(60))?;
            stage.shim.spare();
            if ended != Ended::Well && (*end == End::Closed || ended != Ended::Killed) {
                return Err(io::Error::other(format!("{}: {ended:?}", shape.name)));
            }
        }
        stage.end()
    }

    /// The verdict on what `cut` leaves, after the outside world was told `told`.
    ///
    /// # Errors
    /// The image can't be written, or no judge be started.
    pub fn ask(&self, judge: &mut Judge, cut: &Cut, told: &[u8]) -> io::Result<Verdict> {
        self.ask_forged(judge, cut, told, |_| Ok(()))
    }

    /// The same on an image that `forge` has changed.
    ///
    /// # Errors
    /// As [`Self::ask`], or what `forge` says.
    pub fn ask_forged(
        &self,
        judge: &mut Judge,
        cut: &Cut,
        told: &[u8],
        forge: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<Verdict> {
        let image = self.home.path().join("image");
        cut.build(&self.recording, &image)?;
        forge(&image.join("store"))?;
        let verdict = self.ask_of(judge, &image.join("store"), told)?;
        // Whatever a judge that died left open goes with it.
        let _ = fs::remove_dir_all(&image);
        Ok(verdict)
    }

    /// The verdict on the files as they are.
    ///
    /// # Errors
    /// No judge can be started.
    pub fn ask_now(&self, judge: &mut Judge) -> io::Result<Verdict> {
        let root = self.home.path().join("root");
        let told = fs::read(root.join("told")).unwrap_or_default();
        self.ask_of(judge, &root.join("store"), &told)
    }

    fn ask_of(&self, judge: &mut Judge, store: &Path, told: &[u8]) -> io::Result<Verdict> {
        let file = self.home.path().join("was-told");
        fs::write(&file, told)?;
        judge.ask(&format!(
            "{} {} {}",
            store.display(),
            file.display(),
            self.words
        ))
    }

    /// Judges `count` cuts, each image once; what was broken, and how many
    /// images there were.
    ///
    /// # Errors
    /// As [`Scene::ask`].
    pub fn judge(
        &self,
        judge: &mut Judge,
        count: usize,
        seed: u64,
    ) -> io::Result<(Vec<(Cut, Verdict)>, usize)> {
        let (mut broken, mut seen) = (Vec::new(), HashSet::new());
        for cut in Cut::through(&self.recording, count, seed) {
            let told = self.recording.witnessed(cut.at);
            let digest = cut.image(&self.recording).digest();
            if !seen.insert((digest, told.len())) {
                continue;
            }
            let verdict = self.ask(judge, &cut, &told)?;
            if !verdict.is_kept() {
                broken.push((cut, verdict));
            }
        }
        Ok((broken, seen.len()))
    }

    /// Keeps in `dir` what shows the image of `cut` again.
    ///
    /// # Errors
    /// It can't be written.
    pub fn keep(&self, dir: &Path, cut: &Cut) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        fs::copy(self.home.path().join("log"), dir.join("log"))?;
        self.before.save(&dir.join("before"))?;
        fs::write(dir.join("words"), &self.words)?;
        fs::write(dir.join("cut"), cut.to_text())
    }

    /// What [`Scene::keep`] kept.
    ///
    /// # Errors
    /// It isn't there.
    pub fn kept(dir: &Path) -> io::Result<(Self, Cut)> {
        let before = Snapshot::load(&dir.join("before"))?;
        let scene = Self {
            home: tempfile::tempdir_in(super::scratch())?,
            words: fs::read_to_string(dir.join("words"))?,
            recording: Recording::load(&dir.join("log"), &before, "told")?,
            before,
        };
        let text = fs::read_to_string(dir.join("cut"))?;
        let cut =
            Cut::from_text(&text).ok_or_else(|| io::Error::other(format!("no cut: {text}")))?;
        Ok((scene, cut))
    }
}

impl Cut {
    fn to_text(self) -> String {
        format!(
            "{} {:?} {:?} {}",
            self.at, self.unsynced, self.names, self.seed
        )
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        Some(Self {
            at: words.next()?.parse().ok()?,
            unsynced: match words.next()? {
                "Dropped" => Unsynced::Dropped,
                "Kept" => Unsynced::Kept,
                "Torn" => Unsynced::Torn,
                _ => return None,
            },
            names: match words.next()? {
                "Strict" => Names::Strict,
                "Journaled" => Names::Journaled,
                _ => return None,
            },
            seed: words.next()?.parse().ok()?,
        })
    }
}
