//! The settings file, section by section: the names, their defaults and their bounds (`skep.toml(5)` tells the same).
//!
//! Invariant: reading goes on after a mistake, so that one run reports them all; a value used in place of a mistaken
//! one never leaves this module, because a report with a mistake yields no settings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::problem::Report;
use super::section::{Section, clean, integer, type_name};
use super::settings::{
    AgentSettings, ClaudeSettings, Permissions, Settings, StatusSettings, TelegramSettings,
};
use super::{password, scalar};
use crate::model::{AgentName, UserId};

const TELEGRAM: [&str; 2] = ["owners", "api_url"];
const CLAUDE: [&str; 2] = ["program", "upstream"];
const STATUS: [&str; 2] = ["listen", "password"];
const DEFAULTS: [&str; 7] = ["model", "idle", "turn_limit", "memory", "pids", "permissions", "egress"];
const AGENT: [&str; 9] =
    ["description", "model", "instructions", "idle", "turn_limit", "memory", "pids", "permissions", "egress"];

const API_URL: &str = "https://api.telegram.org";
const UPSTREAM: &str = "https://api.anthropic.com";
const PROGRAM: &str = "/usr/lib/skep/claude";
const OWNER: &str =
    "write your account's own number without quotes, or leave the list empty and use skep pair";
const DEFAULT_AGENT: &str = "general";

const IDLE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
const TURN_LIMIT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
const MEMORY: RangeInclusive<u64> = (64 << 20)..=(1 << 40);
/// Below this the genuine CLI was not seen to work.
const MEMORY_DOUBTFUL: u64 = 256 << 20;
const PIDS: RangeInclusive<i64> = 16..=32_768;
/// The text travels as one program argument, of which the kernel takes 128 KiB.
const INSTRUCTIONS: usize = 64 * 1024;

/// Reads the whole file.
pub(super) fn settings(table: &DeTable<'_>, report: &mut Report<'_>) -> Settings {
    let root = Section::new("", table);
    root.refuse_unknown(&["telegram", "claude", "defaults", "agents", "status"], report);
    let telegram = telegram(root, report);
    let claude = claude(root, report);
    let (agents, default_agent) = agents(root, report);
    let status = status(root, report);
    Settings { telegram, claude, agents, default_agent, status, checked: () }
}

fn telegram(root: Section<'_>, report: &mut Report<'_>) -> TelegramSettings {
    let mut settings = TelegramSettings { owners: BTreeSet::new(), api_url: API_URL.to_owned() };
    let Some(table) = root.table("telegram", report) else { return settings };
    let section = Section::new("telegram", table);
    section.refuse_unknown(&TELEGRAM, report);
    if let Some(url) = server(section, "api_url", API_URL, "the bot token", report) {
        settings.api_url = url;
    }
    let Some((list, _)) = section.list("owners", "[123456789]", report) else { return settings };
    for value in list {
        let (what, fix) = match integer(value.get_ref()) {
            Some(id) if id > 0 => {
                settings.owners.insert(UserId(id));
                continue;
            }
            Some(0) => ("0 is nobody's number".to_owned(), OWNER),
            Some(id) => (format!("{id} is a group or a channel, not a person"), OWNER),
            None => (format!("an owner is a number, and this is {}", type_name(value.get_ref())), OWNER),
        };
        report.refuse(value.span(), section.path("owners"), what, fix);
    }
    settings
}

fn claude(root: Section<'_>, report: &mut Report<'_>) -> ClaudeSettings {
    let mut settings = ClaudeSettings { program: PathBuf::from(PROGRAM), upstream: UPSTREAM.to_owned() };
    let Some(table) = root.table("claude", report) else { return settings };
    let section = Section::new("claude", table);
    section.refuse_unknown(&CLAUDE, report);
    if let Some(url) = server(section, "upstream", UPSTREAM, "the model credential", report) {
        settings.upstream = url;
    }
    let program = section.read("program", PROGRAM, report, |text| match text {
        _ if text.contains('\0') => Err(("a path with a NUL in it".to_owned(), "remove it".to_owned())),
        _ if !text.starts_with('/') => Err((
            format!("{text:?} is not a full path"),
            format!("write it from the root on, like {PROGRAM:?}"),
        )),
        _ => Ok(PathBuf::from(text)),
    });
    if let Some((program, _)) = program {
        settings.program = program;
    }
    settings
}

/// The root URL of a server; plain `http` to another machine is accepted with a warning that `cargo` is exposed.
fn server(
    section: Section<'_>,
    key: &str,
    example: &str,
    cargo: &str,
    report: &mut Report<'_>,
) -> Option<String> {
    let (root, span) = section.read(key, example, report, |text| scalar::root(text, example))?;
    if root.exposed {
        report.warn(
            span,
            section.path(key),
            format!("plain http: {cargo} can be read on the way"),
            "use https unless the network between is your own",
        );
    }
    Some(root.url)
}

