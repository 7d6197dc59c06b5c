//! The numbers in force, where they come from, and who is told when a user comes close to them.

use super::*;

#[tokio::test]
async fn alerts_are_printed_as_a_user_nears_the_limit_and_when_it_is_over() {
    let mut server = Server::start(&["--max-per-user", "5"]);
    let open = join_all((0..5).map(|_| server.open("user=ada"))).await;
    server.live_becomes(5).await;
    // The monitor looks at once where somebody is refused.
    assert_eq!(refusal(server.try_open("user=ada").await).0, 429);
    let why = server.get("/why?user=ada").await.body;
    assert!(why.contains(r#""alert_level":"emergency""#), "{why}");
    let mut line = server.line().await;
    while !line.ends_with("→ emergency, 5 of 5") {
        assert!(line.starts_with("alert: user ada "), "{line}");
        line = server.line().await;
    }
    assert!(line.starts_with("alert: user ada "), "{line}");
    drop(open);
    while !line.contains("→ normal, ") {
        line = server.line().await;
        assert!(line.starts_with("alert: user ada "), "{line}");
    }
}

#[tokio::test]
async fn the_pool_tells_its_numbers_its_levels_and_who_looks_after_it() {
    let server = Server::start(&["--at-limit", "idlest", "--max-per-user", "7"]);
    let _open = server.open("user=ada").await;
    let pool = server.live_becomes(1).await;
    let numbers = &pool["config"]["config"];
    assert_eq!(pool["config"]["number"], 1);
    for (field, value) in [
        ("environment", json!("production")),
        ("max_managers_per_user", json!(7)),
        ("duplicates", json!("allow")),
        ("at_limit", json!("evict_idlest")),
        ("heartbeat_interval", json!("20s")),
        ("background_interval", json!("60s")),
        ("idle_background", json!("600s")),
        ("outbound_bytes", json!(256 * 1024)),
    ] {
        assert_eq!(numbers[field], value, "{field}");
    }
    assert_eq!((&pool["level"], &pool["users_by_level"]["normal"]), (&json!("normal"), &json!(1)));
    assert_eq!(pool["maintenance"]["is_forgotten"], false);
    assert_eq!(pool["suspects"], json!([]));
    let no_buffers = json!({ "leased_bytes": 0, "spare_bytes": 0, "limit": 64 << 20, "exhausted": 0 });
    assert_eq!(pool["inbound"], no_buffers);
    let operations: Vec<_> = pool["cleanups"].as_array().expect("a list").iter().collect();
    assert_eq!(operations.len(), 4);
    assert!(operations.iter().all(|operation| operation["runs"].is_u64()), "{operations:?}");
}

#[cfg(not(feature = "config"))]
#[test]
fn a_build_without_the_feature_says_so_when_a_file_is_named() {
    let output = run(&["--config", "pool.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(message.contains("built without the feature `config`"), "{message}");
}

#[cfg(feature = "config")]
mod file {
    use super::*;
    use std::fs;

    /// A file of its own for each test.
    struct File(PathBuf);

    impl File {
        fn new(name: &str, text: &str) -> Self {
            let name = format!("chat-{name}-{}.toml", std::process::id());
            let file = Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name));
            file.write(text);
            file
        }

        fn write(&self, text: &str) {
            fs::write(&self.0, text).expect("write the file");
        }

        fn path(&self) -> &str {
            self.0.to_str().expect("UTF-8")
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[tokio::test]
    async fn sighup_puts_the_file_in_force_and_closes_nobody() {
        let file = File::new("reload", "max_managers_per_user = 2\nclose_timeout = \"3s\"\n");
        let mut server = Server::start(&["--config", file.path()]);
        let _open = join_all((0..2).map(|_| server.open("user=ada&thread=thread_one"))).await;
        server.live_becomes(2).await; // on one thread: the chat's own default holds
        assert_eq!(refusal(server.try_open("user=ada").await).0, 429);
        assert_eq!(server.pool().await["config"]["config"]["close_timeout"], "3s");
        assert!(server.line().await.starts_with("alert: user ada "));

        file.write("max_managers_per_user = 3\n");
        server.signal(Signal::HUP);
        assert_eq!(server.next_but_alerts().await, "config: version 2 is in force");
        let _third = server.open("user=ada").await;
        let pool = server.live_becomes(3).await;
        assert_eq!(pool["config"]["number"], 2);
        assert_eq!(pool["config"]["config"]["close_timeout"], "5s");

        for (text, problem) in [
            ("max_managers_per_user = 0\n", "max_managers_per_user is 0"),
            ("max_managers_per_usr = 4\n", "max_managers_per_user"),
            ("capacity = 7\n", "fixed while the pool lives"),
        ] {
            file.write(text);
            server.signal(Signal::HUP);
            let line = server.next_but_alerts().await;
            assert!(line.starts_with("config: nothing has changed: ") && line.contains(problem), "{line}");
        }
        assert_eq!(server.live_becomes(3).await["config"]["number"], 2);
    }

    #[tokio::test]
    async fn the_command_line_is_stronger_than_the_file_also_after_a_reload() {
        let file = File::new("stronger", "max_managers_per_user = 2\nduplicates = \"reject\"\n");
        let mut server = Server::start(&["--max-per-user", "4", "--config", file.path()]);
        assert_eq!(server.limits().await, [json!(4), json!("reject")]);
        file.write("max_managers_per_user = 3\n");
        server.signal(Signal::HUP);
        assert_eq!(server.line().await, "config: version 2 is in force");
        assert_eq!(server.limits().await, [json!(4), json!("allow")]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_said_and_ends_with_2() {
        let file = File::new("bad", "capcity = 5\n");
        let missing = file.path().replace("chat-bad", "chat-missing");
        for (path, problem) in [(file.path(), "the nearest is capacity"), (&missing, "chat-missing")] {
            let output = run(&["--addr", "127.0.0.1:0", "--config", path]);
            let stderr = String::from_utf8(output.stderr).expect("UTF-8");
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            assert!(stderr.contains(problem), "{stderr}");
        }
    }

    impl Server {
        async fn limits(&self) -> [Value; 2] {
            let pool = self.pool().await;
            ["max_managers_per_user", "duplicates"].map(|field| pool["config"]["config"][field].clone())
        }

        async fn next_but_alerts(&mut self) -> String {
            loop {
                let line = self.line().await;
                if !line.starts_with("alert: ") {
                    return line;
                }
            }
        }
    }
}
