//! The disease that this crate was made against: the ids of a connection are generated twice, so that
//! what is looked up is not what was stored.

use crate::stage::{MISMATCHES, clean_up, maintain, play, pool, user};
use crate::support::{close_code, connect, context, hear, knock, say};
use ws_manager_pool::{EndReason, Message};

#[test]
fn database_websocket_context_mismatch() {
    play(pool("mismatch"), async |server| {
        let pool = server.pool.clone();
        let of_the_socket = context("ada", Some("thread_socket"));
        let mut client = connect(server.address, "ada/thread_socket").await;
        let key = server.keys_of("ada")[0];

        // The database side makes the ids again, instead of using those that there are.
        let of_the_database = context("ada", None);
        let report = pool.send_to_thread(&of_the_database.isolation_key(), Message::from("astray"));
        assert!(report.is_nobody && report.addressed() == 0, "{report:?}");
        assert_eq!(pool.snapshot().mismatches, 1);
        assert_eq!(clean_up(&pool, &of_the_database), 0, "it cleans nothing");
        assert_eq!(pool.snapshot().mismatches, MISMATCHES);
        // Opened with them, it is another connection, and its end is not the end of the first.
        let reopened = pool.reserve(&of_the_database).unwrap().open().unwrap();
        assert_ne!(reopened.key(), key);
        assert_eq!(pool.snapshot().live, 2);
        drop(reopened);
        assert_eq!(server.keys_of("ada"), [key]);
        // Another user's thread of the same name is no match, and no mismatch either.
        let of_nobody = context("bob", Some("thread_socket"));
        assert!(pool.send_to_thread(&of_nobody.isolation_key(), Message::from("astray")).is_nobody);
        assert_eq!(clean_up(&pool, &of_nobody), 0);

        say(&mut client, "hello").await;
        assert_eq!(hear(&mut client).await, "1 hello", "nothing went astray to this one");
        assert!(pool.send_to_thread(&of_the_socket.isolation_key(), Message::from("found")).is_complete());
        assert_eq!(hear(&mut client).await, "found");
        assert_eq!(clean_up(&pool, &of_the_socket), 1, "the real clean-up");
        assert_eq!(close_code(&mut client).await, 4002);
        assert_eq!(server.report().await.reason, EndReason::Operator);
        assert_eq!(server.keys_of("ada"), []);
    });
}

#[test]
fn recovery_after_a_context_mismatch() {
    const LIMIT: usize = 20;
    const ROUNDS: usize = 3;
    play(pool("recovery").max_managers_per_user(LIMIT), async |server| {
        let pool = server.pool.clone();
        for round in 1..=ROUNDS {
            // Who was locked out by what stayed behind would not get in here.
            let mut clients = Vec::new();
            for _ in 0..LIMIT {
                clients.push(connect(server.address, "ada").await);
            }
            assert_eq!(knock(server.address, "ada").await.err(), Some(429));
            for _ in 0..LIMIT {
                let again = context("ada", None);
                assert!(pool.send_to_thread(&again.isolation_key(), Message::from("astray")).is_nobody);
                assert_eq!(clean_up(&pool, &again), 0);
            }
            assert_eq!(pool.snapshot().mismatches, (round * LIMIT) as u64 * MISMATCHES);
            maintain(&pool, pool.clock().now());
            let report = pool.send_to_user(&user("ada"), Message::from("still here"));
            assert_eq!((report.queued, report.is_complete()), (LIMIT, true));
            for client in &mut clients {
                assert_eq!(hear(client).await, "still here");
                client.close(None).await.unwrap();
            }
            drop(clients);
            server.is_empty().await;
        }
    });
}