/// What `[defaults]` and `[agents.NAME]` have in common; `None` where the section is silent.
#[derive(Debug, Default)]
struct Limits {
    model: Option<String>,
    idle: Option<Duration>,
    turn_limit: Option<Duration>,
    memory: Option<u64>,
    pids: Option<u32>,
    permissions: Option<Permissions>,
    egress: Option<Vec<String>>,
}

impl Limits {
    fn read(section: Section<'_>, report: &mut Report<'_>) -> Self {
        Self {
            model: section.read("model", "sonnet", report, model).map(|(model, _)| model),
            idle: time(section, "idle", "10m", &IDLE, report),
            turn_limit: time(section, "turn_limit", "30m", &TURN_LIMIT, report),
            memory: memory(section, report),
            pids: pids(section, report),
            permissions: section
                .read("permissions", "sandboxed", report, permissions)
                .map(|(permissions, _)| permissions),
            egress: egress(section, report),
        }
    }
}

fn agents(root: Section<'_>, report: &mut Report<'_>) -> (BTreeMap<AgentName, AgentSettings>, AgentName) {
    let defaults = root.table("defaults", report).map_or_else(Limits::default, |table| {
        let section = Section::new("defaults", table);
        section.refuse_unknown(&DEFAULTS, report);
        Limits::read(section, report)
    });
    let mut agents = BTreeMap::new();
    let mut first: Option<(usize, AgentName)> = None;
    if let Some(table) = root.table("agents", report) {
        for (key, value) in table {
            let written = clean(key.get_ref());
            let path = format!("agents.{written}");
            let Some(below) = value.get_ref().as_table() else {
                let found = type_name(value.get_ref());
                let fix = format!("write a section: [agents.{written}]");
                report.refuse(key.span(), path, format!("an agent is a section, and this is {found}"), fix);
                continue;
            };
            let settings = agent(Section::new(&path, below), &defaults, report);
            match AgentName::new(key.get_ref()) {
                Ok(name) => {
                    if first.as_ref().is_none_or(|(start, _)| key.span().start < *start) {
                        first = Some((key.span().start, name.clone()));
                    }
                    agents.insert(name, settings);
                }
                Err(_) => report.refuse(
                    key.span(),
                    &path,
                    "this is not an agent's name",
                    "use 1 to 32 of a-z, 0-9 and -, beginning with a letter",
                ),
            }
        }
    }
    match first {
        Some((_, name)) => (agents, name),
        None => only_agent(&defaults, report),
    }
}

/// A file without agents means one, with every default.
fn only_agent(defaults: &Limits, report: &mut Report<'_>) -> (BTreeMap<AgentName, AgentSettings>, AgentName) {
    let nothing = DeTable::new();
    let mut settings = agent(Section::new(DEFAULT_AGENT, &nothing), defaults, report);
    "Everyday questions and chores".clone_into(&mut settings.description);
    let Ok(name) = AgentName::new(DEFAULT_AGENT) else { unreachable!("the built-in name is a good one") };
    ([(name.clone(), settings)].into(), name)
}

fn agent(section: Section<'_>, defaults: &Limits, report: &mut Report<'_>) -> AgentSettings {
    section.refuse_unknown(&AGENT, report);
    let own = Limits::read(section, report);
    let description =
        section.read("description", "Everyday questions", report, description).map(|(text, _)| text);
    let instructions = section.read("instructions", "Be brief.", report, instructions).map(|(text, _)| text);
    AgentSettings {
        description: description.unwrap_or_default(),
        model: own.model.or_else(|| defaults.model.clone()).unwrap_or_else(|| "sonnet".to_owned()),
        instructions: instructions.filter(|text| !text.is_empty()),
        idle: own.idle.or(defaults.idle).unwrap_or(Duration::from_secs(600)),
        turn_limit: own.turn_limit.or(defaults.turn_limit).unwrap_or(Duration::from_secs(1800)),
        memory: own.memory.or(defaults.memory).unwrap_or(700 << 20),
        pids: own.pids.or(defaults.pids).unwrap_or(512),
        egress: own.egress.or_else(|| defaults.egress.clone()).unwrap_or_default(),
        permissions: own.permissions.or(defaults.permissions).unwrap_or(Permissions::Sandboxed),
    }
}

fn model(text: &str) -> Result<String, scalar::Refusal> {
    let good = (1..=128).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_graphic());
    if good {
        return Ok(text.to_owned());
    }
    Err((
        "this is not a model's name".to_owned(),
        "write \"sonnet\", \"opus\", \"haiku\" or a full model id".to_owned(),
    ))
}

fn description(text: &str) -> Result<String, scalar::Refusal> {
    if text.chars().any(char::is_control) {
        return Err(("a description is one line".to_owned(), "longer words go into instructions".to_owned()));
    }
    if text.chars().count() > 200 {
        return Err((
            "a description has at most 200 characters".to_owned(),
            "longer words go into instructions".to_owned(),
        ));
    }
    Ok(text.trim().to_owned())
}

