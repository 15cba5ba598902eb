//! Child processes: pinned to cores, in a process group of their own, ended by id when dropped.
//!
//! Each is started through `pin`, a hidden subcommand of this binary: it sets cores, descriptors and the signal that the child gets when this
//! process dies, and becomes the program. So no child outlives the bench, however that ends. For the same reason all are started from the
//! main thread: the kernel takes the end of the starting thread for the end of the parent.

use std::{
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::{
    process::{Pid, Resource, Rlimit, Signal},
    thread::{CpuSet, sched_setaffinity},
};

use crate::{interrupt, procfs};

/// How long a child has to end by itself.
const GOODBYE: Duration = Duration::from_secs(1);

/// How often a wait looks at the signal flag.
const GLANCE: Duration = Duration::from_millis(100);

/// Descriptors that a child may have, whatever the system allows: enough for both sides of 9 000 connections. Some proxies make tables for as many
/// as they may have, and what they weigh must not depend on the machine.
const MOST_DESCRIPTORS: u64 = 20_000;

/// Becomes a program, on these cores. Returns only with an error.
pub fn pin(cores: &[usize], program: &[OsString]) -> anyhow::Result<()> {
    stand_on(cores)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    // Both limits: some programs help themselves to the upper one.
    let most = Some(descriptors());
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    let (name, arguments) = program.split_first().context("no program")?;
    Err(Command::new(name).args(arguments).exec()).with_context(|| name.to_string_lossy().into_owned())
}

/// Keeps this thread, and those that it starts from now on, on these cores.
pub fn stand_on(cores: &[usize]) -> anyhow::Result<()> {
    sched_setaffinity(None, &set_of(cores)).with_context(|| format!("cores {cores:?}"))
}

/// Puts the threads of Penstock's data plane on one core, all others on another. Else the scheduler puts them where it likes, each time anew, and where a
/// worker runs decides more of what a request costs than anything else: whom it wakes on another core has to be interrupted there.
pub fn part_planes(root: u32, workers: usize, others: usize) -> anyhow::Result<()> {
    for (id, worker) in procfs::threads_by_plane(root)? {
        match sched_setaffinity(Some(id), &set_of(&[if worker { workers } else { others }])) {
            // A thread that ended meanwhile.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).context("the core of a thread"),
        }
    }
    Ok(())
}

fn set_of(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    set
}

/// How many descriptors a child may have.
pub fn descriptors() -> u64 {
    rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX).min(MOST_DESCRIPTORS)
}

/// A program to start.
#[derive(Debug)]
pub struct Program {
    pub path: PathBuf,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(String, OsString)>,
    pub cores: Vec<usize>,
    /// Where its output goes; without one, lines are exchanged with it.
    pub output: Option<PathBuf>,
}

/// A running child; ended when dropped.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: std::process::Child,
    lines: Option<mpsc::Receiver<String>>,
    log: Option<PathBuf>,
}

impl Child {
    pub fn start(program: &Program) -> anyhow::Result<Self> {
        let name = program.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let cores: Vec<String> = program.cores.iter().map(ToString::to_string).collect();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["pin", "--cores", &cores.join(","), "--"]).arg(&program.path).args(&program.arguments);
        command.envs(program.environment.iter().map(|(name, value)| (name, value))).process_group(0);
        if let Some(path) = &program.output {
            let file = File::options().create(true).append(true).open(path)?;
            command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        } else {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        }
        let mut process = command.spawn().with_context(|| name.clone())?;
        let lines = process.stdout.take().map(|stdout| {
            let (sender, lines) = mpsc::channel();
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
            lines
        });
        Ok(Self { name, process, lines, log: program.output.clone() })
    }

    /// This binary with a hidden subcommand, on one core.
    pub fn own(subcommand: &str, core: usize) -> anyhow::Result<Self> {
        Self::start(&Program {
            path: std::env::current_exe()?,
            arguments: vec![subcommand.into()],
            environment: Vec::new(),
            cores: vec![core],
            output: None,
        })
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("{} ended with {status}: {}", self.name, self.tail()),
        }
    }

    /// Sends a line to it.
    pub fn say(&mut self, line: &str) -> anyhow::Result<()> {
        let stdin = self.process.stdin.as_mut().context("it takes no lines")?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).with_context(|| format!("{} does not listen", self.name))
    }

    /// Waits for a line from it.
    pub fn hear(&mut self, patience: Duration) -> anyhow::Result<String> {
        let end = Instant::now() + patience;
        let lines = self.lines.as_ref().context("it gives no lines")?;
        loop {
            interrupt::check()?;
            match lines.recv_timeout(GLANCE) {
                Ok(line) => return Ok(line),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    anyhow::ensure!(Instant::now() < end, "{} said nothing for {patience:?}", self.name);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    anyhow::bail!("{} ended: {:?}", self.name, self.process.wait());
                }
            }
        }
    }

    /// Waits until a check holds. An error if it ends before, with the end of its output.
    pub fn until(&mut self, what: &str, patience: Duration, mut check: impl FnMut() -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + patience;
        loop {
            interrupt::check()?;
            if check() {
                return Ok(());
            }
            self.check()?;
            anyhow::ensure!(Instant::now() < end, "{}: {what}: not within {patience:?}: {}", self.name, self.tail());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The last lines that it wrote.
    fn tail(&self) -> String {
        let text = self.log.as_deref().and_then(|path: &Path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Of its children too: a killed nginx leaves its worker.
        let all = procfs::tree(self.process.id());
        // Asked first, and again since the second signal ends a drain: a build that counts what it does writes that at its end.
        for _ in 0..2 {
            if let Some(id) = Pid::from_raw(self.process.id() as i32)
                && matches!(self.process.try_wait(), Ok(None))
            {
                let _ = rustix::process::kill_process(id, Signal::TERM);
            }
            let end = Instant::now() + GOODBYE;
            while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        for id in all {
            if let Some(id) = Pid::from_raw(id as i32) {
                let _ = rustix::process::kill_process(id, Signal::KILL);
            }
        }
        let _ = self.process.wait();
    }
}

/// Waits, unless somebody wants this to end.
pub fn pause(time: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        interrupt::check()?;
        std::thread::sleep(left.min(GLANCE));
    }
    Ok(())
}
