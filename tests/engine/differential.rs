//! The engine beside tungstenite: the same messages and the same kind of end for any stream in any cuts.
//! What they see differently is named by `scenario::agree`.

use crate::scenario::{agree, push_head, run};
use proptest::prelude::*;
use ws_manager_pool::engine::Limits;

/// Of a client that keeps to the rules, now and then not.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        6 => prop::sample::select(vec![0x81, 0x82, 0x01, 0x02, 0x00, 0x80]),
        3 => prop::sample::select(vec![0x89, 0x8a, 0x88]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        12 => "\\PC{0,40}".prop_map(String::into_bytes),
        6 => prop::collection::vec(any::<u8>(), 0..20),
        6 => (900..6_000_u16, "\\PC{0,10}").prop_map(|(code, why)| [&code.to_be_bytes(), why.as_bytes()].concat()),
        3 => (120..300_usize).prop_map(|len| vec![b'x'; len]),
        1 => prop::sample::select(vec![1_000, 3_000, 65_536]).prop_map(|len| vec![b'x'; len]),
    ];
    let width = prop_oneof![30 => Just(None), 1 => prop::sample::select(vec![Some(2), Some(8)])];
    let frame = (first, payload, width, prop::bool::weighted(0.97), any::<[u8; 4]>()).prop_map(
        |(first, payload, width, masked, mask)| {
            let mut frame = Vec::new();
            let shortest = match payload.len() {
                0..=125 => 0,
                126..=65_535 => 2,
                _ => 8,
            };
            push_head(&mut frame, first, payload.len(), width.unwrap_or(0).max(shortest), masked);
            let mask = if masked { mask } else { [0; 4] };
            frame.extend(&mask[..if masked { 4 } else { 0 }]);
            frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            frame
        },
    );
    prop::collection::vec(frame, 0..12).prop_map(|frames| frames.concat())
}

/// Valid text in frames that cut it anywhere.
fn a_fragmented_text() -> impl Strategy<Value = Vec<u8>> {
    ("\\PC{0,60}", prop::collection::vec(0..9_usize, 1..9), any::<[u8; 4]>()).prop_map(
        |(text, cuts, mask)| {
            let mut stream = Vec::new();
            let mut left = text.as_bytes();
            for (at, &cut) in cuts.iter().enumerate() {
                let is_last = at + 1 == cuts.len();
                let len = if is_last { left.len() } else { cut.min(left.len()) };
                let first = u8::from(at == 0) | if is_last { 0x80 } else { 0 };
                let width = if len > 125 { 2 } else { 0 };
                push_head(&mut stream, first, len, width, true);
                stream.extend(mask);
                stream.extend(left[..len].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
                left = &left[len..];
            }
            stream
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    let sizes = || prop::sample::select(vec![125, 200, 1_000, 100_000]);
    (sizes(), sizes()).prop_map(|(frame, message)| Limits { frame, message })
}

fn cuts() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(vec![1]), prop::collection::vec(1..=255_u8, 1..6), prop::collection::vec(1..4_u8, 1..6)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn frames_mean_the_same(stream in frames(), limits in limits(), cuts in cuts()) {
        agree(&stream, &limits, &cuts);
    }

    #[test]
    fn a_fragmented_text_means_the_same(stream in a_fragmented_text(), limits in limits(), cuts in cuts()) {
        agree(&stream, &limits, &cuts);
    }

    #[test]
    fn any_bytes_mean_the_same(
        stream in prop::collection::vec(any::<u8>(), 0..64),
        limits in limits(),
        cuts in cuts(),
    ) {
        agree(&stream, &limits, &cuts);
    }

    /// Each a case of the fuzz target.
    #[test]
    fn any_script_means_the_same(script in prop::collection::vec(any::<u8>(), 0..200)) {
        run(&script);
    }

    #[test]
    fn what_is_missing_or_changed_means_the_same(
        stream in frames(),
        end in any::<prop::sample::Index>(),
        change in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        limits in limits(),
        cuts in cuts(),
    ) {
        let mut stream = stream;
        if !stream.is_empty() {
            stream.truncate(end.index(stream.len()) + 1);
            if let Some((at, byte)) = change {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
        }
        agree(&stream, &limits, &cuts);
    }
}
