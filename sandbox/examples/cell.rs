//! Runs one command in a cell and shows what held it: `cell HELPER WORKSPACE HOME [PROGRAM=CELLPATH…] -- COMMAND…`.
//! `SKEP_SLOT` chooses a uid slot, `SKEP_CGROUP` a delegated cgroup subtree.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use skep_sandbox::{CellParts, CellSpec, ExitStatus, Launcher, LauncherConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("usage: cell HELPER WORKSPACE HOME [PROGRAM=CELLPATH…] -- COMMAND…");
    let (helper, workspace, home) = (next()?, next()?, next()?);
    let mut programs = Vec::new();
    for word in args.by_ref() {
        match word.split_once('=') {
            Some((host, cell)) => programs.push((PathBuf::from(host), PathBuf::from(cell))),
            None => break,
        }
    }
    let slot = std::env::var("SKEP_SLOT").ok().map(|slot| slot.parse()).transpose()?;
    let mut config = LauncherConfig::new(helper.into());
    config.cgroup = std::env::var_os("SKEP_CGROUP").map(PathBuf::from);
    let launcher = Launcher::start(config)?;
    let mut err = std::io::stderr();
    writeln!(err, "{}\n{:#?}", launcher.tier(), launcher.capabilities().missing())?;
    let spec = CellSpec::new(CellParts {
        agent: "bee".to_owned(),
        uid_slot: slot,
        workspace: workspace.into(),
        home: home.into(),
        programs,
        argv: args.map(Into::into).collect(),
        env: vec![
            ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
            ("HOME".into(), "/home/agent".into()),
        ],
        ..CellParts::default()
    })?;
    launcher.prepare_dir(&spec.parts().workspace, slot)?;
    launcher.prepare_dir(&spec.parts().home, slot)?;
    let (mut reader, writer) = std::io::pipe()?;
    let stderr = writer.try_clone()?;
    let null: OwnedFd = std::fs::File::open("/dev/null")?.into();
    let mut cell = launcher.launch(&spec, [null, writer.into(), stderr.into()])?;
    writeln!(err, "{}", cell.report())?;
    std::io::copy(&mut reader, &mut std::io::stdout())?;
    let mut bytes = Vec::new();
    if let Some(exit) = cell.take_exit() {
        std::io::Read::read_to_end(&mut std::fs::File::from(exit), &mut bytes)?;
    }
    writeln!(err, "{:?}", ExitStatus::parse(&bytes))?;
    Ok(())
}