fn instructions(text: &str) -> Result<String, scalar::Refusal> {
    if text.len() > INSTRUCTIONS {
        let what = format!("{} bytes of instructions are more than {INSTRUCTIONS}", text.len());
        return Err((what, "put the long part into a file of the agent's workspace".to_owned()));
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r')) {
        return Err(("a control character in the instructions".to_owned(), "remove it".to_owned()));
    }
    Ok(text.to_owned())
}

fn permissions(text: &str) -> Result<Permissions, scalar::Refusal> {
    let fix =
        "write \"sandboxed\" (what the cell allows is allowed) or \"plan\" (read and plan, change nothing)";
    match text {
        "sandboxed" => Ok(Permissions::Sandboxed),
        "plan" => Ok(Permissions::Plan),
        "ask" => Err(("approvals are not built yet, so \"ask\" cannot be kept".to_owned(), fix.to_owned())),
        _ => Err((format!("{text:?} is not a way to permit tools"), fix.to_owned())),
    }
}

fn time(
    section: Section<'_>,
    key: &str,
    example: &str,
    bounds: &RangeInclusive<Duration>,
    report: &mut Report<'_>,
) -> Option<Duration> {
    section
        .read(key, example, report, |text| {
            let time = scalar::duration(text)?;
            if bounds.contains(&time) {
                return Ok(time);
            }
            let (low, high) = (scalar::show_duration(*bounds.start()), scalar::show_duration(*bounds.end()));
            Err((
                format!("{text:?} is out of bounds"),
                format!("write something from \"{low}\" to \"{high}\""),
            ))
        })
        .map(|(time, _)| time)
}

fn memory(section: Section<'_>, report: &mut Report<'_>) -> Option<u64> {
    let (bytes, span) = section.read("memory", "700M", report, |text| {
        let bytes = scalar::size(text)?;
        if MEMORY.contains(&bytes) {
            return Ok(bytes);
        }
        let (low, high) = (scalar::show_size(*MEMORY.start()), scalar::show_size(*MEMORY.end()));
        Err((format!("{text:?} is out of bounds"), format!("write something from \"{low}\" to \"{high}\"")))
    })?;
    if bytes < MEMORY_DOUBTFUL {
        report.warn(
            span,
            section.path("memory"),
            "Claude Code hardly works in so little memory",
            format!("give it \"{}\" or more", scalar::show_size(MEMORY_DOUBTFUL)),
        );
    }
    Some(bytes)
}

fn pids(section: Section<'_>, report: &mut Report<'_>) -> Option<u32> {
    let (count, span) = section.integer("pids", report)?;
    match u32::try_from(count) {
        Ok(pids) if PIDS.contains(&count) => Some(pids),
        _ => {
            let fix = format!("write something from {} to {}", PIDS.start(), PIDS.end());
            report.refuse(span, section.path("pids"), format!("{count} is out of bounds"), fix);
            None
        }
    }
}

fn egress(section: Section<'_>, report: &mut Report<'_>) -> Option<Vec<String>> {
    let (list, span) = section.list("egress", "[\"github.com\"]", report)?;
    let mut hosts = Vec::new();
    for value in list {
        let read = match value.get_ref().as_str() {
            Some(text) => scalar::host(text),
            None => Err((
                format!("a host is text, and this is {}", type_name(value.get_ref())),
                "write it like \"github.com\"".to_owned(),
            )),
        };
        match read {
            Ok(host) if hosts.contains(&host) => {}
            Ok(host) => hosts.push(host),
            Err((what, fix)) => report.refuse(value.span(), section.path("egress"), what, fix),
        }
    }
    if !hosts.is_empty() {
        report.warn(
            span,
            section.path("egress"),
            "network access of agents is not served yet",
            "nothing is reachable from the cell, whatever is listed here",
        );
    }
    Some(hosts)
}

fn status(root: Section<'_>, report: &mut Report<'_>) -> Option<StatusSettings> {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, 8420));
    let Some(table) = root.table("status", report) else {
        return Some(StatusSettings { listen: usual, password: None });
    };
    let section = Section::new("status", table);
    section.refuse_unknown(&STATUS, report);
    let listen = section.read("listen", "127.0.0.1:8420", report, |text| match text {
        "off" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| {
            (format!("{text:?} is not an address with a port"), format!("write \"{usual}\", or \"off\""))
        }),
    });
    let hash = section.read("password", "what skep hash-password prints", report, |text| {
        password::check(text).map(|()| text.to_owned())
    });
    let (listen, span): (_, Range<usize>) = listen.unwrap_or((Some(usual), 0..0));
    let listen = listen?;
    if !listen.ip().is_loopback() && !table.contains_key("password") {
        report.refuse(
            span,
            section.path("listen"),
            format!("{listen} can be reached by others, and there is no password"),
            "set password to what skep hash-password prints, or listen on 127.0.0.1",
        );
    }
    Some(StatusSettings { listen, password: hash.map(|(hash, _)| hash) })
}
