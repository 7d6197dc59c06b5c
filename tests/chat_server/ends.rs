//! "Why was I closed?", asked after each way to be closed that a client can bring about.

use super::*;

impl Server {
    async fn why(&self, user: &str) -> Value {
        let answer = self.get(&format!("/why?user={}", encoded(user))).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).expect("/why is JSON")
    }

    /// Waits until so many connections have opened, though some may be over.
    async fn opened_becomes(&self, opened: usize) {
        let turns = async {
            while self.pool().await["ledger"]["tally"]["opened"] != opened {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(BOUND, turns).await.unwrap_or_else(|_| panic!("never {opened} opened"));
    }
}

/// Whose connections ended, why and with which code.
fn told(listing: &Value) -> Vec<(&str, &str, u64)> {
    let ends = listing["last_ends"].as_array().expect("a list");
    ends.iter()
        .map(|end| {
            let [user, reason] = ["user_id", "reason"].map(|field| end[field].as_str().expect(field));
            (user, reason, end["close_code"].as_u64().expect("a code"))
        })
        .collect()
}

#[tokio::test]
async fn a_close_is_remembered_of_its_user_and_of_all() {
    let server = Server::start(&[]);
    let nothing = server.why("ada").await;
    assert_eq!(nothing["last_ends"], json!([]));
    assert_eq!((&nothing["manager_count"], &nothing["max_managers"]), (&json!(0), &json!(20)));

    let mut ada = server.open("user=ada&thread=thread_tea").await;
    let mut bob = server.open("user=bob").await;
    let open = server.live_becomes(2).await;
    assert_eq!(told(&open), []);
    assert_eq!(server.why("ada").await["manager_count"], 1);

    ada.close(None).await.expect("close");
    server.live_becomes(1).await;
    bob.close(None).await.expect("close");
    let pool = server.live_becomes(0).await;
    let mut all = told(&pool);
    all.sort_unstable(); // both may have ended within one tick of the clock
    assert_eq!(all, [("ada", "closed", 1000), ("bob", "closed", 1000)]);
    let why = server.why("ada").await;
    assert_eq!(told(&why), [("ada", "closed", 1000)], "and nothing of Bob's");
    let end = &why["last_ends"][0];
    assert_eq!((&end["thread_id"], &end["text"]), (&json!("thread_tea"), &json!("closed")));
    assert!(end["made_at"].as_str().expect("a place").contains("chat_server.rs:"), "{end}");
    assert!(end["ended_ms_ago"].is_u64() && end["age_ms"].is_u64(), "{end}");
}

#[tokio::test]
async fn whoever_was_taken_over_learns_it_from_why() {
    let server = Server::start(&["--duplicate", "replace"]);
    let mut old = server.open("user=ada&thread=thread_one").await;
    server.live_becomes(1).await;
    let _new = server.open("user=ada&thread=thread_one").await;
    assert_eq!(close_code(&mut old).await, 4001);
    let why = server.why("ada").await;
    assert_eq!(told(&why), [("ada", "takeover", 4001)]);
    assert_eq!(why["last_ends"][0]["text"], "taken over by a newer connection");
}

#[tokio::test]
async fn at_the_limit_the_oldest_makes_room_and_why_says_so() {
    let server = Server::start(&["--at-limit", "oldest", "--max-per-user", "2"]);
    let mut oldest = server.open("user=ada&thread=thread_1").await;
    server.live_becomes(1).await;
    let _second = server.open("user=ada&thread=thread_2").await;
    server.opened_becomes(2).await;
    let mut third = server.open("user=ada&thread=thread_3").await;
    assert_eq!(close_code(&mut oldest).await, 4008);
    say(&mut third, "here").await;
    assert_eq!(hear(&mut third).await["text"], "here");

    let why = server.why("ada").await;
    // The latest first: the monitor may have forced out the second as well by now.
    assert_eq!(told(&why).last(), Some(&("ada", "limit", 4008)));
    let ends = why["last_ends"].as_array().expect("a list");
    assert_eq!(ends.last().expect("an end")["thread_id"], "thread_1");
    assert_eq!(server.pool().await["ledger"]["balanced"], true);
}

#[tokio::test]
async fn why_of_a_bad_user_id_is_400_and_names_the_rule() {
    let server = Server::start(&[]);
    let long = format!("user={}", "a".repeat(129));
    for (query, rule) in [
        ("", "user_id is empty: send 1 to 128 bytes"),
        ("user=", "user_id is empty: send 1 to 128 bytes"),
        (long.as_str(), "user_id has 129 bytes"),
        ("user=a%00b", "control character U+0000"),
        ("user=%ff", "user is not UTF-8"),
        ("user=%4", "% without two hex digits"),
    ] {
        let answer = server.get(&format!("/why?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.body.contains(rule), "{query}: {}", answer.body);
    }
    let stranger = "<b>爱丽丝</b> & Ørsted";
    assert_eq!(server.why(stranger).await["user_id"], stranger);
}
