//! What a launch costs: `launch_bench HELPER [ROUNDS]`.
//!
//! Method, printed with the numbers: one process, all variants interleaved in a shuffled order within each round,
//! three warm-up rounds thrown away, medians, and ratios to a plain fork+exec+wait of the same program in the same
//! run. Use the ratios; the milliseconds belong to the machine. Memory is PSS from `smaps_rollup`.

use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use skep_sandbox::{Cell, CellParts, CellSpec, Launcher, LauncherConfig};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;
const PROGRAM: &str = "/usr/bin/true";

struct Bench {
    launcher: Launcher,
    workspace: PathBuf,
    home: PathBuf,
    slot: Option<u16>,
}

impl Bench {
    fn cell(&self, argv: &[&str]) -> Outcome<Cell> {
        let spec = CellSpec::new(CellParts {
            agent: "bench".to_owned(),
            uid_slot: self.slot,
            workspace: self.workspace.clone(),
            home: self.home.clone(),
            argv: argv.iter().map(Into::into).collect(),
            env: vec![("PATH".into(), "/usr/bin".into())],
            listener_port: Some(8080),
            ..CellParts::default()
        })?;
        let null = || fs::File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        Ok(self.launcher.launch(&spec, [null()?, null()?, null()?])?)
    }

    /// Until the program runs, until its end is known, until the cell is gone from the machine.
    fn ours(&self) -> Outcome<[Duration; 3]> {
        let start = Instant::now();
        let mut cell = self.cell(&[PROGRAM])?;
        let running = start.elapsed();
        let mut exit = fs::File::from(cell.take_exit().ok_or("no exit pipe")?);
        let mut record = [0; 2];
        std::io::Read::read_exact(&mut exit, &mut record)?;
        let ended = start.elapsed();
        assert_eq!(&record, b"E\0", "the program must have run and ended well");
        std::io::Read::read_to_end(&mut exit, &mut Vec::new())?;
        Ok([running, ended, start.elapsed()])
    }
}

/// How a baseline is started.
#[derive(Clone, Copy)]
enum Way {
    /// `fork`, then `execve`: setting the uid (to the same one) keeps the standard library from `posix_spawn`.
    Fork,
    /// `posix_spawn`, which is a `vfork`: copies no page tables, and can do nothing between.
    Spawn,
}

#[expect(clippy::disallowed_methods, reason = "the baselines are other ways to start a program")]
fn run(way: Way, argv: &[&str]) -> Outcome<Duration> {
    let start = Instant::now();
    let mut command = Command::new(argv[0]);
    if matches!(way, Way::Fork) {
        command.uid(nix::unistd::geteuid().as_raw());
    }
    let status = command.args(&argv[1..]).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    assert!(status.success(), "{argv:?} failed");
    Ok(start.elapsed())
}

fn bwrap(workspace: &str) -> Vec<&str> {
    let text = "--unshare-all --ro-bind /usr /usr --symlink usr/lib /lib --symlink usr/lib64 /lib64 --symlink usr/bin /bin \
                --ro-bind /etc/passwd /etc/passwd --proc /proc --dev /dev --tmpfs /tmp --tmpfs /home --new-session \
                --die-with-parent --cap-drop ALL --bind";
    let mut argv = vec!["/usr/bin/bwrap"];
    argv.extend(text.split_whitespace());
    argv.extend([workspace, "/work", PROGRAM]);
    argv
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

fn pss(pid: i32) -> Outcome<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find(|line| line.starts_with("Pss:")).ok_or("no Pss")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}

fn memory(bench: &Bench, out: &mut impl std::io::Write) -> Outcome<()> {
    let helper = i32::try_from(bench.launcher.helper_pid())?;
    let alone = pss(helper)?;
    let mut cells = Vec::new();
    for _ in 0..8 {
        cells.push(bench.cell(&["/usr/bin/sleep", "60"])?);
    }
    std::thread::sleep(Duration::from_millis(300));
    let shared = pss(helper)?;
    let reapers = cells.iter().map(|cell| pss(cell.pid())).collect::<Outcome<Vec<_>>>()?;
    let sum: u64 = reapers.iter().sum();
    writeln!(out, "helper PSS: {alone} KiB alone, {shared} KiB while {} cells share its pages", cells.len())?;
    let each = (sum + shared).saturating_sub(alone) / reapers.len() as u64;
    writeln!(
        out,
        "per live cell, besides its command: one process, {each} KiB PSS more in all (reapers {reapers:?})"
    )?;
    Ok(())
}

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    let helper: PathBuf = args.next().ok_or("usage: launch_bench HELPER [ROUNDS]")?.into();
    let rounds: usize = args.next().map_or(Ok(200), |text| text.parse())?;
    let root = std::env::temp_dir().join(format!("skep-bench-{}", std::process::id()));
    let launcher = Launcher::start(LauncherConfig::new(fs::canonicalize(helper)?))?;
    let slot = launcher.capabilities().per_agent_uids.then_some(1);
    let bench = Bench { launcher, workspace: root.join("w"), home: root.join("h"), slot };
    for dir in [&bench.workspace, &bench.home] {
        fs::create_dir_all(dir)?;
        bench.launcher.prepare_dir(dir, slot)?;
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}", bench.launcher.tier())?;
    memory(&bench, &mut out)?;
    let spare = root.join("b");
    fs::create_dir_all(&spare)?;
    let has_bwrap = Path::new("/usr/bin/bwrap").exists();
    let bwrap = bwrap(spare.to_str().ok_or("temporary directory is not UTF-8")?);
    let mut times: [Vec<Duration>; 6] = Default::default();
    for round in 0..rounds + 3 {
        let keep = round >= 3;
        for turn in 0..4 {
            // Another order each round, so that no variant always follows the same one.
            let variant = if round % 2 == 0 { (turn + round) % 4 } else { (round + 7 - turn) % 4 };
            let found: Vec<(usize, Duration)> = match variant {
                0 => vec![(0, run(Way::Fork, &[PROGRAM])?)],
                2 => vec![(5, run(Way::Spawn, &[PROGRAM])?)],
                1 => (1..).zip(bench.ours()?).collect(),
                _ if has_bwrap => vec![(4, run(Way::Spawn, &bwrap)?)],
                _ => Vec::new(),
            };
            found.into_iter().filter(|_| keep).for_each(|(at, time)| times[at].push(time));
        }
    }
    let [plain, running, ended, gone, other, spawn] = times.map(median);
    writeln!(out, "{rounds} rounds, interleaved, medians, {PROGRAM}:")?;
    writeln!(out, "  plain fork+exec+wait               {plain:.3} ms  1.00")?;
    writeln!(out, "  posix_spawn+wait                   {spawn:.3} ms  {:.2}", spawn / plain)?;
    writeln!(out, "  cell, until it executes            {running:.3} ms  {:.2}", running / plain)?;
    writeln!(out, "  cell, until its end is known       {ended:.3} ms  {:.2}", ended / plain)?;
    writeln!(out, "  cell, until nothing of it is left  {gone:.3} ms  {:.2}", gone / plain)?;
    writeln!(
        out,
        "  bwrap, until it ends (no seccomp, Landlock, limits) {other:.3} ms  {:.2}",
        other / plain
    )?;
    drop(bench);
    fs::remove_dir_all(root)?;
    Ok(())
}
