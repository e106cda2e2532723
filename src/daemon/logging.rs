//! Where log lines go: to journald with their fields when systemd started us, else readable to stderr.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Sets the log up, once. `SKEP_LOG` chooses what is logged, as `tracing` filters are written; `info` otherwise.
pub(super) fn init() {
    let chosen = std::env::var("SKEP_LOG").unwrap_or_else(|_| "info".to_owned());
    // Libraries say nothing of use to an owner below warnings, and some would show URLs.
    let filter = EnvFilter::try_new(format!("warn,skep={chosen},skep_sandbox={chosen}"))
        .unwrap_or_else(|_| EnvFilter::new("warn,skep=info"));
    let journal = stderr_is_the_journal().then(tracing_journald::layer).and_then(Result::ok);
    let registry = tracing_subscriber::registry().with(filter);
    let done = match journal {
        Some(journal) => registry.with(journal.with_syslog_identifier("skep".to_owned())).try_init(),
        None => {
            let lines = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_target(false)
                .with_ansi(std::io::stderr().is_terminal());
            registry.with(lines).try_init()
        }
    };
    // A second call in one process (a test) keeps the first log.
    drop(done);
}

/// `JOURNAL_STREAM` names the device and inode of the journal's socket (systemd.exec(5)).
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(about) = nix::sys::stat::fstat(std::io::stderr().as_fd()) else { return false };
    stream == format!("{}:{}", about.st_dev, about.st_ino)
}
