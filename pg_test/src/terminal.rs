//! What a person sees: one line a step, with the seconds it took, and a sign of life in between.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the running line is drawn again on a terminal.
const REDRAW: Duration = Duration::from_millis(120);
/// How often a step says that it is still running where the output is not a terminal.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Columns of a step's label, so that the times stand in one column.
const LABEL: usize = 58;

/// Whether standard output is a terminal that may show colours and redraw lines.
pub fn is_lively() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn painted(code: &str, text: &str) -> String {
    if is_lively() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Bold on a terminal.
pub fn bold(text: &str) -> String {
    painted("1", text)
}

/// Faint on a terminal.
pub fn faint(text: &str) -> String {
    painted("2", text)
}

/// Green on a terminal.
pub fn green(text: &str) -> String {
    painted("32", text)
}

/// Red on a terminal.
pub fn red(text: &str) -> String {
    painted("31", text)
}

/// Prints a heading with an empty line before it.
pub fn heading(text: &str) {
    say(&format!("\n{}", bold(text)));
}

/// Prints one line. A closed standard output is not an error: what runs must still be cleaned up.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Life {
    note: Mutex<String>,
    ended: Mutex<bool>,
    wake: Condvar,
}

/// One step under way. It ends with [`Step::done`] or [`Step::failed`]; dropped before, it failed.
pub struct Step {
    label: String,
    started: Instant,
    life: Arc<Life>,
    ticker: Option<JoinHandle<()>>,
}

impl Step {
    /// Begins a step and shows that it runs.
    pub fn begin(label: impl Into<String>) -> Self {
        let label = label.into();
        let started = Instant::now();
        let life = Arc::new(Life { note: Mutex::default(), ended: Mutex::new(false), wake: Condvar::new() });
        let ticker = {
            let (life, label) = (Arc::clone(&life), label.clone());
            std::thread::spawn(move || tick(&life, &label, started))
        };
        Self { label, started, life, ticker: Some(ticker) }
    }

    /// What the step is doing right now, shown behind its label.
    pub fn note(&self, text: &str) {
        text.trim().clone_into(&mut locked(&self.life.note));
    }

    /// Ends the step well. Returns how long it took.
    pub fn done(mut self) -> Duration {
        let took = self.started.elapsed();
        self.end(&green("✓"), "");
        took
    }

    /// Ends the step well, with a remark behind its time.
    pub fn done_with(mut self, remark: &str) {
        self.end(&green("✓"), remark);
    }

    /// Ends the step as skipped, saying why.
    pub fn skipped(mut self, why: &str) {
        self.end(&faint("–"), why);
    }

    /// Ends the step without a word, as if it had not been.
    pub fn dismissed(mut self) {
        self.stop();
        let _ = write!(std::io::stdout(), "{}", cleared());
    }

    /// Ends the step badly.
    pub fn failed(mut self, remark: &str) {
        self.end(&red("✗"), remark);
    }

    fn end(&mut self, mark: &str, remark: &str) {
        if !self.stop() {
            return;
        }
        let line = format!(
            "{}  {mark} {:<LABEL$} {} {}",
            cleared(),
            self.label,
            faint(&seconds(self.started.elapsed())),
            faint(remark)
        );
        say(line.trim_end());
    }

    /// Ends the running line; false where it had ended before.
    fn stop(&mut self) -> bool {
        let Some(ticker) = self.ticker.take() else { return false };
        *locked(&self.life.ended) = true;
        self.life.wake.notify_all();
        let _ = ticker.join();
        true
    }
}

/// What makes a terminal forget the running line.
fn cleared() -> &'static str {
    if is_lively() { "\r\x1b[K" } else { "" }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.end(&red("✗"), "");
    }
}

fn seconds(time: Duration) -> String {
    let tenths = time.as_secs_f64();
    if tenths < 60.0 {
        format!("{tenths:>6.1} s")
    } else {
        format!("{:>3}:{:02} m", time.as_secs() / 60, time.as_secs() % 60)
    }
}

fn tick(life: &Life, label: &str, started: Instant) {
    let lively = is_lively();
    let mut frames = ["·", "•", "●", "•"].into_iter().cycle();
    let mut ended = locked(&life.ended);
    while !*ended {
        if lively {
            let note: String = locked(&life.note).chars().take(40).collect();
            let frame = frames.next().unwrap_or_default();
            let time = seconds(started.elapsed());
            // Without line wrap meanwhile: a wrapped line could not be drawn over.
            let line = format!("  {frame} {label:<LABEL$} {} {}", faint(&time), faint(&note));
            let _ = write!(std::io::stdout(), "\x1b[?7l\r\x1b[K{line}\x1b[?7h");
            let _ = std::io::stdout().flush();
        }
        let pause = if lively { REDRAW } else { HEARTBEAT };
        let (guard, waited) = life.wake.wait_timeout(ended, pause).unwrap_or_else(PoisonError::into_inner);
        ended = guard;
        if waited.timed_out() && !lively && !*ended {
            let note = locked(&life.note).clone();
            say(&format!("    {label:<LABEL$} {} … {note}", seconds(started.elapsed())));
        }
    }
}
