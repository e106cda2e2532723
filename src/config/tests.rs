//! The settings as a whole; bad files with their exact messages are in `tests/config_files.rs`.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{AgentName, UserId};

fn name(text: &str) -> AgentName {
    AgentName::new(text).unwrap()
}

fn good(text: &str) -> Settings {
    parse(text, "t").unwrap().settings
}

fn mistakes(text: &str) -> Vec<String> {
    parse(text, "t").unwrap_err().to_string().lines().map(str::to_owned).collect()
}

fn plain() -> AgentSettings {
    AgentSettings {
        description: String::new(),
        model: "sonnet".to_owned(),
        instructions: None,
        idle: Duration::from_secs(600),
        turn_limit: Duration::from_secs(1800),
        memory: 700 << 20,
        pids: 512,
        egress: vec![],
        permissions: Permissions::Sandboxed,
    }
}

#[test]
fn an_empty_file_means_every_default_and_one_agent() {
    let expected = Settings {
        telegram: TelegramSettings { owners: [].into(), api_url: "https://api.telegram.org".to_owned() },
        claude: ClaudeSettings {
            program: "/usr/lib/skep/claude".into(),
            upstream: "https://api.anthropic.com".to_owned(),
        },
        agents: [(
            name("general"),
            AgentSettings { description: "Everyday questions and chores".to_owned(), ..plain() },
        )]
        .into(),
        default_agent: name("general"),
        status: Some(StatusSettings { listen: "127.0.0.1:8420".parse().unwrap(), password: None }),
        checked: (),
    };
    assert_eq!(parse("", "t").unwrap(), Loaded { settings: expected.clone(), warnings: vec![] });
    assert_eq!(good("[telegram]\n[claude]\n[defaults]\n[agents]\n[status]\n"), expected);
}

#[test]
fn an_agent_takes_from_the_defaults_what_it_does_not_say() {
    let settings = good(
        r#"
        [telegram]
        owners = [7, 8, 7]
        api_url = "http://127.0.0.1:8081/"
        [defaults]
        model = "haiku"
        idle = "90s"
        memory = "1G"
        permissions = "plan"
        [agents.zebra]
        description = " Stripes "
        [agents.ant]
        model = "opus"
        turn_limit = "2h"
        pids = 0x100
        permissions = "sandboxed"
        instructions = "Be brief.\nBe kind."
        [status]
        listen = "off"
        "#,
    );
    let defaults = AgentSettings {
        model: "haiku".to_owned(),
        idle: Duration::from_secs(90),
        memory: 1 << 30,
        permissions: Permissions::Plan,
        ..plain()
    };
    let ant = AgentSettings {
        model: "opus".to_owned(),
        turn_limit: Duration::from_secs(7200),
        pids: 256,
        permissions: Permissions::Sandboxed,
        instructions: Some("Be brief.\nBe kind.".to_owned()),
        ..defaults.clone()
    };
    let zebra = AgentSettings { description: "Stripes".to_owned(), ..defaults };
    assert_eq!(settings.agents, [(name("ant"), ant), (name("zebra"), zebra)].into());
    assert_eq!(settings.default_agent, name("zebra"), "the first of the file");
    assert_eq!(settings.telegram.owners, [UserId(7), UserId(8)].into());
    assert_eq!(settings.telegram.api_url, "http://127.0.0.1:8081");
    assert_eq!(settings.status, None);
}

#[test]
fn every_mistake_is_reported_at_once_in_the_order_of_the_file() {
    let text = "[agents.coder]\nmemroy = \"1G\"\nidle = 10\n[agents.Bad]\n[colours]\n[telegram]\nowners = [\"me\"]\n";
    assert_eq!(
        mistakes(text),
        [
            "t:2:1: agents.coder.memroy: there is no such setting; did you mean \"memory\"?",
            "t:3:8: agents.coder.idle: this must be text in quotes, and is a number; write idle = \"10m\"",
            "t:4:9: agents.Bad: this is not an agent's name; use 1 to 32 of a-z, 0-9 and -, beginning with a letter",
            "t:5:2: colours: there is no such setting; known here: telegram, claude, defaults, agents, status",
            "t:7:11: telegram.owners: an owner is a number, and this is text; write your account's own number \
             without quotes, or leave the list empty and use skep pair",
        ]
    );
}

