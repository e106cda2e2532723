use super::*;

fn good() -> CellParts {
    CellParts {
        agent: "bee-1".into(),
        uid_slot: Some(3),
        workspace: "/srv/w".into(),
        home: "/srv/h".into(),
        programs: vec![("/srv/claude".into(), "/opt/skep/claude".into())],
        etc_files: vec![("claude-code/managed-settings.json".into(), b"{}".to_vec())],
        argv: vec!["/bin/true".into(), "x".into()],
        env: vec![("HOME".into(), "/home/agent".into())],
        listener_port: Some(8080),
        limits: Limits::default(),
    }
}

fn refused(change: impl FnOnce(&mut CellParts)) -> SpecError {
    let mut parts = good();
    change(&mut parts);
    CellSpec::new(parts).expect_err("must be refused")
}

#[test]
fn a_good_cell_survives_the_wire() {
    let spec = CellSpec::new(good()).expect("valid");
    let mut encoder = Encoder::default();
    spec.encode(&mut encoder);
    let bytes = encoder.finish();
    let mut decoder = Decoder::new(&bytes);
    assert_eq!(CellSpec::decode(&mut decoder).expect("decodes"), good());
    decoder.end().expect("nothing left");
    for cut in 0..bytes.len() {
        assert!(CellSpec::decode(&mut Decoder::new(&bytes[..cut])).is_err(), "cut at {cut}");
    }
}

#[test]
fn bad_names_and_paths_are_refused() {
    for name in ["", "Bee", "a/b", "-a", "a-", "a b", &"x".repeat(33)] {
        assert!(matches!(refused(|p| p.agent = name.into()), SpecError::AgentName(_)), "{name:?}");
    }
    for path in ["", "/", "relative", "/a/../b", "/a//b", "/a/", "/./a", "/a/./b", "/a\0b"] {
        assert!(matches!(refused(|p| p.workspace = path.into()), SpecError::Path { .. }), "{path:?}");
    }
    for cell in ["/usr/bin/claude", "/opt", "/optional/x"] {
        let error = refused(|p| p.programs[0].1 = cell.into());
        assert!(matches!(error, SpecError::ProgramOutsideOpt(_)), "{cell:?}");
    }
    let error = refused(|p| p.programs.push(("/x".into(), "/opt/skep/claude/y".into())));
    assert!(matches!(error, SpecError::ProgramTwice(_)));
    for path in ["", "/shadow", "../x", "passwd", "ssl/certs/x", "claude-code", "a/", "x/../y"] {
        let error = refused(|p| p.etc_files.push((path.into(), Vec::new())));
        assert!(matches!(error, SpecError::EtcPath(_)), "{path:?}");
    }
}

#[test]
fn bad_commands_environments_and_limits_are_refused() {
    assert_eq!(refused(|p| p.argv.clear()), SpecError::EmptyCommand);
    assert!(matches!(refused(|p| p.argv[0] = "true".into()), SpecError::CommandPath(_)));
    assert_eq!(refused(|p| p.argv.push("a\0".into())), SpecError::Nul);
    assert!(matches!(refused(|p| p.env.push(("HOME".into(), "x".into()))), SpecError::EnvironmentName(_)));
    assert!(matches!(refused(|p| p.env[0].0 = "A=B".into()), SpecError::EnvironmentName(_)));
    assert_eq!(refused(|p| p.listener_port = Some(0)), SpecError::ListenerPort);
    assert!(matches!(refused(|p| p.limits.pids = 0), SpecError::Limit { what: "pids", .. }));
    assert!(matches!(refused(|p| p.limits.cpu_weight = 0), SpecError::Limit { .. }));
    assert!(matches!(refused(|p| p.argv.push("x".repeat(MAX_MESSAGE).into())), SpecError::TooLarge { .. }));
}
