//! One server process, which is frozen, killed and ended together with its children and never outlives the test.
//!
//! A watchdog, a shell that reads from a pipe held by the test process, ends the server and removes its folder when the
//! pipe closes, however the test process ends. Processes are ended by number, never by name.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use self::signal::Signal;

/// How long a server may take to accept connections, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a server is started on another port when it ends at once, as it does when somebody else took the port.
const ATTEMPTS: usize = 5;

/// Ends the process named last, its children first, when the pipe closes. `$1` is the folder to remove.
const WATCHDOG: &str = r#"
pid=
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
    kill -STOP "$pid"
    children=$(cat "/proc/$pid/task/"*/children || pgrep -P "$pid")
    kill -KILL $children "$pid"
fi
rm -rf "$1"
"#;

/// How to start a server.
pub struct Launch {
    /// The program and its arguments; the folder of the process is its working folder.
    pub command: Command,
    /// Whether the server answers.
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
}

/// A server process on a port of the loopback interface.
///
/// Its methods block for as long as the server takes, and panic where it does not do as told.
pub struct Process {
    port: u16,
    launch: Mutex<Launch>,
    child: Mutex<Option<Child>>,
    watchdog: Watchdog,
    folder: TempDir,
}

impl Process {
    /// Starts a server in a fresh folder. `prepare` fills the folder; `launch` says how to start on a port.
    pub fn start(prepare: impl FnOnce(&Path), launch: impl Fn(u16, &Path) -> Launch) -> Self {
        let folder = tempfile::Builder::new().prefix("agent-storage-").tempdir().expect("a temporary folder");
        let watchdog = Watchdog::over(folder.path());
        prepare(folder.path());
        let port = free_port();
        let first = launch(port, folder.path());
        let mut process = Self { port, launch: Mutex::new(first), child: Mutex::new(None), watchdog, folder };
        for attempt in 1.. {
            match process.try_start() {
                Ok(()) => break,
                Err(problem) if attempt == ATTEMPTS => panic!("{problem}"),
                Err(_) => {
                    process.port = free_port();
                    process.launch = Mutex::new(launch(process.port, process.folder.path()));
                }
            }
        }
        process
    }

    /// The address the server listens on.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The port the server listens on; it stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The number of the server's main process.
    pub fn pid(&self) -> u32 {
        lock(&self.child).as_ref().expect("the server runs").id()
    }

    /// The server's folder: its data, its configuration and its log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the server printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// Stops the server and all its children where they stand; connections stay open and nothing answers.
    pub fn freeze(&self) {
        freeze_family(self.pid());
    }

    /// Lets a frozen server run on.
    pub fn thaw(&self) {
        thaw_family(self.pid());
    }

    /// Kills the server and all its children at once, as a crash or the kernel's memory killer would.
    pub fn kill(&self) {
        if let Some(mut child) = lock(&self.child).take() {
            // Once it was reaped, its number may be somebody else's.
            if matches!(child.try_wait(), Ok(None)) {
                kill_family(child.id());
                child.wait().expect("a child can be waited for");
            }
            self.watchdog.watch(None);
        }
    }

    /// Ends the server in order, thawing it if need be; kills it if it does not end in 20 seconds.
    pub fn stop(&self) {
        {
            let mut child = lock(&self.child);
            let Some(running) = child.as_mut() else { return };
            thaw_family(running.id());
            // PostgreSQL's "fast" shutdown, which does not wait for clients; the others take it as the terminal's Ctrl-C.
            signal::send(running.id(), Signal::Interrupt);
            let ended = wait_until(|| !matches!(running.try_wait(), Ok(None)));
            if ended {
                child.take();
                self.watchdog.watch(None);
            }
        }
        self.kill();
    }

    /// Starts the server anew on the same port and data; ends it first if it runs.
    pub fn restart(&self) {
        self.stop();
        self.try_start().unwrap_or_else(|problem| panic!("{problem}"));
    }

    fn try_start(&self) -> Result<(), String> {
        let mut launch = lock(&self.launch);
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log can be opened");
        let command = launch.command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log can be opened twice")).stderr(log);
        signal::own_group(command);
        let child = command.spawn().map_err(|error| format!("cannot start {command:?}: {error}"))?;
        self.watchdog.watch(Some(child.id()));
        *lock(&self.child) = Some(child);
        let ready = wait_until(|| self.has_ended() || (launch.ready)());
        if ready && !self.has_ended() {
            return Ok(());
        }
        self.kill();
        Err(format!("{:?} did not start:\n{}", launch.command.get_program(), self.log()))
    }

