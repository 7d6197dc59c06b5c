//! The example behind TLS really serves, and really measures.

use std::process::Command;

#[test]
fn what_tls_costs_is_a_line_of_its_own() {
    let mut example = std::env::current_exe().unwrap();
    example.pop();
    example.set_file_name("examples");
    example.push("tls");
    let output = Command::new(&example).args(["--measure", "100"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let bytes = |line: &str| -> i64 {
        let line = text.lines().find(|found| found.starts_with(line)).unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().last().unwrap().parse().unwrap()
    };
    let (pool, rustls, whole) = (bytes("the pool"), bytes("+ what rustls"), bytes("whole"));
    assert!((whole - pool - rustls).abs() <= 1, "{text}");
    assert!(rustls > 1_000, "rustls keeps its keys and buffers: {text}");

    let refused = Command::new(&example).args(["--measure", "3"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--measure 3: at least 100"));
}
