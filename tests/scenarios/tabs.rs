//! One user's browser, everybody's browser at once, and a network that comes and goes.

use crate::stage::{play, pool};
use crate::support::{Client, close_code, connect, context, eventually, hear, knock, reset, say};
use futures_util::StreamExt;
use tokio::task::JoinSet;
use ws_manager_pool::{DuplicatePolicy, EndReason};

/// Kills a tab in one of four ways.
async fn kill(mut tab: Client, way: usize) {
    match way % 4 {
        0 => tab.close(None).await.unwrap(),
        1 => say(&mut tab, "cancel").await,
        2 => return reset(tab),
        _ => return drop(tab),
    }
    while let Some(Ok(_)) = tab.next().await {}
}

#[test]
fn multi_tab_browser() {
    const TABS: usize = 20;
    const ROUNDS: usize = 6;
    let pool = pool("multi-tab").max_managers_per_user(TABS).duplicates(DuplicatePolicy::Allow);
    play(pool, async |server| {
        let address = server.address;
        let to = context("ada", Some("thread_shared")).isolation_key();
        for round in 0..ROUNDS {
            let mut tabs = Vec::new();
            for _ in 0..TABS {
                tabs.push(connect(address, "ada/thread_shared").await);
            }
            assert_eq!(knock(address, "ada").await.err(), Some(429), "one tab too many");
            assert_eq!(server.pool.send_to_thread(&to, "all".into()).queued, TABS);

            let (killed, mut kept): (Vec<_>, Vec<_>) =
                tabs.into_iter().enumerate().partition(|(number, _)| (number + round) % 2 == 0);
            for (number, tab) in killed {
                kill(tab, number / 2).await;
            }
            eventually("half are gone", || server.pool.snapshot().live == TABS / 2).await;
            let report = server.pool.send_to_thread(&to, "the rest".into());
            assert!(report.is_complete(), "{report:?}");
            assert_eq!(report.queued, TABS / 2, "every tab that is left, and no other");
            for (_, tab) in &mut kept {
                assert_eq!((hear(tab).await, hear(tab).await), ("all".into(), "the rest".into()));
            }
            for (number, tab) in kept {
                kill(tab, number / 2 + round).await;
            }
            server.is_empty().await;
        }
        assert_eq!(server.pool.ledger().tally.opened, (ROUNDS * TABS) as u64);
    });
}

#[test]
fn cold_start_burst() {
    const USERS: usize = 50;
    const LIMIT: usize = 5;
    const SLOW: usize = 3;
    const TABS: usize = 6;
    // Only the quota says no.
    let pool = pool("cold-start").capacity(USERS * (SLOW + TABS)).max_managers_per_user(LIMIT);
    play(pool, async |server| {
        let address = server.address;
        let users: Vec<_> = (0..USERS).map(|number| format!("user{number}")).collect();
        // Some handshakes of each user are slow: they are reserved, and stay so during the burst.
        let reserve = |user: &str| server.pool.reserve(&context(user, None)).unwrap();
        let slow: Vec<_> = users.iter().flat_map(|user| [user; SLOW]).map(|user| reserve(user)).collect();
        let mut burst = JoinSet::new();
        for _ in 0..TABS {
            for user in users.clone() {
                burst.spawn(async move { knock(address, &user).await });
            }
        }
        let answers = burst.join_all().await;
        let (admitted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert!(refused.iter().all(|refusal| refusal.as_ref().err() == Some(&429)));
        assert_eq!(admitted.len(), USERS * (LIMIT - SLOW), "those whom the quota has room for");

        let slow: Vec<_> = slow.into_iter().map(|place| place.open().unwrap()).collect();
        eventually("all that were admitted are open", || server.pool.snapshot().live == USERS * LIMIT).await;
        assert!(users.iter().all(|user| server.keys_of(user).len() == LIMIT), "each user has the same");
        let snapshot = server.pool.snapshot();
        assert_eq!(snapshot.refused.user_full, refused.len() as u64);
        assert!(snapshot.ledger.balanced, "{snapshot:#?}");
        // All go at once as well.
        drop(slow);
        drop(admitted);
    });
}

#[test]
fn network_reconnect_cycles() {
    const PHONES: usize = 4;
    const CYCLES: usize = 12;
    // At her limit ada's new connection takes over the old one's slot: a late close names the slot that
    // the new one is in. Bob, who is not at his, gets a slot of its own for it.
    let pool = pool("reconnects").max_managers_per_user(PHONES);
    play(pool, async |server| {
        let address = server.address;
        let of_ada = (0..PHONES).map(|number| ("ada", PHONES, format!("ada/thread_{number}")));
        let phones: Vec<_> = of_ada.chain([("bob", 1, "bob/thread_0".into())]).collect();
        let mut clients = Vec::new();
        for (_, _, path) in &phones {
            clients.push(connect(address, path).await);
        }
        for cycle in 0..CYCLES {
            for (client, (user, count, path)) in clients.iter_mut().zip(&phones) {
                // The network was gone, and the server has not noticed.
                let mut old = std::mem::replace(client, connect(address, path).await);
                assert_eq!(server.keys_of(user).len(), *count, "the old one has ended");
                if cycle % 2 == 0 {
                    assert_eq!(close_code(&mut old).await, 4001);
                } else {
                    reset(old);
                }
                // By now the old one's own close has come, and come late.
                assert_eq!(server.report().await.reason, EndReason::Takeover);
                assert_eq!(server.keys_of(user).len(), *count, "the late close ended nobody");
                say(client, "again").await;
                assert_eq!(hear(client).await, "1 again", "a fresh manager");
            }
        }
        let ends = server.pool.ledger().tally.ends_by_reason;
        assert_eq!(ends, [("takeover", ((PHONES + 1) * CYCLES) as u64)].into());
    });
}