    fn has_ended(&self) -> bool {
        lock(&self.child).as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Stops a process and all its children where they stand.
pub fn freeze_family(pid: u32) {
    // The parent first: stopped, it starts no further child while the children are counted.
    signal::send(pid, Signal::Stop);
    wait_until(|| is_still(pid));
    children_of(pid).into_iter().for_each(freeze_family);
}

/// Lets a process and all its children run on.
pub fn thaw_family(pid: u32) {
    children_of(pid).into_iter().for_each(thaw_family);
    signal::send(pid, Signal::Continue);
}

fn kill_family(pid: u32) {
    signal::send(pid, Signal::Stop);
    wait_until(|| is_still(pid));
    let children = children_of(pid);
    children.iter().copied().for_each(kill_family);
    signal::send(pid, Signal::Kill);
    // A restarted PostgreSQL refuses to start while a child of the old one still holds its shared memory.
    wait_until(|| children.iter().all(|child| !is_alive(*child)));
}

/// Whether a process is there and not only waiting to be reaped.
pub fn is_alive(pid: u32) -> bool {
    state_of(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// Whether a process is stopped or gone.
pub fn is_still(pid: u32) -> bool {
    state_of(pid).is_none_or(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
}

/// The state letter of a process as `ps` shows it; none if it is gone.
fn state_of(pid: u32) -> Option<char> {
    if cfg!(target_os = "linux") {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before it is in parentheses and may itself hold some.
        return stat.rsplit_once(") ")?.1.chars().next();
    }
    let output = Command::new("ps").args(["-o", "state=", "-p", &pid.to_string()]).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().chars().next()
}

/// The numbers of a process's children.
pub fn children_of(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut listed: String =
        threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok()).collect();
    if cfg!(not(target_os = "linux")) {
        let output = Command::new("pgrep").args(["-P", &pid.to_string()]).output();
        listed = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    }
    listed.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// A shell that ends a process and removes its folder when the pipe to it closes.
struct Watchdog {
    child: Child,
    pipe: Mutex<Option<ChildStdin>>,
}

impl Watchdog {
    fn over(folder: &Path) -> Self {
        let mut command = Command::new("sh");
        command.arg("-c").arg(WATCHDOG).arg("watchdog").arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        // Of its own group, so that a Ctrl-C meant for the test does not end it before its work.
        signal::own_group(&mut command);
        let mut child = command.spawn().expect("a shell can be started");
        let pipe = Mutex::new(child.stdin.take());
        Self { child, pipe }
    }

    /// Names the process to end; none if it was ended and reaped, so that its number is no longer ours.
    fn watch(&self, pid: Option<u32>) {
        if let Some(pipe) = lock(&self.pipe).as_mut() {
            let line = pid.map(|pid| pid.to_string()).unwrap_or_default();
            writeln!(pipe, "{line}").expect("the watchdog reads");
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        lock(&self.pipe).take();
        // It ends by itself once the pipe is closed.
        let _ = self.child.wait();
    }
}

/// A port below the range from which the kernel takes the ports of outgoing connections, so that none takes it while the
/// server is down.
fn free_port() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    let random = || 20_000 + u16::try_from(RandomState::new().hash_one(0) % 12_000).unwrap_or(0);
    std::iter::repeat_with(random)
        .take(1000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Asks until it holds or [`PATIENCE`] is over; says whether it holds.
pub fn wait_until(mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Locks, also after a test panicked with the lock held: the server must still be ended.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Signals, where there are any.
mod signal {
    use std::process::Command;

    #[derive(Clone, Copy, Debug)]
    pub(super) enum Signal {
        Interrupt,
        Stop,
        Continue,
        Kill,
    }

    /// Sends a signal to a process; one that is gone is left alone.
    #[cfg(unix)]
    pub(super) fn send(pid: u32, signal: Signal) {
        use rustix::process::{Pid, Signal as Number, kill_process};
        let number = match signal {
            Signal::Interrupt => Number::INT,
            Signal::Stop => Number::STOP,
            Signal::Continue => Number::CONT,
            Signal::Kill => Number::KILL,
        };
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, number);
        }
    }

    /// Starts the process in a group of its own.
    #[cfg(unix)]
    pub(super) fn own_group(command: &mut Command) {
        use std::os::unix::process::CommandExt;
        command.process_group(0);
    }

    #[cfg(not(unix))]
    pub(super) fn send(_: u32, signal: Signal) {
        panic!("cannot send {signal:?} on this system");
    }

    #[cfg(not(unix))]
    pub(super) fn own_group(_: &mut Command) {}
}
