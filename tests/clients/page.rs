//! The chat page in Chromium, as people use it.

use crate::driver::{Client, Kind};
use crate::server::Server;
use serde_json::{Value, json};

const CONNECTED: &str = "connected";

/// What a person does with a tab.
impl Client {
    async fn visit(&mut self, tab: &str, url: &str) {
        self.ask(json!({"do": "visit", "tab": tab, "url": url})).await;
    }

    async fn fill(&mut self, tab: &str, into: &str, text: &str) {
        self.ask(json!({"do": "fill", "tab": tab, "into": into, "text": text})).await;
    }

    async fn click(&mut self, tab: &str, on: &str) {
        self.ask(json!({"do": "click", "tab": tab, "on": on})).await;
    }

    /// Waits until the text is seen.
    async fn see(&mut self, tab: &str, place: &str, text: &str) -> String {
        let answer = self.ask(json!({"do": "see", "tab": tab, "where": place, "text": text})).await;
        answer["seen"].as_str().expect("a text").to_owned()
    }

    /// Gives a name, and waits to be in.
    async fn join(&mut self, tab: &str, server: &Server, name: &str) {
        self.visit(tab, &page(server, "")).await;
        self.fill(tab, r#"role=textbox[name="Name"]"#, name).await;
        self.click(tab, r#"role=button[name="Join"]"#).await;
        self.see(tab, "#state", CONNECTED).await;
    }

    async fn write(&mut self, tab: &str, to: &str, text: &str) {
        self.fill(tab, r#"role=combobox[name="Recipient; empty for this thread"]"#, to).await;
        self.fill(tab, r#"role=textbox[name="Message"]"#, text).await;
        self.ask(json!({"do": "press", "tab": tab, "key": "Enter"})).await;
    }
}

fn page(server: &Server, query: &str) -> String {
    format!("http://{}/?{query}", server.addr)
}

/// Whose connections the pool shows, sorted.
fn users(pool: &Value) -> Vec<&str> {
    let managers = pool["managers"].as_array().expect("a list");
    let mut users: Vec<_> = managers.iter().map(|manager| manager["user_id"].as_str().unwrap()).collect();
    users.sort_unstable();
    users
}

#[tokio::test]
async fn two_people_write_to_each_other_on_the_page() {
    let Some(mut browser) = Client::start(Kind::Chromium) else { return };
    let server = Server::start(&[]);
    browser.join("one", &server, "ada").await;
    browser.join("two", &server, "爱丽丝 🌍").await;
    assert_eq!(users(&server.live_becomes(2).await), ["ada", "爱丽丝 🌍"]);

    let markup = "hi <b onclick='alert(1)'>Alice</b> 🌍";
    browser.write("one", "爱丽丝 🌍", markup).await;
    let row = browser.see("two", "role=log >> .message", "hi <b onclick").await;
    assert!(row.contains("ada") && row.contains("to you") && row.contains(markup), "{row}");
    browser.write("two", "ada", "hello yourself").await;
    browser.see("one", "role=log >> .message", "hello yourself").await;
    browser.write("one", "nobody", "hi").await;
    browser.see("one", "role=log >> .event", "nobody is connected as nobody").await;

    browser.click("one", r#"role=button[name="Leave"]"#).await;
    browser.see("one", "#join", "Who are you?").await;
    assert_eq!(users(&server.live_becomes(1).await), ["爱丽丝 🌍"]);
    browser.lose("two").await; // closes the tab
    server.is_empty_again().await;
    browser.end().await;
}

#[tokio::test]
async fn two_tabs_of_one_thread_see_each_other_and_a_reload_stays_in_it() {
    let Some(mut browser) = Client::start(Kind::Chromium) else { return };
    let server = Server::start(&[]);
    for tab in ["one", "two"] {
        browser.visit(tab, &page(&server, "user=ada&thread=thread_tabs")).await;
        browser.see(tab, "#state", CONNECTED).await;
    }
    server.live_becomes(2).await;
    browser.write("one", "", "tea?").await;
    browser.see("two", "role=log >> .message", "tea?").await;
    browser.ask(json!({"do": "reload", "tab": "two"})).await;
    browser.see("two", "#state", CONNECTED).await;
    server.live_becomes(2).await;
    browser.write("two", "", "yes, please").await;
    browser.see("one", "role=log >> .message", "yes, please").await;
    for tab in ["one", "two"] {
        browser.lose(tab).await;
    }
    server.is_empty_again().await;
    browser.end().await;
}

#[tokio::test]
async fn whoever_is_refused_reads_why_and_comes_in_when_there_is_room() {
    let Some(mut browser) = Client::start(Kind::Chromium) else { return };
    let server = Server::start(&["--max-per-user", "1"]);
    browser.join("one", &server, "ada").await;
    browser.visit("two", &page(&server, "user=ada")).await;
    browser.see("two", "#notice", "1 open connection").await;
    browser.click("one", r#"role=button[name="Leave"]"#).await;
    server.live_becomes(0).await;
    browser.click("two", r#"#notice >> role=button[name="Try now"]"#).await;
    browser.see("two", "#state", CONNECTED).await;
    browser.lose("two").await;
    server.is_empty_again().await;

    browser.visit("one", &page(&server, "user=ada&thread=7")).await;
    browser.see("one", "#join >> role=alert", "thread_id does not start with `thread_`").await;
    server.is_empty_again().await;
    browser.end().await;
}

#[tokio::test]
async fn a_tab_that_is_taken_over_says_so_and_does_not_come_back_by_itself() {
    let Some(mut browser) = Client::start(Kind::Chromium) else { return };
    let server = Server::start(&["--duplicate", "replace"]);
    for tab in ["old", "new"] {
        browser.visit(tab, &page(&server, "user=ada&thread=thread_one")).await;
        browser.see(tab, "#state", CONNECTED).await;
    }
    browser.see("old", "#state", "taken over").await;
    browser.see("old", "#notice", "This thread was opened in a newer tab").await;
    browser.see("old", "role=log >> .event", "(4001)").await;
    server.live_becomes(1).await;
    browser.click("old", r#"#notice >> role=button[name="Take it back"]"#).await;
    browser.see("old", "#state", CONNECTED).await;
    browser.see("new", "#state", "taken over").await;
    for tab in ["old", "new"] {
        browser.lose(tab).await;
    }
    server.is_empty_again().await;
    browser.end().await;
}
