//! How often a handshake may be tried, in time that is moved by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;
use ws_manager_pool::serve::{Throttle, Throttled};
use ws_manager_pool::{Clock, ManualClock, UserId};

const MINUTE: Duration = Duration::from_secs(60);

fn times(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn throttle() -> (Throttle, ManualClock) {
    let (clock, hand) = Clock::manual();
    (Throttle::with_clock(clock), hand)
}

fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(number).into()
}

#[test]
fn a_burst_is_let_in_and_then_one_at_a_time_as_often_as_was_said() {
    let (throttle, hand) = throttle();
    let throttle = throttle.per_address(times(3), MINUTE);
    for _ in 0..3 {
        throttle.check_address(v4(1)).unwrap();
    }
    let refused = throttle.check_address(v4(1)).unwrap_err();
    assert_eq!(refused, Throttled::Address { retry_after: MINUTE / 3 });
    assert!(refused.to_string().ends_with("try again in 20 s"), "{refused}");
    hand.advance(refused.retry_after() - Duration::from_millis(1));
    throttle.check_address(v4(1)).unwrap_err();
    hand.advance(Duration::from_millis(1));
    throttle.check_address(v4(1)).expect("whoever waits as long as told is let in");
    throttle.check_address(v4(1)).unwrap_err();
    throttle.check_address(v4(2)).expect("the limit is the address's own");
    hand.advance(MINUTE);
    for _ in 0..3 {
        throttle.check_address(v4(1)).unwrap();
    }
}

#[test]
fn a_network_of_one_customer_is_one_address() {
    let (throttle, _hand) = throttle();
    let throttle = throttle.per_address(times(1), MINUTE);
    let address = |network: u128, host: u128| Ipv6Addr::from_bits(network << 64 | host);
    throttle.check_address(address(7, 1).into()).unwrap();
    throttle.check_address(address(7, 2).into()).unwrap_err();
    throttle.check_address(address(8, 1).into()).unwrap();
    throttle.check_address(v4(7)).unwrap();
    throttle.check_address(Ipv4Addr::from_bits(7).to_ipv6_mapped().into()).unwrap_err();
}

#[test]
fn users_and_addresses_have_limits_of_their_own_and_no_limit_refuses_nobody() {
    let (ada, bob) = (UserId::new("ada").unwrap(), UserId::new("bob").unwrap());
    let (throttle, _hand) = throttle();
    for _ in 0..1_000 {
        throttle.check_address(v4(1)).unwrap();
        throttle.check_user(&ada).unwrap();
    }
    let throttle = throttle.per_user(times(1), MINUTE);
    throttle.check_user(&ada).unwrap();
    let refused = throttle.check_user(&ada).unwrap_err();
    assert_eq!((refused, refused.http_status()), (Throttled::User { retry_after: MINUTE }, 429));
    throttle.check_user(&bob).unwrap();
    throttle.check_address(v4(1)).unwrap();
    assert_eq!(throttle.known(), (0, 2));
    assert!(!format!("{throttle:?}").contains("ada"));
}

#[test]
fn what_is_known_is_bounded_forgotten_and_given_back() {
    let (throttle, hand) = throttle();
    let throttle = throttle.per_address(times(2), MINUTE);
    let most = Throttle::MAX_KEYS as u32;
    for number in 0..most {
        throttle.check_address(v4(number)).unwrap();
    }
    // Beyond the bound there is one limit for all who are not known, and the known keep theirs.
    throttle.check_address(v4(most)).unwrap();
    throttle.check_address(v4(most + 1)).unwrap();
    throttle.check_address(v4(most + 2)).unwrap_err();
    throttle.check_address(v4(0)).unwrap();
    throttle.check_address(v4(0)).unwrap_err();
    assert_eq!(throttle.known(), (Throttle::MAX_KEYS, 0));

    hand.advance(MINUTE);
    throttle.check_address(v4(most + 2)).unwrap();
    assert_eq!(throttle.known().0, 2, "who came twice, and who came now");
    hand.advance(2 * MINUTE);
    throttle.check_address(v4(1)).unwrap();
    assert_eq!(throttle.known().0, 1);
}