#[test]
fn doubtful_settings_are_accepted_with_a_word() {
    let text = "[telegram]\napi_url = \"http://10.0.2.2:1\"\n[agents.a]\negress = [\"github.com\", \"GitHub.com\"]\nmemory = \"64M\"\n";
    let loaded = parse(text, "t").unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "t:2:11: telegram.api_url: plain http: the bot token can be read on the way; \
             use https unless the network between is your own",
            "t:4:10: agents.a.egress: network access of agents is not served yet; \
             nothing is reachable from the cell, whatever is listed here",
            "t:5:10: agents.a.memory: Claude Code hardly works in so little memory; give it \"256M\" or more",
        ]
    );
    assert_eq!(loaded.settings.agents[&name("a")].egress, ["github.com"]);
}

#[test]
fn only_what_a_running_daemon_cannot_change_needs_a_restart() {
    let old = good("");
    let same = good("[telegram]\nowners = [1]\n[agents.x]\nmodel = \"opus\"\n[defaults]\nmemory = \"1G\"\n");
    assert_eq!(old.needs_restart(&same), Vec::<&str>::new());
    let other = good(
        "[telegram]\napi_url = \"https://a.b\"\n[claude]\nprogram = \"/x\"\nupstream = \"https://c.d\"\n[status]\nlisten = \"off\"\n",
    );
    assert_eq!(
        old.needs_restart(&other),
        ["telegram.api_url", "claude.program", "claude.upstream", "status"]
    );
}

#[test]
fn a_file_that_cannot_be_read_says_why_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("skep.toml");
    let cases: [(&dyn Fn(), &str, &str); 3] = [
        (&|| {}, "create it: an empty file means every default (man skep.toml)", "No such file"),
        (&|| std::fs::create_dir(&path).unwrap(), "name the settings file itself", "not a regular file"),
        (
            &|| {
                std::fs::remove_dir(&path).unwrap();
                std::fs::write(&path, "#".repeat(300_000)).unwrap();
            },
            "keep long texts in files of the agent's workspace",
            "more than 256 KiB",
        ),
    ];
    for (prepare, fix, reason) in cases {
        prepare();
        let error = load(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read the settings {}; {fix}", path.display()));
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(reason), "{source}");
    }
    std::fs::write(&path, b"# caf\xc3\xa9\nx = \"\xff\"\n").unwrap();
    assert_eq!(
        load(&path).unwrap_err().to_string(),
        format!("{}:2:6: this is not UTF-8; save the file as UTF-8 text", path.display())
    );
}

#[test]
fn deep_nesting_and_long_lines_end_in_a_message() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{b=".repeat(50_000)),
        "[a.".repeat(50_000),
        format!("[{}]", vec!["a"; 50_000].join(".")),
        "a".repeat(200_000),
        format!("{}=1", vec!["a"; 50_000].join(".")),
    ] {
        assert!(parse(&text, "t").is_err());
    }
}

fn line() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        Just("owners"),
        Just("idle"),
        Just("memory"),
        Just("pids"),
        Just("egress"),
        Just("listen"),
        Just("password"),
        Just("model"),
        Just("permissions"),
        Just("program"),
        Just("upstream"),
        Just("x.y")
    ];
    let value = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|s| format!("{s:?}")),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("1.5".to_owned()),
        Just("[1, \"a\", {}]".to_owned()),
        Just("2020-01-01".to_owned()),
        Just("\"10m\"".to_owned()),
        Just("\"999999999999999999d\"".to_owned()),
    ];
    let section = prop_oneof![
        Just("telegram"),
        Just("claude"),
        Just("defaults"),
        Just("agents"),
        Just("agents.a"),
        Just("status"),
        Just("z")
    ];
    prop_oneof![
        (key, value).prop_map(|(k, v)| format!("{k} = {v}\n")),
        section.prop_map(|s| format!("[{s}]\n")),
    ]
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse_bytes(&bytes, "t");
    }

    #[test]
    fn no_settings_file_makes_it_panic_and_every_mistake_has_a_remedy(lines in prop::collection::vec(line(), 0..12)) {
        if let Err(error) = parse(&lines.concat(), "t") {
            for problem in error.problems() {
                prop_assert!(problem.line >= 1 && problem.column >= 1);
                prop_assert!(!problem.what.is_empty() && !problem.fix.is_empty());
                prop_assert!(!problem.to_string().chars().any(|c| c.is_control()), "{problem}");
            }
        }
    }
}
