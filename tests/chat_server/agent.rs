//! The golden path as a browser has it: an agent is asked on a thread, its steps reach every tab of the
//! thread, and a tab that was away is handed what it missed.

use super::*;

const STEPS: [&str; 5] =
    ["agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed"];

/// The next step; texts and errors are none.
async fn step(socket: &mut Socket) -> Value {
    let next = timeout(BOUND, socket.next()).await.expect("in time").expect("open").expect("a message");
    let step: Value = serde_json::from_str(next.to_text().expect("a text")).expect("JSON");
    assert!(step["type"].is_string(), "{step} is no step");
    step
}

async fn steps(socket: &mut Socket, from: u64, to: u64) -> Vec<Value> {
    let mut seen = Vec::new();
    for seq in from..=to {
        let step = step(socket).await;
        assert_eq!(step["seq"], seq, "{step}");
        seen.push(step);
    }
    seen
}

#[tokio::test]
async fn each_tab_of_a_thread_sees_the_five_steps_and_one_that_was_away_is_handed_them() {
    let server = Server::start(&[]);
    let query = "user=ada&thread=thread_agent";
    let mut asks = server.open(query).await;
    let mut watches = server.open(query).await;
    let mut leaves = server.open(query).await;
    let mut other = server.open("user=ada&thread=thread_other").await;

    asks.send(Message::text(r#"{"ask":"how many words are these?"}"#)).await.unwrap();
    let first = step(&mut leaves).await;
    assert_eq!(
        (&first["type"], &first["data"]),
        (&json!("agent_started"), &json!("how many words are these?"))
    );
    leaves.close(None).await.unwrap();

    for socket in [&mut asks, &mut watches] {
        let seen = steps(socket, 1, 5).await;
        assert_eq!(seen.iter().map(|step| step["type"].as_str().unwrap()).collect::<Vec<_>>(), STEPS);
        assert_eq!((&seen[3]["data"], &seen[4]["outcome"]), (&json!(5), &json!("completed")));
    }
    let id = first["id"].as_str().unwrap();
    let mut back = server.open(&format!("{query}&after={id}")).await;
    steps(&mut back, 2, 5).await;

    // Another thread of the same user has seen none of it: what it reads first is what it says itself.
    other.send(Message::text("nothing here")).await.unwrap();
    let next = other.next().await.unwrap().unwrap();
    assert_eq!(serde_json::from_str::<Value>(next.to_text().unwrap()).unwrap()["text"], "nothing here");

    let pool = server.pool().await;
    assert_eq!((&pool["agents"]["runs"], &pool["delivery"]["gaps"]), (&json!(0), &json!(0)), "{pool}");
    assert!(pool["agents"]["replay_bytes"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_client_is_told_what_it_can_not_be_handed() {
    let server = Server::start(&[]);
    let mut socket = server.open("user=ada&thread=thread_lost&after=01234567-9").await;
    let gap = step(&mut socket).await;
    assert_eq!((&gap["type"], &gap["from"]), (&json!("gap"), &Value::Null), "of a server that is no more");

    for after in ["x", "", "-1", "01234567-", "1e3", "99999999999999999999"] {
        let path = format!("/ws?user=ada&thread=thread_lost&after={after}");
        let answer = server.get(&path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        assert!(answer.body.starts_with("after must be the id of the last event"), "{}", answer.body);
    }
}
